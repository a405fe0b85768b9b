// Package queue keeps the deliveries table, which is the queue, and what belongs to
// it: notifications with their content, skips, attempts, holds, and what nodes tell
// each other about sending. Where PostgreSQL wants another statement than SQLite it
// stands beside, in a file called <name>_postgres.go.
package queue

import (
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// Queue is all of it.
type Queue struct {
	*accepts
	*targets
	*claims
	*finishes
	*scheduled
	*cancels
	*deletedEndpoints
	*heldRows
	*waitRows
	*broughtForward
	*sentNow
	*jobOrders
	*replays
	*retention
	*reads
	*affected
	*worked
	*newest
	*peers
	*hints
}

// New makes the queue of a database.
func New(d *db.DB, r *registers.Registers) *Queue {
	t := &targets{db: d, registers: r}
	b := db.Pick[db.Bulk](d, nil, &bulk{}) // SQLite is in the process, and writes one by one as fast
	a := newAccepts(d, b)
	h := &hints{db: d}
	q := &Queue{
		accepts: a, targets: t, claims: newClaims(d, t, h), finishes: &finishes{db: d, bulk: b}, scheduled: &scheduled{db: d, accepts: a},
		cancels: &cancels{d}, deletedEndpoints: &deletedEndpoints{d, r}, heldRows: &heldRows{d}, waitRows: &waitRows{d}, broughtForward: &broughtForward{d, r}, sentNow: &sentNow{d}, reads: &reads{db: d, targets: t}, peers: &peers{db: d}, hints: h,
		retention: &retention{db: d, walks: map[ids.ID]walk{}}, affected: &affected{d, r}, worked: &worked{d}, newest: &newest{d}, jobOrders: &jobOrders{d},
	}
	q.replays = &replays{db: d, registers: r, targets: t, reads: q.reads}
	return q
}
