package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"gorm.io/gorm"
	"modernc.org/sqlite" // the driver: pure Go, so the binary stays static

	"github.com/carillonhq/carillon/store/gormsqlite"
)

// sqliteFile is the database inside: one file, one writer, many readers.
type sqliteFile struct {
	path string
	peek bool // leave it as it is
}

// The pragmas, with their reasons: WAL lets readers work beside the writer;
// synchronous=FULL makes a commit survive a power cut, which is what a 202
// promises; busy_timeout covers the CLI beside a running server; secure_delete
// overwrites what is removed, so that it cannot be read from the file.
const pragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&" + durable +
	"&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)&_pragma=secure_delete(ON)"

const durable = "_pragma=synchronous(FULL)"

// peekPragmas change nothing of the file.
const peekPragmas = "_pragma=busy_timeout(10000)&_pragma=temp_store(MEMORY)"

const sqliteReaders = 4

func (f *sqliteFile) dsn() string {
	how := pragmas
	if f.peek {
		how = peekPragmas
	}
	return "file:" + (&url.URL{Path: f.path}).EscapedPath() + "?" + how
}

func (f *sqliteFile) open(_ context.Context, s *Store) (err error) {
	if f.peek {
		if _, err := os.Stat(f.path); err != nil {
			return fmt.Errorf("open the database: %w", err)
		}
	} else if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return fmt.Errorf("create the folder of the database: %w", err)
	}
	if s.writeDB, err = f.openWriter(); err != nil {
		return err
	}
	s.writeDB.SetMaxOpenConns(2) // the writer's own, and one for migrations and backups
	for _, db := range []**sql.DB{&s.readDB, &s.listDB} {
		if *db, err = sql.Open("sqlite", f.dsn()+"&_pragma=query_only(1)"); err != nil {
			return fmt.Errorf("open the database: %w", err)
		}
		(*db).SetMaxOpenConns(sqliteReaders)
		(*db).SetMaxIdleConns(sqliteReaders)
	}
	return nil
}

func (f *sqliteFile) openWriter() (*sql.DB, error) {
	if !f.peek {
		if err := private(f.path); err != nil {
			return nil, err
		}
	}
	db, err := sql.Open("sqlite", f.dsn()+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return db, nil
}

func (f *sqliteFile) dialector(db *sql.DB) gorm.Dialector {
	return gormsqlite.New(db)
}

func (f *sqliteFile) begin() string  { return "BEGIN IMMEDIATE" }
func (f *sqliteFile) writers() int   { return 1 }
func (f *sqliteFile) String() string { return f.path }

// unable knows SQLITE_BUSY, READONLY, IOERR, FULL and CANTOPEN.
func (f *sqliteFile) unable(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && slices.Contains([]int{5, 8, 10, 13, 14}, e.Code()&0xff)
}

func (f *sqliteFile) again(error) bool { return false } // one writer: nobody is in its way

// taken knows SQLITE_CONSTRAINT_PRIMARYKEY and SQLITE_CONSTRAINT_UNIQUE.
func (f *sqliteFile) taken(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && slices.Contains([]int{1555, 2067}, e.Code())
}

func (f *sqliteFile) lockPath() string { return f.path + ".engine.lock" }

// private creates the file readable by its owner alone: it holds device tokens.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the operator chooses the path
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	return f.Close()
}

// LockEngine makes this process the one that runs the engine on the file. While
// it is held no other process can have leases, so those found are taken over at
// once. The lock ends with the process, however it ends. PostgreSQL needs none:
// its nodes know of each other.
func (s *Store) LockEngine() error {
	f, ok := s.db.(*sqliteFile)
	if !ok {
		return nil
	}
	path := f.lockPath()
	l := flock.New(path, flock.SetPermissions(0o600))
	// Whoever looks whether a server runs takes it for a moment.
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	ok, err := l.TryLockContext(ctx, 20*time.Millisecond)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("lock %s: %w", path, err)
	}
	if !ok {
		holder, _ := os.ReadFile(path) //nolint:gosec // beside the database
		pid := strings.TrimSpace(string(holder))
		if pid == "" {
			pid = "unknown"
		}
		return fmt.Errorf("another server (pid %s) runs on %s; stop it first, or give this one its own database", pid, f.path)
	}
	s.lock = l
	return os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
}
