// Package db is the kernel of the store: it opens the database, runs transactions
// and locks, writes in groups, seals secrets, and knows which nodes are there. It
// knows no table of the queue.
//
// Whatever waits to be written when a writer comes round shares one transaction
// and one fsync (group commit), so that a durable 202 costs a fraction of a sync.
// Reads go to pools of their own and never wait for it. Models and rare statements
// use gorm; the statements that every delivery passes through are plain SQL,
// prepared once.
package db

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// DB is one open database.
type DB struct {
	*pools
	*writer
	*seals
	*nodes
	lock *flock.Flock // of the engine, on an SQLite file
}

// Open opens the database. Any number of processes may have it open; of an SQLite
// file only one may run the engine: see LockEngine.
func Open(ctx context.Context, o Options) (*DB, error) {
	o.Bare = o.Bare || o.Peek
	if o.KeyRing == nil && !o.Bare {
		return nil, errors.New("a key ring is needed to open the store")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.QueueSize == 0 {
		o.QueueSize = 4096
	}
	if o.Machine == nil {
		o.Machine = time.Now
	}
	kind, err := dialectOf(o)
	if err != nil {
		return nil, err
	}
	d := &DB{pools: &pools{opts: o, dialect: kind}}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(kind.explain(err), d.pools.close())
	}
	return d, nil
}

func (d *DB) start(ctx context.Context) (err error) {
	if err := d.connect(ctx); err != nil {
		return err
	}
	switch {
	case d.opts.Bare:
	case d.opts.Migrate:
		err = d.Migrate(ctx)
	case !d.opts.Unchecked:
		err = d.checkSchema(ctx)
	}
	if err != nil {
		return err
	}
	if err := d.openGorm(); err != nil {
		return err
	}
	d.seals = &seals{pools: d.pools, ring: d.opts.KeyRing}
	d.writer = newWriter(d.pools)
	d.nodes = newNodes(d.pools, d.writer)
	if d.opts.Bare {
		return nil
	}
	return d.writer.start(ctx)
}

// Close writes what waits, closes the database and gives up the engine lock.
func (d *DB) Close() error {
	d.leave()
	d.writer.close()
	err := d.pools.close()
	if d.lock != nil {
		err = errors.Join(err, d.lock.Unlock())
	}
	return err
}

// LockEngine makes this process the one that runs the engine on an SQLite file.
// While it is held no other process can have leases, so those found are taken over
// at once. The lock ends with the process, however it ends. PostgreSQL needs none:
// its nodes know of each other.
func (d *DB) LockEngine() error {
	lock, err := d.dialect.lockEngine()
	if lock != nil { // one that is held already stays so
		d.lock = lock
	}
	return err
}

// Copying opens a pool whose statements may take as long as they take, and says
// how a snapshot and how a transaction that writes begin on it.
func (d *DB) Copying() (pool *sql.DB, snapshot, write string, err error) {
	pool, snapshot, err = d.dialect.copying()
	return pool, snapshot, d.dialect.begin(), err
}

// Flush moves what is in SQLite's write-ahead log into the file and empties the
// log, which otherwise holds old versions of pages for a while. false: a reader is
// in the way; try again later.
func (d *DB) Flush(ctx context.Context) (done bool, err error) {
	return d.dialect.flush(ctx, d.writes)
}

// File is the path of the SQLite file; false: it is another kind of database.
func (d *DB) File() (path string, ok bool) {
	f, ok := d.dialect.(*sqliteFile)
	if !ok {
		return "", false
	}
	return f.path, true
}

// IsPostgres tells whether a database URL names PostgreSQL.
func IsPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

func dialectOf(o Options) (dialect, error) {
	if IsPostgres(o.URL) {
		return newPostgres(o)
	}
	return newSQLite(o), nil
}

// Pick is for statements that have a text for each kind of database: it returns
// the one for this database.
func Pick[T any](d *DB, sqlite, postgres T) T {
	if d.Kind() == Postgres {
		return postgres
	}
	return sqlite
}
