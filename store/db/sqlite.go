package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
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
	peek bool        // leave it as it is
	file os.FileInfo // as it was opened; nil: it was only looked at
	machineClock
}

func newSQLite(o Options) *sqliteFile {
	return &sqliteFile{path: strings.TrimPrefix(o.URL, "sqlite:"), peek: o.Peek, machineClock: machineClock{o.Machine}}
}

// The pragmas, with their reasons: WAL lets readers work beside the writer;
// synchronous=FULL makes a commit survive a power cut, which is what a 202
// promises; busy_timeout covers the CLI beside a running server; secure_delete
// overwrites what is removed, so that it cannot be read from the file;
// journal_size_limit lets the write-ahead log shrink again when a long reader has made
// it grow.
const pragmas = "_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&" + durable +
	"&_pragma=foreign_keys(1)&_pragma=temp_store(MEMORY)&_pragma=secure_delete(ON)&_pragma=journal_size_limit(67108864)"

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

func (f *sqliteFile) open(context.Context) (writes, reads, lists *sql.DB, err error) {
	if f.peek {
		if err := f.present(); err != nil {
			return nil, nil, nil, err
		}
	} else if err := f.prepare(); err != nil {
		return nil, nil, nil, err
	}
	if writes, err = f.openWriter(); err != nil {
		return nil, nil, nil, err
	}
	if !f.peek {
		if f.file, err = os.Stat(f.path); err != nil {
			return writes, nil, nil, fmt.Errorf("open the database: %w", err)
		}
	}
	writes.SetMaxOpenConns(2) // the writer's own, and one for migrations and backups
	for _, pool := range []**sql.DB{&reads, &lists} {
		if *pool, err = sql.Open("sqlite", f.dsn()+"&_pragma=query_only(1)"); err != nil {
			return writes, reads, lists, fmt.Errorf("open the database: %w", err)
		}
		(*pool).SetMaxOpenConns(sqliteReaders)
		(*pool).SetMaxIdleConns(sqliteReaders)
	}
	return writes, reads, lists, nil
}

// prepare makes the folder of a new database, and refuses to make a database beside
// the write-ahead log of one that is gone: SQLite would remove the log, and with it what
// it holds.
func (f *sqliteFile) prepare() error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return fmt.Errorf("create the folder of the database: %w", err)
	}
	if found, err := os.Stat(f.path); err == nil && found.Size() > 0 {
		return nil
	}
	return f.logAlone()
}

// present tells that there is a file, for who would only look at it, or what to do where
// there is none.
func (f *sqliteFile) present() error {
	_, err := os.Stat(f.path)
	if !errors.Is(err, fs.ErrNotExist) {
		if err != nil {
			return fmt.Errorf("open the database: %w", err)
		}
		return nil
	}
	if err := f.logAlone(); err != nil {
		return err
	}
	path := f.path
	if whole, err := filepath.Abs(path); err == nil {
		path = whole
	}
	return fmt.Errorf("there is no database %s: a server makes it at its first start. If there was one, see that database.url names it; "+
		"if it was moved or removed, \"The database is gone or damaged\" in docs/operations/incidents.md says how to bring it back", path)
}

// logAlone tells of a write-ahead log without its database.
func (f *sqliteFile) logAlone() error {
	log := f.path + "-wal"
	if found, err := os.Stat(log); err != nil || found.Size() == 0 {
		return nil //nolint:nilerr // there is none
	}
	return fmt.Errorf("there is %s, and no database %s that it belongs to: it was removed, moved or emptied. "+
		"Bring it back to where it was, and the log with it; to begin with a new database, move the log away first", log, f.path)
}

// lost tells that the file has been removed, or another one put in its place: whatever
// is written from then on is gone with the process.
func (f *sqliteFile) lost() error {
	if f.file == nil {
		return nil
	}
	switch now, err := os.Stat(f.path); {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the file %s was removed or moved while this server runs, and what is written now would be lost; "+
			"move it back, or stop the server and restore a backup", f.path)
	case err == nil && !os.SameFile(f.file, now):
		return fmt.Errorf("the file %s is not the one that this server has opened, and what is written now would be lost; "+
			"move that back, or restart the server to use this one", f.path)
	}
	return nil // what else keeps it from being looked at says nothing
}

