package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/pressly/goose/v3"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/carillonhq/carillon/ids"
)

// Options open a store.
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
	// ErasureLog is the file, apart from the database, that every erasure is written
	// to before it happens. Empty: none.
	ErasureLog string
	// QueueSize bounds the writes that wait; more are refused (accept) or wait
	// (finish). Default 4,096.
	QueueSize int
	// Connections bounds the connections to PostgreSQL. Default 16, least 8.
	Connections int
	bare        bool // without migrating, checking the schema, or a writer
	peek        bool // and without changing anything
}

// Store is one open database.
type Store struct {
	opts    Options
	db      database
	writeDB *sql.DB
	readDB  *sql.DB // short look-ups that accepts and workers wait for
	listDB  *sql.DB // lists that people ask for, which may walk a history
	read    *gorm.DB
	write   *gorm.DB // for the statement builder only: a writer binds it to its connection
	writer  *writer
	ring    *KeyRing
	seals   sealers
	lock    *flock.Flock
	erased  erasureLog

	prepared sync.Map // SQL text -> *sql.Stmt on the read pool
	bound    boundTenants
	turns    turns
	node     membership
}

// database is what SQLite and PostgreSQL do differently, apart from the
// statements that have a text for each.
type database interface {
	// open opens the pools.
	open(ctx context.Context, s *Store) error
	dialector(*sql.DB) gorm.Dialector
	migrator(*slog.Logger) (*sql.DB, *goose.Provider, error)
	// begin starts a transaction that will write.
	begin() string
	// writers is how many transactions run at a time.
	writers() int
	// unable: the database, not a statement, is at fault.
	unable(error) bool
	// again: the transaction was undone for the sake of another; it may be repeated.
	again(error) bool
	// taken: a unique key exists already.
	taken(error) bool
	// String names it without a password.
	String() string
}

// IsPostgres tells whether a database URL names PostgreSQL.
func IsPostgres(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}

func databaseOf(o Options) (database, error) {
	if IsPostgres(o.URL) {
		return newPostgres(o)
	}
	return &sqliteFile{path: strings.TrimPrefix(o.URL, "sqlite:"), peek: o.peek}, nil
}

// Peek opens a database to look at it, whatever state it is in: nothing is
// created, migrated or checked, and nothing but a backup can be written. A key
// ring is needed only for what is sealed.
func Peek(ctx context.Context, o Options) (*Store, error) {
	o.bare, o.peek, o.Migrate = true, true, false
	return Open(ctx, o)
}

// Open opens the database. Any number of processes may have it open; of an SQLite
// file only one may run the engine: see LockEngine.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.KeyRing == nil && !o.bare {
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
	db, err := databaseOf(o)
	if err != nil {
		return nil, err
	}
	s := &Store{opts: o, db: db, ring: o.KeyRing, erased: erasureLog{path: o.ErasureLog}}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.closePools())
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) (err error) {
	if err := s.db.open(ctx, s); err != nil {
		return err
	}
	if s.opts.Now == nil {
		s.opts.Now = s.opts.Machine
		if pg, ok := s.db.(*postgres); ok {
			if err := pg.clock.set(ctx, s.readDB); err != nil {
				return fmt.Errorf("read the database's clock: %w", err)
			}
			s.opts.Now = pg.clock.now
		}
	}
	if s.opts.IDs == nil {
		s.opts.IDs = ids.NewGenerator(0, s.opts.Now)
	}
	switch {
	case s.opts.bare:
	case s.opts.Migrate:
		err = s.Migrate(ctx)
	case !s.opts.Unchecked:
		err = s.checkSchema(ctx)
	}
	if err != nil {
		return err
	}
	if s.read, err = s.gorm(s.listDB); err != nil {
		return err
	}
	if s.write, err = s.gorm(s.writeDB); err != nil {
		return err
	}
	if !s.opts.bare {
		s.writer, err = newWriter(ctx, s)
	}
	return err
}

// gorm wraps a pool. Statements are logged without their values.
func (s *Store) gorm(db *sql.DB) (*gorm.DB, error) {
	return gorm.Open(s.db.dialector(db), &gorm.Config{
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
		NowFunc:                func() time.Time { return s.opts.Now().UTC() },
		Logger: logger.NewSlogLogger(s.opts.Log, logger.Config{
			LogLevel: logger.Error, IgnoreRecordNotFoundError: true, ParameterizedQueries: true,
		}),
	})
}

// Close writes what waits, closes the database and gives up the engine lock.
func (s *Store) Close() error {
	s.leave()
	if s.writer != nil {
		s.writer.close()
	}
	s.prepared.Range(func(_, v any) bool { _ = v.(*sql.Stmt).Close(); return true })
	err := s.closePools()
	if s.lock != nil {
		err = errors.Join(err, s.lock.Unlock())
	}
	return err
}

func (s *Store) closePools() (err error) {
	for _, db := range []*sql.DB{s.listDB, s.readDB, s.writeDB} {
		if db != nil {
			err = errors.Join(err, db.Close())
		}
	}
	return err
}

// Database names the database, without its password.
func (s *Store) Database() string { return s.db.String() }

// Shared tells whether other nodes may work on this database at the same time.
func (s *Store) Shared() bool { return s.onPostgres() }

func (s *Store) onPostgres() bool { _, ok := s.db.(*postgres); return ok }

// queryer runs statements: a pool or a connection.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// query runs a look-up on the read pool. SQLite prepares it once; the driver of
// PostgreSQL does so by itself.
func (s *Store) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s.onPostgres() {
		return s.readDB.QueryContext(ctx, query, args...)
	}
	st, err := s.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

func (s *Store) queryRow(ctx context.Context, query string, args ...any) scanner {
	if s.onPostgres() {
		return s.readDB.QueryRowContext(ctx, query, args...)
	}
	st, err := s.stmt(query)
	if err != nil {
		return failed{err}
	}
	return st.QueryRowContext(ctx, args...)
}

func (s *Store) stmt(query string) (*sql.Stmt, error) {
	if v, ok := s.prepared.Load(query); ok {
		return v.(*sql.Stmt), nil
	}
	st, err := s.readDB.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if v, raced := s.prepared.LoadOrStore(query, st); raced {
		_ = st.Close()
		return v.(*sql.Stmt), nil
	}
	return st, nil
}

// IDs makes the store's ids.
func (s *Store) IDs() *ids.Generator { return s.opts.IDs }

// Now is the time by the clock that the database's users share.
func (s *Store) Now() time.Time { return s.opts.Now() }

func (s *Store) now() time.Time { return s.opts.Now() }

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
