package queue

import (
	"fmt"

	"github.com/carillonhq/carillon/store/db"
)

// On PostgreSQL every statement costs a trip to the server, so what is alike in a
// batch is written together: a submission is a row of arrays. SQLite is in the
// process, where a prepared statement for each row costs less than a long one.

// bulk writes the members of a batch that are alike together.
type bulk struct{ _ byte } // a size, so that it is equal to itself alone

// WriteTogether implements db.Bulk. What is accepted comes before what is finished,
// in every batch, so that no two of them wait for each other.
func (*bulk) WriteTogether(t *db.Tx, members []any) (done []bool, err error) {
	done = make([]bool, len(members))
	older, err := acceptTogether(t, members, done)
	if err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	if err := finishTogether(t, members, done, older); err != nil {
		return nil, fmt.Errorf("finish: %w", err)
	}
	return done, nil
}