// undone knows FULL, READONLY and BUSY.
func (f *sqliteFile) undone(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && slices.Contains([]int{5, 8, 13}, e.Code()&0xff)
}

// explain knows CORRUPT and NOTADB.
func (f *sqliteFile) explain(err error) error {
	if !damaged(err) {
		return err
	}
	return fmt.Errorf("%w: the database %s is damaged, or is no database. Stop the server, copy the files away, look with `carillon doctor --deep`, "+
		"and restore the newest backup; docs/operations/incidents.md says how", err, f.path)
}

func damaged(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && slices.Contains([]int{11, 26}, e.Code()&0xff)
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

func (f *sqliteFile) look(context.Context) error { return nil }

func (f *sqliteFile) dialector(db *sql.DB) gorm.Dialector {
	return gormsqlite.New(db)
}

// copying begins a snapshot with the first read.
func (f *sqliteFile) copying() (pool *sql.DB, snapshot string, err error) {
	pool, err = f.openWriter()
	return pool, "BEGIN", err
}

// machineClock is the clock of a file: the machine's own.
type machineClock struct{ machine func() time.Time }

func (c machineClock) readClock(context.Context, Queryer) error                   { return nil }
func (c machineClock) now() time.Time                                             { return c.machine() }
func (c machineClock) clockAhead(context.Context, Queryer) (time.Duration, error) { return 0, nil }

func (f *sqliteFile) kind() string          { return SQLite }
func (f *sqliteFile) shared() bool          { return false }
func (f *sqliteFile) begin() string         { return "BEGIN IMMEDIATE" }
func (f *sqliteFile) writers() int          { return 1 }
func (f *sqliteFile) prepares() bool        { return true }
func (f *sqliteFile) whole(*sql.Conn) error { return f.lost() }
func (f *sqliteFile) String() string        { return f.path }

// unable knows SQLITE_BUSY, READONLY, IOERR, CORRUPT, FULL, CANTOPEN and NOTADB.
func (f *sqliteFile) unable(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && slices.Contains([]int{5, 8, 10, 11, 13, 14, 26}, e.Code()&0xff)
}

// One writer: nobody is in its way.
func (f *sqliteFile) again(error) bool { return false }
func (f *sqliteFile) raced(error) bool { return false }

// afterRollback: on a full disk SQLite has rolled back already, and has nothing
// left to undo.
func (f *sqliteFile) afterRollback(failed, _ error) (unusable, worth bool) {
	return false, failed != nil && !strings.Contains(failed.Error(), "no transaction is active")
}

// OpenLikeServer opens an SQLite file with the settings of a server, but for those
// that would change the file.
func OpenLikeServer(path string) (*sql.DB, error) {
	f := &sqliteFile{path: path, peek: true}
	return sql.Open("sqlite", f.dsn()+"&"+durable)
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

func (f *sqliteFile) lockEngine() (*flock.Flock, error) {
	path := f.lockPath()
	l := flock.New(path, flock.SetPermissions(0o600))
	// Whoever looks whether a server runs takes it for a moment.
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	ok, err := l.TryLockContext(ctx, 20*time.Millisecond)
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if !ok {
		holder, _ := os.ReadFile(path) //nolint:gosec // beside the database
		pid := strings.TrimSpace(string(holder))
		if pid == "" {
			pid = "unknown"
		}
		return nil, fmt.Errorf("another server (pid %s) runs on %s; stop it first, or give this one its own database", pid, f.path)
	}
	return l, os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600)
}

// serverRuns asks the lock, since a server that was killed leaves its row.
func (f *sqliteFile) serverRuns([]Node, time.Time) (bool, error) {
	path := f.lockPath()
	if _, err := os.Stat(path); err != nil {
		return false, nil //nolint:nilerr // no server has ever run
	}
	// A shared lock for a moment; a server that starts just then tries again.
	l := flock.New(path)
	free, err := l.TryRLock()
	if err != nil || !free {
		return err == nil, err
	}
	return false, l.Unlock()
}
