package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/carillonhq/carillon/problem"
)

// connector opens connections that take the store's statements as they are
// written for SQLite, and say of an error whether callers have only to wait.
type connector struct {
	driver.Connector
	faults faults
}

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, c.told(err)
	}
	pg, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver made a %T", conn), conn.Close())
	}
	return &pgConn{pg, c}, nil
}

// told adds what a caller may see of an error, where the server is at fault and not
// the statement.
func (c connector) told(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || !c.faults.unable(err) {
		return err
	}
	return &unreachable{err}
}

// unreachable is an error of a database that does not answer, or takes nothing.
type unreachable struct{ error }

func (e *unreachable) Unwrap() []error {
	return []error{e.error, &problem.Error{Code: problem.Unavailable, RetryAfter: unreachableRetry,
		Detail: "The database cannot be reached at the moment; try again."}}
}

// unreachableRetry is when callers are told to come back.
const unreachableRetry = 5 * time.Second

type pgConn struct {
	*stdlib.Conn
	of connector
}

// ExecContext implements driver.ExecerContext.
func (c *pgConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	r, err := c.Conn.ExecContext(ctx, translate(query, len(args) > 0), args)
	return r, c.of.told(err)
}

// QueryContext implements driver.QueryerContext.
func (c *pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Conn.QueryContext(ctx, translate(query, len(args) > 0), args)
	return rows, c.of.told(err)
}

// CheckNamedValue makes plain values of named types, as database/sql does for
// other drivers: this one would write a type with a String method as text.
func (c *pgConn) CheckNamedValue(v *driver.NamedValue) error {
	switch v.Value.(type) {
	case []int64, []int32, []int16, []string, [][]byte:
		return nil // arrays
	}
	plain, err := driver.DefaultParameterConverter.ConvertValue(v.Value)
	if err != nil {
		return err
	}
	switch x := plain.(type) {
	case bool: // flags are numbers, as on SQLite
		plain = int64(0)
		if x {
			plain = int64(1)
		}
	case string:
		plain = Storable(x)
	}
	v.Value = plain
	return nil
}

// Storable replaces what PostgreSQL takes in no text.
func Storable(s string) string {
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "\uFFFD")
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// withPgx hands over the connection below database/sql.
func withPgx(conn *sql.Conn, use func(*pgx.Conn) error) error {
	return conn.Raw(func(c any) error {
		pg, ok := c.(*pgConn)
		if !ok {
			return fmt.Errorf("not a connection to PostgreSQL: %T", c)
		}
		return use(pg.Conn.Conn())
	})
}

// CopyRows writes many rows into a table of PostgreSQL.
func CopyRows(ctx context.Context, conn *sql.Conn, table string, columns []string, rows [][]any) error {
	for _, r := range rows {
		for i, v := range r {
			if text, ok := v.(string); ok {
				r[i] = Storable(text)
			}
		}
	}
	return withPgx(conn, func(c *pgx.Conn) error {
		_, err := c.CopyFrom(ctx, pgx.Identifier{table}, columns, pgx.CopyFromRows(rows))
		return err
	})
}
