package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"gorm.io/gorm"

	"github.com/jackc/pgx/v5"

	"github.com/carillonhq/carillon/ids"
)

// Tx is the transaction that an op writes in: one connection with its prepared
// statements.
type Tx struct {
	pools    *pools
	conn     *sql.Conn // nil: lost, and to be opened again
	stmts    map[string]*sql.Stmt
	build    *gorm.DB
	ctx      context.Context
	prepares bool
	shared   bool // others may write at the same time
}

func newTx(ctx context.Context, p *pools) (*Tx, error) {
	// A context that can be cancelled would cost a goroutine per statement.
	t := &Tx{pools: p, stmts: map[string]*sql.Stmt{}, ctx: context.Background(), prepares: p.dialect.prepares(), shared: p.Shared()}
	err := t.connect(ctx)
	return t, err
}

func (t *Tx) connect(ctx context.Context) error {
	conn, err := t.pools.writes.Conn(ctx)
	if err != nil {
		return err
	}
	t.conn = conn
	t.build = t.pools.build.Session(&gorm.Session{Context: t.ctx, NewDB: true})
	t.build.Statement.ConnPool = conn
	return nil
}

// disconnect gives up a connection that is of no use any more.
func (t *Tx) disconnect() {
	_ = t.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = t.conn.Close()
	t.conn = nil
	clear(t.stmts)
}

func (t *Tx) close() {
	for _, st := range t.stmts {
		_ = st.Close()
	}
	if t.conn != nil {
		_ = t.conn.Close()
	}
}

// prepare prepares a statement once for the life of the connection.
func (t *Tx) prepare(query string) (*sql.Stmt, error) {
	if st := t.stmts[query]; st != nil {
		return st, nil
	}
	st, err := t.conn.PrepareContext(t.ctx, query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	t.stmts[query] = st
	return st, nil
}

// Exec runs a statement.
func (t *Tx) Exec(query string, args ...any) error {
	_, err := t.execute(query, args...)
	return err
}

// Affect runs a statement and says how many rows it changed.
func (t *Tx) Affect(query string, args ...any) (int64, error) {
	r, err := t.execute(query, args...)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func (t *Tx) execute(query string, args ...any) (sql.Result, error) {
	if !t.prepares {
		return t.conn.ExecContext(t.ctx, query, args...)
	}
	st, err := t.prepare(query)
	if err != nil {
		return nil, err
	}
	return st.ExecContext(t.ctx, args...)
}

// Query reads rows.
func (t *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	if !t.prepares {
		return t.conn.QueryContext(t.ctx, query, args...)
	}
	st, err := t.prepare(query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(t.ctx, args...)
}

// QueryRow reads one row.
func (t *Tx) QueryRow(query string, args ...any) Scanner {
	if !t.prepares {
		return t.conn.QueryRowContext(t.ctx, query, args...)
	}
	st, err := t.prepare(query)
	if err != nil {
		return failed{err}
	}
	return st.QueryRowContext(t.ctx, args...)
}

// One reads one row; false means that there is none.
func (t *Tx) One(query string, args []any, into ...any) (bool, error) {
	err := t.QueryRow(query, args...).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// Count reads a number.
func (t *Tx) Count(query string, args ...any) (n int64, err error) {
	_, err = t.One(query, args, &n)
	return n, err
}

// Gorm builds a statement in this transaction.
func (t *Tx) Gorm() *gorm.DB { return t.build }

// Now is the time by the clock that the database's users share.
func (t *Tx) Now() time.Time { return t.pools.now() }

// NextID makes an id.
func (t *Tx) NextID() ids.ID { return t.pools.opts.IDs.Next() }

// Audit records a change in the transaction that makes it.
func (t *Tx) Audit(tenant ids.ID, actor, action, subject string) error {
	return t.Exec(`INSERT INTO audit (id,tenant_id,at,actor,action,subject) VALUES (?,?,?,?,?,?)`,
		t.NextID(), tenant, Millis(t.Now()), actor, action, subject)
}

// LockTenant keeps two nodes from deciding at the same time what holds and
// credentials of a tenant mean: those that only join share it, those that change
// them do not. SQLite has one writer, which is lock enough.
func (t *Tx) LockTenant(tenant ids.ID, shared bool) error {
	switch {
	case !t.shared:
		return nil
	case shared:
		return t.Exec("SELECT pg_advisory_xact_lock_shared(?)", tenant)
	}
	return t.Exec("SELECT pg_advisory_xact_lock(?)", tenant)
}

// Lock does the same for anything that has a name.
func (t *Tx) Lock(tenant ids.ID, names ...string) error {
	if !t.shared {
		return nil
	}
	keys := make([]int64, len(names))
	for i, name := range names {
		h := fnv.New64a()
		_, _ = h.Write([]byte(name))
		keys[i] = int64(h.Sum64()) ^ int64(tenant)
	}
	slices.Sort(keys) // always in the same order, so that none waits for the other
	return t.Exec("SELECT pg_advisory_xact_lock(k) FROM unnest($1::bigint[]) k", slices.Compact(keys))
}

// Locking makes a query lock the rows that it reads, where others may write at the
// same time. SHARE keeps them as they are until the commit; UPDATE OF a table takes
// them for this transaction, as they are by the time that others have let go of
// them; with SKIP LOCKED it passes over those that others have taken.
func (t *Tx) Locking(query, clause string) string {
	if t.shared {
		query += " FOR " + clause
	}
	return query
}

// LockRows locks the rows that a query finds, which is all that it is for: where
// nobody else writes it does nothing.
func (t *Tx) LockRows(query, clause string, args ...any) error {
	if !t.shared {
		return nil
	}
	return t.Exec(t.Locking(query, clause), args...)
}

// WithoutOverwriting runs what removes much that says nothing of people, or that
// was sealed: SQLite then overwrites only what is on pages that it writes anyway,
// and leaves alone those that become free as a whole, which costs half as much.
func (t *Tx) WithoutOverwriting(run func() error) (err error) {
	if err := t.pools.dialect.overwriting(t.ctx, t.conn, false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.pools.dialect.overwriting(t.ctx, t.conn, true)) }()
	return run()
}

// Pipeline sends statements in one go.
func (t *Tx) Pipeline(fill func(*pgx.Batch)) error {
	return withPgx(t.conn, func(c *pgx.Conn) error {
		var b pgx.Batch
		fill(&b)
		if b.Len() == 0 {
			return nil
		}
		return c.SendBatch(t.ctx, &b).Close()
	})
}
