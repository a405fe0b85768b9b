package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/carillonhq/carillon/store/backup/archive"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// Restored is what a restore did.
type Restored struct {
	archive.Summary
	// Leased deliveries were in somebody's hands at the time of the backup. Whether
	// they were sent is not known.
	Leased int64
}

// Restore fills an empty database from a backup: all of it, or nothing. The file
// is checked as a whole before anything is written. When it returns, sending is
// paused: see ResumeAfterRestore. No server may run on the database.
func Restore(ctx context.Context, o db.Options, file, actor string) (Restored, error) {
	return restore(ctx, o, file, actor, nil)
}

// migrating opens the migrations on a database.
type migrating func(*slog.Logger) (*sql.DB, *goose.Provider, error)

func restore(ctx context.Context, o db.Options, file, actor string, with migrating) (_ Restored, err error) {
	sum, err := VerifyBackup(file)
	if err != nil {
		return Restored{}, err
	}
	o.Bare, o.Migrate = true, false
	d, err := db.Open(ctx, o)
	if err != nil {
		return Restored{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := d.LockEngine(); err != nil {
		return Restored{}, err
	}
	if with == nil {
		with = d.Migrator
	}
	pool, p, err := with(d.Log())
	if err != nil {
		return Restored{}, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	if err := prepareFor(ctx, p, pool, sum.Header.Schema); err != nil {
		return Restored{}, err
	}
	l := &load{db: d, into: db.Pick[rowWriter](d, &rowInserter{}, rowCopier{}), file: file, sum: sum, actor: actor}
	if err := l.run(ctx); err != nil {
		return Restored{}, err
	}
	if _, err := p.Up(ctx); err != nil {
		return Restored{}, fmt.Errorf("the backup is restored, and migrating it to this version failed: %w", err)
	}
	return Restored{Summary: sum, Leased: l.leased}, nil
}

// VerifyBackup reads a whole backup and tells whether it is sound.
func VerifyBackup(file string) (archive.Summary, error) {
	f, err := os.Open(file) //nolint:gosec // the operator chooses the path
	if err != nil {
		return archive.Summary{}, fmt.Errorf("open the backup: %w", err)
	}
	defer func() { _ = f.Close() }()
	return archive.Read(f, archive.Visitor{})
}

// prepareFor brings the schema to the version of the backup.
func prepareFor(ctx context.Context, p *goose.Provider, pool *sql.DB, version int64) error {
	newest := int64(0)
	for _, m := range p.ListSources() {
		newest = max(newest, m.Version)
	}
	if version > newest {
		return fmt.Errorf("the backup has schema %d, and this version knows up to %d: restore it with the version that wrote it, or a newer one", version, newest)
	}
	have, err := p.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if have > 0 {
		if err := empty(ctx, pool); err != nil {
			return err
		}
	}
	if have > version {
		return fmt.Errorf("the database has schema %d already, and the backup has %d: restore it into a database that does not exist yet", have, version)
	}
	if _, err := p.UpTo(ctx, version); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return nil
}

// empty refuses a database that holds what a restore would mix with the backup.
func empty(ctx context.Context, q db.Queryer) error {
	for _, table := range []string{"tenants", "api_keys", "notifications"} {
		var n int
		if err := q.QueryRowContext(ctx, "SELECT count(*) FROM (SELECT 1 FROM "+table+" LIMIT 1) x").Scan(&n); err != nil {
			return fmt.Errorf("look whether the database is empty: %w", err)
		}
		if n > 0 {
			return fmt.Errorf("the database is not empty: it has rows in %s. A backup is restored into a new database only; move this one away, or name another by database.url", table)
		}
	}
	return nil
}

// load is a restore into a schema that fits: one transaction, so that whoever
// interrupts it leaves an empty database.
type load struct {
	db     *db.DB
	conn   *sql.Conn
	file   string
	sum    archive.Summary
	actor  string
	leased int64

	have  map[string][]string // the columns of the database's tables
	table archive.Table       // that is being read
	rows  [][]any             // of it, that are not written yet
	into  rowWriter
}

// loadRows is how many rows are written together.
const loadRows = 5000

func (l *load) run(ctx context.Context) (err error) {
	pool, _, begin, err := l.db.Copying()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	if l.conn, err = pool.Conn(ctx); err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer func() { _ = l.conn.Close() }() // what it did is committed or not
	if _, err := l.conn.ExecContext(ctx, begin); err != nil {
		return fmt.Errorf("begin the restore: %w", err)
	}
	if err := l.inside(ctx); err != nil {
		_, _ = l.conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") // it may be over already
		if ctx.Err() != nil {
			err = fmt.Errorf("the restore was interrupted, and the database is empty: %w", ctx.Err())
		}
		return err
	}
	if _, err := l.conn.ExecContext(ctx, "COMMIT"); err != nil {
		return fmt.Errorf("commit the restore: %w", err)
	}
	return nil
}

func (l *load) inside(ctx context.Context) error {
	if err := l.alone(ctx); err != nil {
		return err
	}
	if err := empty(ctx, l.conn); err != nil {
		return err
	}
	tables, err := archivedTables(ctx, l.db, l.conn)
	if err != nil {
		return fmt.Errorf("read the schema: %w", err)
	}
	l.have = map[string][]string{}
	for _, t := range tables {
		l.have[t.Name] = t.Columns
		// Migrations put rows into some; those of the backup take their place.
		if _, err := l.exec(ctx, "DELETE FROM "+identifiers([]string{t.Name})); err != nil {
			return err
		}
	}
	f, err := os.Open(l.file)
	if err != nil {
		return fmt.Errorf("open the backup: %w", err)
	}
	defer func() { _ = f.Close() }()
	if err := l.read(ctx, f); err != nil {
		return err
	}
	if err := l.opens(ctx); err != nil {
		return err
	}
	if l.leased, err = l.endProcesses(ctx, tables); err != nil {
		return fmt.Errorf("end what was under way: %w", err)
	}
	return nil
}

func (l *load) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := l.conn.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// alone makes sure that no server runs, and that none can join before the end.
// On SQLite the lock of the engine does that.
func (l *load) alone(ctx context.Context) error {
	if !l.db.Shared() {
		return nil
	}
	if _, err := l.exec(ctx, "LOCK TABLE nodes IN ACCESS EXCLUSIVE MODE"); err != nil {
		return fmt.Errorf("keep servers away: %w", err)
	}
	return l.db.NoServers(ctx, l.conn)
}

// read copies the file into the tables.
func (l *load) read(ctx context.Context, f io.Reader) error {
	sum, err := archive.Read(f, archive.Visitor{
		Table: func(t archive.Table) error { return l.begin(ctx, t) },
		Rows: func(rows [][]any) error {
			if l.rows = append(l.rows, rows...); len(l.rows) < loadRows {
				return nil
			}
			return l.write(ctx)
		},
	})
	if err == nil {
		err = l.write(ctx)
	}
	l.into.close()
	if err != nil {
		return err
	}
	if sum.Sum != l.sum.Sum {
		return fmt.Errorf("%w: it was changed while it was being read", archive.ErrDamaged)
	}
	return nil
}

func (l *load) begin(ctx context.Context, t archive.Table) (err error) {
	if err := l.write(ctx); err != nil {
		return err
	}
	have, ok := l.have[t.Name]
	if !ok || !sameNames(have, t.Columns) {
		return fmt.Errorf("the table %s of the backup has the columns %s, and the database has %s: it was not written by a version that this one knows",
			t.Name, strings.Join(t.Columns, ", "), strings.Join(have, ", "))
	}
	l.table = t
	return l.into.begin(ctx, l.conn, t)
}

func sameNames(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// write writes the rows that wait.
func (l *load) write(ctx context.Context) error {
	if len(l.rows) == 0 {
		return nil
	}
	if err := l.into.write(ctx, l.conn, l.table, l.rows); err != nil {
		return fmt.Errorf("write the table %s: %w", l.table.Name, err)
	}
	l.rows = l.rows[:0]
	return nil
}

// opens refuses a key ring that what was restored is not sealed with: the server
// would not start with it, and nobody should find that out later.
func (l *load) opens(ctx context.Context) error {
	if err := l.db.KeyRing().Check(ctx, l.conn); err != nil {
		return fmt.Errorf("the backup was made of a database with another key ring than the one that is configured, or with an older one: give the one that it was made with. "+
			"Nothing was restored: %w", err)
	}
	return nil
}

// endProcesses ends what belonged to the processes of the time of the backup,
// and makes sure that nothing is sent before somebody has looked.
func (l *load) endProcesses(ctx context.Context, tables []archive.Table) (leased int64, err error) {
	for _, q := range endStatements(tables) {
		for n := int64(endBatch); n == endBatch; {
			if n, err = l.exec(ctx, q.query, endBatch); err != nil {
				return 0, err
			}
			if q.leases {
				leased += n
			}
		}
	}
	if _, err := l.exec(ctx, "DELETE FROM installation WHERE name=?", registers.FactSizes); err != nil { // of another database
		return 0, err
	}
	now, at := l.db.Now(), l.sum.Header.SnapshotAt
	detail := "a backup of " + at.Format(timeForPeople) + " was restored"
	for _, f := range []struct {
		name string
		at   int64
	}{{registers.FactPaused, db.Millis(now)}, {registers.FactRestored, db.Millis(now)}, {registers.FactBackup, db.Millis(at)}} {
		if _, err := l.exec(ctx, registers.SetFact, f.name, f.at, l.actor, detail); err != nil {
			return 0, err
		}
	}
	_, err = l.exec(ctx, `INSERT INTO audit (id,tenant_id,at,actor,action,subject) VALUES (?,0,?,?,?,?)`,
		l.db.IDs().Next(), db.Millis(now), l.actor, "installation.restore", detail)
	return leased, err
}
