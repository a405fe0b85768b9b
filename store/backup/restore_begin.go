package backup

import (
	"context"
	"fmt"

	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

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
