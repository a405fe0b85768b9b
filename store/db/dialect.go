package db

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
	"gorm.io/gorm"
)

// dialect is what SQLite and PostgreSQL do differently, apart from the statements
// that have a text for each: those stand with whoever runs them, see Pick.
type dialect interface {
	connections
	clock
	transactions
	fmt.Stringer // names the database, without a password
	kind() string
	// shared: other nodes may work on the database at the same time.
	shared() bool
	// lost: what is opened is not, or no more, what the database's name leads to.
	lost() error
	migrator(log *slog.Logger) (*sql.DB, *goose.Provider, error)
	// lockEngine makes this process the one that runs the engine; nil where nodes
	// know of each other. serverRuns looks whether there is one.
	lockEngine() (*flock.Flock, error)
	serverRuns(nodes []Node, now time.Time) (bool, error)
}

// connections is how a database is reached.
type connections interface {
	// open opens the pools.
	open(ctx context.Context) (writes, reads, lists *sql.DB, err error)
	// look asks the server what must be known before anything is opened.
	look(ctx context.Context) error
	dialector(pool *sql.DB) gorm.Dialector
	// explain adds to an error what a person has to do about it, where that is known.
	explain(err error) error
	// copying opens a pool whose statements may take as long as they take, and says
	// how a snapshot begins on it.
	copying() (pool *sql.DB, snapshot string, err error)
}

// clock is the time that due rows and leases are compared with.
type clock interface {
	// readClock asks the database for its time; now tells it without asking, or the
	// machine's where that is the same.
	readClock(ctx context.Context, q Queryer) error
	now() time.Time
	// clockAhead is by how much the database's clock is ahead of the machine's.
	clockAhead(ctx context.Context, q Queryer) (time.Duration, error)
}

// transactions is how they begin, fail and end.
type transactions interface {
	// begin starts a transaction that will write.
	begin() string
	// writers is how many transactions run at a time.
	writers() int
	// prepares: a statement is prepared once for a connection. Where it is not, the
	// driver does so by itself.
	prepares() bool
	faults
	// whole tells whether a transaction can be committed as it is, and would be kept.
	whole(conn *sql.Conn) error
	// overwriting switches whether what is removed is overwritten in the file.
	overwriting(ctx context.Context, conn *sql.Conn, on bool) error
	// flush removes old versions of pages from the files; false: a reader is in the
	// way.
	flush(ctx context.Context, writes *sql.DB) (done bool, err error)
}

// faults tells what an error of the database means.
type faults interface {
	// unable: the database, not a statement, is at fault.
	unable(err error) bool
	// undone: a commit that failed so has changed nothing.
	undone(err error) bool
	// again: the transaction was undone for the sake of another; it may be repeated.
	again(err error) bool
	// raced: another node took a unique key at the same moment.
	raced(err error) bool
	// unusable: after a rollback for a reason, the connection is of no use any more.
	// worth: the rollback's own error is worth a line in the log.
	afterRollback(failed, reason error) (unusable, worth bool)
}

// The kinds of database, as files and people call them.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
)
