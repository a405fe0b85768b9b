package store

import (
	"context"
	"database/sql"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"github.com/carillonhq/carillon/delivery"
)

// Diagnosis is what there is to know of the health of a database. It holds facts:
// what they mean is said elsewhere.
type Diagnosis struct {
	Database string // without its password
	Kind     string // sqlite or postgres
	Schema   SchemaFacts
	// KeyRing is why the key ring does not open what the database holds; nil: it
	// does, or there is nothing, or none was given.
	KeyRing error
	// Broken are the invariants that do not hold.
	Broken []Violation
	Depths Depths
	Pause  delivery.Pause
	Nodes  []Node
	// Running tells whether a server runs: one that beats, or that holds the lock of
	// the file.
	Running  bool
	BackupAt time.Time // of the newest backup that is known of; zero: none is
	// ClockAhead is by how much the database's clock is ahead of this machine's.
	ClockAhead time.Duration
	SQLite     *SQLiteFacts
	Postgres   *PostgresFacts
	// Unknown are the looks that failed.
	Unknown []UnknownFact
}

// SchemaFacts are the versions of the schema.
type SchemaFacts struct {
	Have, Want int64 // of the database, of this program
	MinReader  int64 // the oldest program that may run on it
}

// UnknownFact is something that could not be found out.
type UnknownFact struct {
	What string
	Err  error
}

// SQLiteFacts are about the file.
type SQLiteFacts struct {
	JournalMode string      // of the file
	Synchronous int         // that a server runs with: 2 is FULL
	Mode        fs.FileMode // rights
	Size        int64       // bytes, of the file and of its -wal
	WALSize     int64
	Free        int64    // bytes on its volume; -1: unknown
	Corrupt     []string // what integrity_check found; only asked for a deep look
}

// Examine looks at everything; deep: also at every page of an SQLite file, which
// takes as long as reading it. Peek is enough for it, and nothing is changed.
func (s *Store) Examine(ctx context.Context, deep bool) Diagnosis {
	d := Diagnosis{Database: s.Database(), Kind: s.kind()}
	try := func(what string, look func() error) bool {
		err := look()
		if err != nil {
			d.Unknown = append(d.Unknown, UnknownFact{What: what, Err: err})
		}
		return err == nil
	}
	switch f := s.db.(type) {
	case *sqliteFile:
		d.SQLite = &SQLiteFacts{Free: -1}
		try("the settings of SQLite", func() error { return f.examine(ctx, s, d.SQLite, deep) })
	case *postgres:
		d.Postgres = &PostgresFacts{}
		try("the settings of PostgreSQL", func() error { return s.examinePostgres(ctx, d.Postgres) })
		try("the database's clock", func() (err error) { d.ClockAhead, err = f.clockAhead(ctx, s.readDB); return err })
	}
	if !try("the schema version", func() (err error) { d.Schema, err = s.schemaFacts(ctx); return err }) || d.Schema.Have < d.Schema.Want {
		return d // what follows needs today's tables
	}
	try("who runs", func() (err error) {
		if d.Nodes, err = s.Nodes(ctx); err == nil {
			d.Running, err = s.serverRuns(d.Nodes)
		}
		return err
	})
	if s.ring != nil {
		d.KeyRing = s.CheckKeyRing(ctx)
	}
	try("the facts about the installation", func() error {
		all, err := facts(ctx, s.readDB)
		d.Pause, d.BackupAt = pauseOf(all), all[factBackup].At
		return err
	})
	try("the invariants", func() (err error) { d.Broken, err = s.Check(ctx, true); return err })
	try("the queue", func() (err error) { d.Depths, err = s.Depths(ctx); return err })
	return d
}

func (s *Store) schemaFacts(ctx context.Context) (f SchemaFacts, err error) {
	db, p, err := s.db.migrator(slog.New(slog.DiscardHandler))
	if err != nil {
		return f, err
	}
	for _, m := range p.ListSources() {
		f.Want = max(f.Want, m.Version)
	}
	if err := db.Close(); err != nil {
		return f, err
	}
	if f.Have, err = schemaVersion(ctx, s.readDB); err != nil {
		return f, fmt.Errorf("%w: is it a database of Carillon?", err)
	}
	return f, s.readDB.QueryRowContext(ctx, "SELECT min_reader FROM schema_info").Scan(&f.MinReader)
}

// serverRuns tells whether a server works on the database.
func (s *Store) serverRuns(nodes []Node) (bool, error) {
	f, ok := s.db.(*sqliteFile)
	if !ok {
		for _, n := range nodes {
			if n.Role != RoleCommand && !n.Dead(s.now()) {
				return true, nil
			}
		}
		return false, nil
	}
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

// Dead tells whether the node has been silent for so long that the others take
// its work.
func (n Node) Dead(now time.Time) bool { return now.Sub(n.BeatAt) > deadAfter }

func (f *sqliteFile) examine(ctx context.Context, s *Store, out *SQLiteFacts, deep bool) error {
	if err := s.readDB.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&out.JournalMode); err != nil {
		return err
	}
	// Asked on a connection like the server's, but for what would change the file.
	like := &sqliteFile{path: f.path, peek: true}
	db, err := sql.Open("sqlite", like.dsn()+"&"+durable)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	if err := db.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&out.Synchronous); err != nil {
		return err
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	out.Mode, out.Size = info.Mode().Perm(), info.Size()
	if wal, err := os.Stat(f.path + "-wal"); err == nil {
		out.WALSize = wal.Size()
	}
	if out.Free, err = freeBytes(filepath.Dir(f.path)); err != nil || !deep {
		return err
	}
	rows, err := db.QueryContext(ctx, "PRAGMA integrity_check")
	if err != nil {
		out.Corrupt = []string{err.Error()}
		return nil
	}
	found, err := collect(rows, func(r *sql.Rows) (line string, err error) {
		err = r.Scan(&line)
		return line, err
	})
	if err != nil {
		found = append(found, err.Error())
	}
	if strings.Join(found, "\n") != "ok" {
		out.Corrupt = found
	}
	return nil
}
