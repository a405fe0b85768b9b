package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"gorm.io/gorm"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Queryer runs statements: a pool or a connection.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// Scanner is a row to scan from, single or of a list.
type Scanner interface{ Scan(into ...any) error }

// Writes is the pool for what is written beside the writer.
func (d *DB) Writes() *sql.DB { return d.writes }

// Reads is the pool of short look-ups that accepts and workers wait for.
func (d *DB) Reads() *sql.DB { return d.reads }

// Lists is the pool of lists that people ask for, which may walk a history.
func (d *DB) Lists() *sql.DB { return d.lists }

// Gorm builds a statement on the pool of lists.
func (d *DB) Gorm(ctx context.Context) *gorm.DB { return d.gorm.WithContext(ctx) }

// Query runs a look-up on the pool of reads. SQLite prepares it once; the driver of
// PostgreSQL does so by itself.
func (d *DB) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if !d.dialect.prepares() {
		return d.reads.QueryContext(ctx, query, args...)
	}
	st, err := d.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

// QueryRow is Query for a single row.
func (d *DB) QueryRow(ctx context.Context, query string, args ...any) Scanner {
	if !d.dialect.prepares() {
		return d.reads.QueryRowContext(ctx, query, args...)
	}
	st, err := d.stmt(query)
	if err != nil {
		return failed{err}
	}
	return st.QueryRowContext(ctx, args...)
}

// Each runs Query and hands over every row.
func (d *DB) Each(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := d.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (d *DB) stmt(query string) (*sql.Stmt, error) {
	if v, ok := d.prepared.Load(query); ok {
		return v.(*sql.Stmt), nil
	}
	st, err := d.reads.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if v, raced := d.prepared.LoadOrStore(query, st); raced {
		_ = st.Close()
		return v.(*sql.Stmt), nil
	}
	return st, nil
}

// failed is the row of a query that could not be run.
type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

// Collect scans all rows and closes them.
func Collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) (out []T, err error) {
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return out, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// ScanID scans a row that is an id.
func ScanID(r *sql.Rows) (id ids.ID, err error) {
	err = r.Scan(&id)
	return id, err
}

// OrNull is an id as it is stored in a column that is NULL without one.
func OrNull(id ids.ID) any {
	if id == 0 {
		return nil
	}
	return int64(id)
}

// Int64s are ids as an array of PostgreSQL takes them.
func Int64s(list []ids.ID) []int64 {
	out := make([]int64, len(list))
	for i, x := range list {
		out[i] = int64(x)
	}
	return out
}

// IsNoRows tells whether a query has found nothing.
func IsNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// NotFoundOr makes "no rows" a problem that callers may see.
func NotFoundOr(err error, what string) error {
	if IsNoRows(err) {
		return problem.New(problem.NotFound, "There is no such %s.", what)
	}
	return err
}

// Millis is a time as it is stored: Unix milliseconds, 0 for none.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// FromMillis reads what Millis has written.
func FromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Bit is a flag as an array of PostgreSQL takes it.
func Bit(b bool) int16 {
	if b {
		return 1
	}
	return 0
}
