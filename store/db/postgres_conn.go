package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// connector opens connections that take the store's statements as they are
// written for SQLite.
type connector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	pg, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the driver made a %T", conn), conn.Close())
	}
	return &pgConn{pg}, nil
}

type pgConn struct{ *stdlib.Conn }

// ExecContext implements driver.ExecerContext.
func (c *pgConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.ExecContext(ctx, translate(query, len(args) > 0), args)
}

// QueryContext implements driver.QueryerContext.
func (c *pgConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.QueryContext(ctx, translate(query, len(args) > 0), args)
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
