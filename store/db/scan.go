package db

import (
	"database/sql"
	"errors"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Scanner is a row to scan from, single or of a list.
type Scanner interface{ Scan(into ...any) error }

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

// Arrays are the columns of rows as arrays of PostgreSQL. All rows have the same columns,
// each of which is int64, string or []byte.
func Arrays(rows [][]any) []any {
	if len(rows) == 0 {
		return nil
	}
	out := make([]any, len(rows[0]))
	for c, v := range rows[0] {
		switch v.(type) {
		case int64:
			out[c] = column(rows, c, func(x int64) int64 { return x })
		case []byte:
			out[c] = column(rows, c, func(x []byte) []byte { return x })
		default:
			out[c] = column(rows, c, Storable)
		}
	}
	return out
}

func column[T any](rows [][]any, c int, as func(T) T) []T {
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = as(r[c].(T))
	}
	return out
}
