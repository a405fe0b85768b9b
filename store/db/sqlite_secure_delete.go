package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// overwriting does not prepare its statement: SQLite carries it out while it does.
func (f *sqliteFile) overwriting(ctx context.Context, conn *sql.Conn, on bool) error {
	mode := "FAST"
	if on {
		mode = "ON"
	}
	if _, err := conn.ExecContext(ctx, "PRAGMA secure_delete="+mode); err != nil {
		return fmt.Errorf("switch secure_delete: %w", err)
	}
	return nil
}

// flush stops the writer while it waits for readers, so it must not wait long.
func (f *sqliteFile) flush(ctx context.Context, writes *sql.DB) (done bool, err error) {
	c, err := writes.Conn(ctx)
	if err != nil {
		return false, fmt.Errorf("empty the write-ahead log: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if _, err := c.ExecContext(ctx, "PRAGMA busy_timeout=100"); err != nil {
		return false, err
	}
	defer func() {
		_, back := c.ExecContext(context.WithoutCancel(ctx), "PRAGMA busy_timeout=10000")
		err = errors.Join(err, back)
	}()
	var busy, pages, moved int
	if err := c.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved); err != nil {
		return false, fmt.Errorf("empty the write-ahead log: %w", err)
	}
	return busy == 0, nil
}
