package backup

import (
	"slices"

	"github.com/carillonhq/carillon/store/backup/archive"
	"github.com/carillonhq/carillon/store/db"
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
