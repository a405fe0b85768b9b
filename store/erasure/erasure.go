// Package erasure removes people and tenants from the database: at once what could
// still be sent, by jobs what remains, and again after a restore what a log says.
package erasure

import (
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/queue"
	"github.com/carillonhq/carillon/store/registers"
)

// Eraser erases users and deletes tenants.
type Eraser struct {
	db        *db.DB
	queue     *queue.Queue
	registers *registers.Registers
	log       erasureLog
}

// New makes an eraser. log is the path of the file, apart from the database, that
// every erasure is written to before it happens; "": there is none.
func New(d *db.DB, q *queue.Queue, r *registers.Registers, log string) *Eraser {
	return &Eraser{db: d, queue: q, registers: r, log: erasureLog{path: log}}
}
