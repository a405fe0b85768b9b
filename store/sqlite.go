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

	"github.com/gofrs/flock"
	gormsqlite "gorm.io/driver/sqlite"
	"gorm.io/gorm"
	"modernc.org/sqlite" // the driver: pure Go, so the binary stays static
)

// sqliteFile is the database inside: one file, one writer, many readers.
type sqliteFile struct{ path string }

// The pragmas, with their reasons: WAL lets readers work beside the writer;
// synchronous=FULL makes a commit survive a power cut, which is what a 202
// promises; busy_timeout covers the CLI beside a running server.
const pragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)" +
	"&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)"

const sqliteReaders = 4

func (f *sqliteFile) dsn() string {
	return "file:" + (&url.URL{Path: f.path}).EscapedPath() + "?" + pragmas
}

func (f *sqliteFile) open(_ context.Context, s *Store) (err error) {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
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
	if err := private(f.path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", f.dsn()+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	return db, nil
}

func (f *sqliteFile) dialector(db *sql.DB) gorm.Dialector {
	return gormsqlite.New(gormsqlite.Config{Conn: db})
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
	path := f.path + ".engine.lock"
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
		return fmt.Errorf("another server (pid %s) runs on %s; stop it first, or give this one its own database", pid, f.path)
	}
	s.lock = l
	return os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
}
