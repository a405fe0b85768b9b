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
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/carillonhq/carillon/ids"
)

// Options open a database.
type Options struct {
	// URL of the database: postgres:// and what follows, or the path of the
	// SQLite file, with or without sqlite: before it, which is created where it
	// is missing.
	URL     string
	KeyRing *KeyRing // seals secrets and payloads
	Log     *slog.Logger
	// Now is the time that due rows and leases are compared with. By default it is
	// the machine's on SQLite and the database's on PostgreSQL, so that nodes
	// whose clocks differ agree.
	Now func() time.Time
	// Machine is the machine's clock, which a test may set wrong.
	Machine func() time.Time
	IDs     *ids.Generator
	// Migrate brings the schema up to date; otherwise Open fails when it is not,
	// unless Unchecked.
	Migrate   bool
	Unchecked bool
	// QueueSize bounds the writes that wait; more are refused (accept) or wait
	// (finish). Default 4,096.
	QueueSize int
	// Connections bounds the connections to PostgreSQL. Default 16, least 8.
	Connections int
	// Bare is without migrating, checking the schema, or a writer; no key ring is
	// needed but for what is sealed.
	Bare bool
	// Peek is Bare, and nothing is created or changed, whatever state the database
	// is in.
	Peek bool
}

// DB is one open database.
type DB struct {
	opts    Options
	dialect dialect
	now     func() time.Time

	writes *sql.DB
	reads  *sql.DB  // short look-ups that accepts and workers wait for
	lists  *sql.DB  // lists that people ask for, which may walk a history
	gorm   *gorm.DB // on lists
	build  *gorm.DB // for the statement builder only: a writer binds it to its connection

	prepared sync.Map // SQL text -> *sql.Stmt on the pool of reads
	writer   *writer
	lock     *flock.Flock
	*seals
	*nodes
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
	d := &DB{opts: o, dialect: kind}
	d.seals = &seals{db: d, ring: o.KeyRing}
	d.nodes = &nodes{db: d, hints: newHints(d)}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.closePools())
	}
	return d, nil
}

func (d *DB) start(ctx context.Context) (err error) {
	if err := d.dialect.open(ctx, d); err != nil {
		return err
	}
	if d.now = d.opts.Now; d.now == nil {
		if err := d.dialect.readClock(ctx, d.reads); err != nil {
			return fmt.Errorf("read the database's clock: %w", err)
		}
		d.now = d.dialect.now
	}
	if d.opts.IDs == nil {
		d.opts.IDs = ids.NewGenerator(0, d.now)
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
	if d.gorm, err = d.openGorm(d.lists); err != nil {
		return err
	}
	if d.build, err = d.openGorm(d.writes); err != nil {
		return err
	}
	if !d.opts.Bare {
		d.writer, err = newWriter(ctx, d)
	}
	return err
}

// openGorm wraps a pool. Statements are logged without their values.
func (d *DB) openGorm(pool *sql.DB) (*gorm.DB, error) {
	return gorm.Open(d.dialect.dialector(pool), &gorm.Config{
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
		NowFunc:                func() time.Time { return d.now().UTC() },
		Logger: logger.NewSlogLogger(d.opts.Log, logger.Config{
			LogLevel: logger.Error, IgnoreRecordNotFoundError: true, ParameterizedQueries: true,
		}),
	})
}

// Close writes what waits, closes the database and gives up the engine lock.
func (d *DB) Close() error {
	d.leave()
	if d.writer != nil {
		d.writer.close()
	}
	d.prepared.Range(func(_, v any) bool { _ = v.(*sql.Stmt).Close(); return true })
	err := d.closePools()
	if d.lock != nil {
		err = errors.Join(err, d.lock.Unlock())
	}
	return err
}

func (d *DB) closePools() (err error) {
	for _, pool := range []*sql.DB{d.lists, d.reads, d.writes} {
		if pool != nil {
			err = errors.Join(err, pool.Close())
		}
	}
	return err
}

// LockEngine makes this process the one that runs the engine on an SQLite file.
// While it is held no other process can have leases, so those found are taken over
// at once. The lock ends with the process, however it ends. PostgreSQL needs none:
// its nodes know of each other.
func (d *DB) LockEngine() (err error) {
	d.lock, err = d.dialect.lockEngine()
	return err
}

// Database names the database, without its password.
func (d *DB) Database() string { return d.dialect.String() }

// Kind is which one it is.
func (d *DB) Kind() string { return d.dialect.kind() }

// Shared tells whether other nodes may work on this database at the same time.
func (d *DB) Shared() bool { return d.dialect.shared() }

// IDs makes the database's ids.
func (d *DB) IDs() *ids.Generator { return d.opts.IDs }

// Log is where the store writes its lines.
func (d *DB) Log() *slog.Logger { return d.opts.Log }

// Now is the time by the clock that the database's users share.
func (d *DB) Now() time.Time { return d.now() }

// Machine is the time by this machine's own clock, which no node has to agree with.
func (d *DB) Machine() time.Time { return d.opts.Machine() }

// ClockAhead is by how much the database's clock is ahead of this machine's.
func (d *DB) ClockAhead(ctx context.Context) (time.Duration, error) {
	return d.dialect.clockAhead(ctx, d.reads)
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
func (d *DB) Flush(ctx context.Context) (done bool, err error) { return d.dialect.flush(ctx, d) }
