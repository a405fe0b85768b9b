// Package backup copies a database into a file and back, and resumes sending after
// a restore.
package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/carillonhq/carillon/store/backup/archive"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// firstArchived is the oldest schema that a backup is made of: from there on a
// restored database knows that it must not send.
const firstArchived = 5

// Not archived are the table of the migrations, which belongs to the database and
// not to what it holds, and what nodes tell each other as long as they live
// (shared_...), which a standby does not even have.
const (
	notArchived  = "goose_db_version"
	betweenNodes = `shared\_%`
)

// Backups makes backups of a database, and resumes sending after a restore.
type Backups struct {
	db        *db.DB
	registers *registers.Registers
}

// New makes them for a database.
func New(d *db.DB, r *registers.Registers) *Backups { return &Backups{db: d, registers: r} }

// Backup writes all that the database holds to w, as of one moment, while others
// go on writing. version is the program's. Peek is enough for it. What is sealed
// stays sealed, and the key ring is not part of it.
func (s *Backups) Backup(ctx context.Context, version string, w io.Writer) (_ archive.Summary, err error) {
	pool, snapshot, _, err := s.db.Copying()
	if err != nil {
		return archive.Summary{}, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	conn, err := pool.Conn(ctx)
	if err != nil {
		return archive.Summary{}, fmt.Errorf("open the database: %w", err)
	}
	defer func() { _ = conn.Close() }()
	created := s.db.Now()
	if _, err := conn.ExecContext(ctx, snapshot); err != nil {
		return archive.Summary{}, fmt.Errorf("begin the snapshot: %w", err)
	}
	defer func() { _, _ = conn.ExecContext(context.WithoutCancel(ctx), "ROLLBACK") }()
	// The first read fixes what the snapshot is of.
	schema, err := db.SchemaVersion(ctx, conn)
	if err != nil {
		return archive.Summary{}, err
	}
	if schema < firstArchived {
		return archive.Summary{}, fmt.Errorf("the database has schema %d, and backups are made from schema %d on: run `carillon migrate up` first", schema, firstArchived)
	}
	tables, err := archivedTables(ctx, s.db, conn)
	if err != nil {
		return archive.Summary{}, fmt.Errorf("read the schema: %w", err)
	}
	a, err := archive.NewWriter(w, archive.Header{Version: version, Schema: schema, Database: s.db.Kind(), CreatedAt: created, SnapshotAt: s.db.Now()})
	if err != nil {
		return archive.Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	for _, t := range tables {
		if err := copyOut(ctx, conn, t, a); err != nil {
			a.Abandon()
			return archive.Summary{}, fmt.Errorf("back up the table %s: %w", t.Name, err)
		}
	}
	sum, err := a.Close()
	if err != nil {
		return archive.Summary{}, fmt.Errorf("write the backup: %w", err)
	}
	return sum, nil
}

// RecordBackup notes that there is a backup, for whoever asks how old the newest
// one is. Peek is enough for it.
func (s *Backups) RecordBackup(ctx context.Context, sum archive.Summary, actor string) error {
	_, err := s.db.Writes().ExecContext(ctx, registers.SetFact, registers.FactBackup, db.Millis(sum.Header.SnapshotAt), actor,
		fmt.Sprintf("%d rows, sha256 %s", sum.Rows(), sum.Sum))
	return err
}

// archivedTables walks the schema, so that a table which a migration adds is
// part of the next backup without anybody thinking of it.
func archivedTables(ctx context.Context, d *db.DB, q db.Queryer) ([]archive.Table, error) {
	query := db.Pick(d, `SELECT m.name, c.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c
 WHERE m.type='table' AND m.name<>? AND m.name NOT LIKE ? ESCAPE '\' AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY m.name, c.cid`,
		`SELECT c.table_name::text, c.column_name::text FROM information_schema.columns c
 JOIN information_schema.tables t ON t.table_schema=c.table_schema AND t.table_name=c.table_name
 WHERE t.table_schema=current_schema() AND t.table_type='BASE TABLE' AND t.table_name<>? AND t.table_name NOT LIKE ? ORDER BY c.table_name::text COLLATE "C", c.ordinal_position`)
	rows, err := q.QueryContext(ctx, query, notArchived, betweenNodes)
	if err != nil {
		return nil, err
	}
	var out []archive.Table
	_, err = db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var table, column string
		err = r.Scan(&table, &column)
		if len(out) == 0 || out[len(out)-1].Name != table {
			out = append(out, archive.Table{Name: table})
		}
		t := &out[len(out)-1]
		t.Columns = append(t.Columns, column)
		return none, err
	})
	return out, err
}

// identifiers lists names for SQL.
func identifiers(names []string) string { return `"` + strings.Join(names, `","`) + `"` }

func copyOut(ctx context.Context, q db.Queryer, t archive.Table, a *archive.Writer) error {
	if err := a.Table(t); err != nil {
		return err
	}
	rows, err := q.QueryContext(ctx, "SELECT "+identifiers(t.Columns)+" FROM "+identifiers([]string{t.Name}))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	values := make([]any, len(t.Columns))
	into := make([]any, len(t.Columns))
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return err
		}
		if err := a.Row(values); err != nil {
			return err
		}
	}
	return rows.Err()
}
