// Package store opens the database and composes what keeps its tables: the queue,
// the registers, erasure, backups and the doctor, all on one kernel.
package store

import (
	"context"
	"log/slog"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/store/backup"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/doctor"
	"github.com/carillonhq/carillon/store/erasure"
	"github.com/carillonhq/carillon/store/queue"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// Options open a store. Those that are not explained here are the database's: see
// db.Options.
type Options struct {
	URL         string
	KeyRing     *db.KeyRing
	Log         *slog.Logger
	Now         func() time.Time
	Machine     func() time.Time
	IDs         *ids.Generator
	Migrate     bool
	Unchecked   bool
	QueueSize   int
	Connections int
	// ErasureLog is the file, apart from the database, that every erasure is written
	// to before it happens. Empty: none.
	ErasureLog string
}

func (o Options) database() db.Options {
	return db.Options{URL: o.URL, KeyRing: o.KeyRing, Log: o.Log, Now: o.Now, Machine: o.Machine, IDs: o.IDs, Migrate: o.Migrate,
		Unchecked: o.Unchecked, QueueSize: o.QueueSize, Connections: o.Connections}
}

// Store is one open database with all that is kept in it.
type Store struct {
	*db.DB
	*queue.Queue
	*registers.Registers
	*erasure.Eraser
	*backup.Backups
	*doctor.Doctor
}

var (
	_ delivery.Store  = (*Store)(nil)
	_ delivery.Reader = (*Store)(nil)
	_ devices.Store   = (*Store)(nil)
	_ tenants.Store   = (*Store)(nil)
	_ webhooks.Store  = (*Store)(nil)
	_ jobs.Store      = (*Store)(nil)
	_ jobs.Registry   = (*Store)(nil)
)

// Open opens the database. Any number of processes may have it open; of an SQLite
// file only one may run the engine: see LockEngine.
func Open(ctx context.Context, o Options) (*Store, error) { return open(ctx, o, o.database()) }

// Peek opens a database to look at it, whatever state it is in: nothing is
// created, migrated or checked, and nothing but a backup can be written. A key
// ring is needed only for what is sealed.
func Peek(ctx context.Context, o Options) (*Store, error) {
	d := o.database()
	d.Peek, d.Migrate = true, false
	return open(ctx, o, d)
}

func open(ctx context.Context, o Options, how db.Options) (*Store, error) {
	d, err := db.Open(ctx, how)
	if err != nil {
		return nil, err
	}
	r := registers.New(d, queue.Holds{})
	q := queue.New(d, r)
	return &Store{DB: d, Queue: q, Registers: r, Eraser: erasure.New(d, q, r, o.ErasureLog), Backups: backup.New(d, r), Doctor: doctor.New(d, r)}, nil
}

// Restore fills an empty database from a backup: see backup.Restore.
func Restore(ctx context.Context, o Options, file, actor string) (backup.Restored, error) {
	return backup.Restore(ctx, o.database(), file, actor)
}
