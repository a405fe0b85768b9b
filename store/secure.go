package store

import (
	"context"
	"errors"
	"fmt"
)

// withoutOverwriting runs what removes much that says nothing of people, or that
// was sealed: SQLite then overwrites only what is on pages that it writes anyway,
// and leaves alone those that become free as a whole, which costs half as much.
func (t *tx) withoutOverwriting(run func() error) (err error) {
	if t.s.onPostgres() {
		return run()
	}
	if err := t.secureDelete("FAST"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.secureDelete("ON")) }()
	return run()
}

// secureDelete does not prepare its statement: SQLite carries it out while it
// does.
func (t *tx) secureDelete(mode string) error {
	if _, err := t.conn.ExecContext(t.ctx, "PRAGMA secure_delete="+mode); err != nil {
		return fmt.Errorf("switch secure_delete: %w", err)
	}
	return nil
}

// flushWAL moves what is in SQLite's write-ahead log into the file and empties
// the log, which otherwise holds old versions of pages for a while. false: a
// reader is in the way; try again later.
func (s *Store) flushWAL(ctx context.Context) (done bool, err error) {
	if s.onPostgres() {
		return true, nil
	}
	c, err := s.writeDB.Conn(ctx)
	if err != nil {
		return false, fmt.Errorf("empty the write-ahead log: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	// It stops the writer while it waits for readers, so it must not wait long.
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
