package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/carillonhq/carillon/ids"
)

// Queryer runs statements: a pool or a connection.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// pools are the ways to the database, with what everything on them needs.
type pools struct {
	opts    Options
	dialect dialect
	now     func() time.Time

	writes *sql.DB
	reads  *sql.DB  // short look-ups that accepts and workers wait for
	lists  *sql.DB  // lists that people ask for, which may walk a history
	gorm   *gorm.DB // on lists
	build  *gorm.DB // for the statement builder only: a writer binds it to its connection

	prepared sync.Map // SQL text -> *sql.Stmt on the pool of reads
}

// connect opens the pools, and begins to tell the time.
func (p *pools) connect(ctx context.Context) (err error) {
	if p.writes, p.reads, p.lists, err = p.dialect.open(ctx); err != nil {
		return err
	}
	if p.now = p.opts.Now; p.now == nil {
		if err := p.dialect.readClock(ctx, p.reads); err != nil {
			return fmt.Errorf("read the database's clock: %w", err)
		}
		p.now = p.dialect.now
	}
	if p.opts.IDs == nil {
		p.opts.IDs = ids.NewGenerator(0, p.now)
	}
	return nil
}

// openGorm wraps the pools for its statement builder.
func (p *pools) openGorm() (err error) {
	if p.gorm, err = p.wrap(p.lists); err != nil {
		return err
	}
	p.build, err = p.wrap(p.writes)
	return err
}

// wrap makes gorm log nothing: whoever asked gets the error, and logs it where that
// is worth a line.
func (p *pools) wrap(pool *sql.DB) (*gorm.DB, error) {
	return gorm.Open(p.dialect.dialector(pool), &gorm.Config{
		SkipDefaultTransaction: true,
		DisableAutomaticPing:   true,
		NowFunc:                func() time.Time { return p.now().UTC() },
		Logger:                 logger.Discard,
	})
}

func (p *pools) close() (err error) {
	p.prepared.Range(func(_, v any) bool { _ = v.(*sql.Stmt).Close(); return true })
	for _, pool := range []*sql.DB{p.lists, p.reads, p.writes} {
		if pool != nil {
			err = errors.Join(err, pool.Close())
		}
	}
	return err
}

// Writes is the pool for what is written beside the writer.
func (p *pools) Writes() *sql.DB { return p.writes }

// Reads is the pool of short look-ups that accepts and workers wait for.
func (p *pools) Reads() *sql.DB { return p.reads }

// Lists is the pool of lists that people ask for, which may walk a history.
func (p *pools) Lists() *sql.DB { return p.lists }

// Gorm builds a statement on the pool of lists.
func (p *pools) Gorm(ctx context.Context) *gorm.DB { return p.gorm.WithContext(ctx) }

// Query runs a look-up on the pool of reads. SQLite prepares it once; the driver of
// PostgreSQL does so by itself.
func (p *pools) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if !p.dialect.prepares() {
		return p.reads.QueryContext(ctx, query, args...)
	}
	st, err := p.stmt(query)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, args...)
}

// QueryRow is Query for a single row.
func (p *pools) QueryRow(ctx context.Context, query string, args ...any) Scanner {
	if !p.dialect.prepares() {
		return p.reads.QueryRowContext(ctx, query, args...)
	}
	st, err := p.stmt(query)
	if err != nil {
		return failed{err}
	}
	return st.QueryRowContext(ctx, args...)
}

// Each runs Query and hands over every row.
func (p *pools) Each(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := p.Query(ctx, query, args...)
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

func (p *pools) stmt(query string) (*sql.Stmt, error) {
	if v, ok := p.prepared.Load(query); ok {
		return v.(*sql.Stmt), nil
	}
	st, err := p.reads.PrepareContext(context.Background(), query)
	if err != nil {
		return nil, fmt.Errorf("prepare: %w", err)
	}
	if v, raced := p.prepared.LoadOrStore(query, st); raced {
		_ = st.Close()
		return v.(*sql.Stmt), nil
	}
	return st, nil
}

// Database names the database, without its password.
func (p *pools) Database() string { return p.dialect.String() }

// Kind is which one it is.
func (p *pools) Kind() string { return p.dialect.kind() }

// Shared tells whether other nodes may work on this database at the same time.
func (p *pools) Shared() bool { return p.dialect.shared() }

// IDs makes the database's ids.
func (p *pools) IDs() *ids.Generator { return p.opts.IDs }

// Log is where the store writes its lines.
func (p *pools) Log() *slog.Logger { return p.opts.Log }

// Now is the time by the clock that the database's users share.
func (p *pools) Now() time.Time { return p.now() }

// Machine is the time by this machine's own clock, which no node has to agree with.
func (p *pools) Machine() time.Time { return p.opts.Machine() }

// ClockAhead is by how much the database's clock is ahead of this machine's.
func (p *pools) ClockAhead(ctx context.Context) (time.Duration, error) {
	return p.dialect.clockAhead(ctx, p.reads)
}
