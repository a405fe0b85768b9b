package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"
	_ "modernc.org/sqlite" // the driver: pure Go, so the binary stays static

	"github.com/carillonhq/carillon/ids"
)

// Options open a store.
type Options struct {
	Path    string   // of the SQLite file; it is created where it is missing
	KeyRing *KeyRing // seals secrets and payloads
	Log     *slog.Logger
	Now     func() time.Time
	IDs     *ids.Generator
	// Migrate brings the schema up to date; otherwise Open fails when it is not.
	Migrate bool
	// ErasureLog is the file, apart from the database, that every erasure is written
	// to before it happens. Empty: none.
	ErasureLog string
	// QueueSize bounds the writes that wait; more are refused (accept) or wait
	// (finish). Default 4,096.
	QueueSize int
}

// Store is one open database.
type Store struct {
	opts    Options
	writeDB *sql.DB
	readDB  *sql.DB // short look-ups that accepts and workers wait for
	listDB  *sql.DB // lists that people ask for, which may walk a history
	read    *gorm.DB
	write   *gorm.DB // for the statement builder only: the writer binds it to its connection
	writer  *writer
	ring    *KeyRing
	seals   sealers
	lock    *flock.Flock
	erased  erasureLog

	prepared sync.Map // SQL text -> *sql.Stmt on the read pool
	bound    boundTenants
}

// The pragmas, with their reasons: WAL lets readers work beside the writer;
// synchronous=FULL makes a commit survive a power cut, which is what a 202
// promises; busy_timeout covers the CLI beside a running server; secure_delete
// overwrites what is removed within a page, where that costs no write of its own:
// see overwriting for the rest.
const pragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
	"&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)&_pragma=secure_delete(FAST)"

const readers = 4

func dsn(path string) string { return "file:" + (&url.URL{Path: path}).EscapedPath() + "?" + pragmas }

// Open opens the database file. Any number of processes may have it open; only
// one may run the engine: see LockEngine.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.IDs == nil {
		o.IDs = ids.NewGenerator(0, o.Now)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.QueueSize == 0 {
		o.QueueSize = 4096
	}
	if o.KeyRing == nil {
		return nil, errors.New("a key ring is needed to open the store")
	}
	if err := os.MkdirAll(filepath.Dir(o.Path), 0o700); err != nil {
		return nil, fmt.Errorf("create the folder of the database: %w", err)
	}
	if err := private(o.Path); err != nil {
		return nil, err
	}
	base := dsn(o.Path)
	writeDB, err := sql.Open("sqlite", base+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	writeDB.SetMaxOpenConns(2) // the writer's own, and one for migrations and backups
	readDB, err := sql.Open("sqlite", base+"&_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(err, writeDB.Close())
	}
	listDB, err := sql.Open("sqlite", base+"&_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(err, readDB.Close(), writeDB.Close())
	}
	for _, db := range []*sql.DB{readDB, listDB} {
		db.SetMaxOpenConns(readers)
		db.SetMaxIdleConns(readers)
	}
	s := &Store{opts: o, writeDB: writeDB, readDB: readDB, listDB: listDB, ring: o.KeyRing, erased: erasureLog{path: o.ErasureLog}}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, listDB.Close(), readDB.Close(), writeDB.Close())
	}
	return s, nil
}

func (s *Store) start(ctx context.Context) (err error) {
	if s.opts.Migrate {
		err = s.Migrate(ctx)
	} else {
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
	s.writer, err = newWriter(ctx, s)
	return err
}

// gorm wraps a pool. Statements are logged without their values.
func (s *Store) gorm(db *sql.DB) (*gorm.DB, error) {
	return gorm.Open(sqlite.New(sqlite.Config{Conn: db}), &gorm.Config{
		SkipDefaultTransaction: true,
		NowFunc:                func() time.Time { return s.opts.Now().UTC() },
		Logger: logger.NewSlogLogger(s.opts.Log, logger.Config{
			LogLevel: logger.Error, IgnoreRecordNotFoundError: true, ParameterizedQueries: true,
		}),
	})
}

// private creates the file readable by its owner alone: it holds device tokens.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator chooses the path
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	return f.Close()
}

// Close writes what waits, closes the database and gives up the engine lock.
func (s *Store) Close() error {
	s.writer.close()
	s.prepared.Range(func(_, v any) bool { _ = v.(*sql.Stmt).Close(); return true })
	err := errors.Join(s.listDB.Close(), s.readDB.Close(), s.writeDB.Close())
	if s.lock != nil {
		err = errors.Join(err, s.lock.Unlock())
	}
	return err
}

// LockEngine makes this process the one that runs the engine on the file. While
// it is held no other process can have leases, so those found are taken over at
// once. The lock ends with the process, however it ends.
func (s *Store) LockEngine() error {
	path := s.opts.Path + ".engine.lock"
	l := flock.New(path, flock.SetPermissions(0o600))
	ok, err := l.TryLock()
	if err != nil {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if !ok {
		holder, _ := os.ReadFile(path) //nolint:gosec // beside the database
		pid := strings.TrimSpace(string(holder))
		if pid == "" {
			pid = "unknown"
		}
		return fmt.Errorf("another server (pid %s) runs on %s; stop it first, or give this one its own database", pid, s.opts.Path)
	}
	s.lock = l
	return os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
}

// stmt prepares a statement on the read pool once.
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
