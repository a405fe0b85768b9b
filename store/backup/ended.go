package backup

import (
	"context"
	"fmt"
	"slices"

	"github.com/carillonhq/carillon/store/backup/archive"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// endBatch bounds the rows of one transaction.
const endBatch = db.MaxBatch

// endStatement is a statement that ends something of processes which are no more. Its
// argument is how many rows it may change.
type endStatement struct {
	query  string
	leases bool // of deliveries: it counts what may have been sent
}

// endStatements lists them: leases of deliveries end, so that they are found and
// taken over; leases of other work (lease_until, in whichever table) and duties end;
// nodes give their numbers back.
func endStatements(tables []archive.Table) []endStatement {
	out := []endStatement{
		{leases: true, query: `UPDATE deliveries SET due_at=0 WHERE (tenant_id,notification_id,target_id) IN
 (SELECT tenant_id,notification_id,target_id FROM deliveries WHERE state<4 AND state=2 AND due_at>0 LIMIT ?)`},
		// A node's row stays with its horizon: no other makes ids for a time before
		// it. A command's may be that of this process, and ends by itself.
		{query: "UPDATE nodes SET token=0 WHERE id IN (SELECT id FROM nodes WHERE token<>0 AND role<>'command' LIMIT ?)"},
		{query: "DELETE FROM duties WHERE name IN (SELECT name FROM duties LIMIT ?)"},
	}
	for _, t := range tables {
		if slices.Contains(t.Columns, "lease_until") {
			// The rows are few: what is being worked at.
			out = append(out, endStatement{query: "UPDATE " + identifiers([]string{t.Name}) + " SET lease_until=0 WHERE lease_until>0 AND ?>0"})
		}
	}
	return out
}

// BeginAfterRestore prepares a database that was brought back by other means than
// Restore, such as a copy of its file or a disk: sending is paused, and what
// belonged to the processes of that time ends. No server may run on it. It may be
// called again.
func (s *Backups) BeginAfterRestore(ctx context.Context, actor string) (leased int64, err error) {
	if s.db.Shared() {
		if err := s.db.NoServers(ctx, s.db.Reads()); err != nil {
			return 0, err
		}
	}
	err = s.db.Change(ctx, func(t *db.Tx) error {
		const detail = "the database was brought back from a backup"
		for _, name := range []string{registers.FactPaused, registers.FactRestored} {
			if err := t.Exec(registers.SetFact, name, db.Millis(s.db.Now()), actor, detail); err != nil {
				return err
			}
		}
		return t.Audit(0, actor, "installation.restore", detail)
	})
	if err != nil {
		return 0, err
	}
	tables, err := archivedTables(ctx, s.db, s.db.Reads())
	if err != nil {
		return 0, fmt.Errorf("read the schema: %w", err)
	}
	for _, q := range endStatements(tables) {
		for n := int64(endBatch); n == endBatch; {
			if err := s.db.Do(ctx, endBatch, func(t *db.Tx) (err error) { n, err = t.Affect(q.query, endBatch); return err }); err != nil {
				return leased, fmt.Errorf("end what was under way: %w", err)
			}
			if q.leases {
				leased += n
			}
		}
	}
	return leased, nil
}
