package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/carillonhq/carillon/migrations"
)

// migrator opens what migrations run on: a connection that waits as long as a
// statement takes, and a lock, so that of nodes that start at once only one
// migrates.
func (f *sqliteFile) migrator(log *slog.Logger) (*sql.DB, *goose.Provider, error) {
	db, err := f.openWriter()
	if err != nil {
		return nil, nil, err
	}
	return provide(db, goose.DialectSQLite3, migrations.SQLite(), log)
}

func (p *postgres) migrator(log *slog.Logger) (*sql.DB, *goose.Provider, error) {
	c := p.config.Copy() // no statement of ours, and no limit on how long one may take
	db := stdlib.OpenDB(*c)
	var option goose.ProviderOption
	if p.pooled { // which keeps no session, and so no lock of one
		l, err := lock.NewPostgresTableLocker()
		if err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
		option = goose.WithLocker(l)
	} else {
		l, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 600)) // seconds
		if err != nil {
			return nil, nil, errors.Join(err, db.Close())
		}
		option = goose.WithSessionLocker(l)
	}
	return provide(db, goose.DialectPostgres, migrations.Postgres(), log, option)
}

func provide(db *sql.DB, d goose.Dialect, files fs.FS, log *slog.Logger, more ...goose.ProviderOption) (*sql.DB, *goose.Provider, error) {
	p, err := goose.NewProvider(d, db, files, append(more, goose.WithDisableGlobalRegistry(true), goose.WithSlog(log))...)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("read the migrations: %w", err), db.Close())
	}
	return db, p, nil
}

// Migrate applies every migration that is missing.
func (p *pools) Migrate(ctx context.Context) error {
	return p.migrations(func(p *goose.Provider, db *sql.DB) error {
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrate the database: %w", err)
		}
		return check(ctx, p, db)
	})
}

func (p *pools) migrations(use func(*goose.Provider, *sql.DB) error) error {
	pool, m, err := p.Migrator(p.opts.Log)
	if err != nil {
		return err
	}
	return errors.Join(use(m, pool), pool.Close())
}

// checkSchema refuses a schema that this binary cannot work with: one that lacks
// migrations, or one that a newer version has closed to it (min_reader).
func (p *pools) checkSchema(ctx context.Context) error {
	return p.migrations(func(p *goose.Provider, db *sql.DB) error { return check(ctx, p, db) })
}

func check(ctx context.Context, p *goose.Provider, db *sql.DB) error {
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if have < want {
		return fmt.Errorf("the database has schema %d, this version needs %d: run `carillon migrate up`", have, want)
	}
	var minReader int64
	if err := db.QueryRowContext(ctx, "SELECT min_reader FROM schema_info").Scan(&minReader); err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if want < minReader {
		return fmt.Errorf("the database was migrated by a newer version and needs at least schema %d, this version knows %d: use the newer version", minReader, want)
	}
	return nil
}

// Migrator opens what migrations run on.
func (p *pools) Migrator(log *slog.Logger) (*sql.DB, *goose.Provider, error) {
	return p.dialect.migrator(log)
}

// SchemaFacts are the versions of the schema.
type SchemaFacts struct {
	Have, Want int64 // of the database, of this program
	MinReader  int64 // the oldest program that may run on it
}

// Schema reads the versions of the schema, whatever they are.
func (p *pools) Schema(ctx context.Context) (f SchemaFacts, err error) {
	pool, known, err := p.Migrator(slog.New(slog.DiscardHandler))
	if err != nil {
		return f, err
	}
	for _, m := range known.ListSources() {
		f.Want = max(f.Want, m.Version)
	}
	if err := pool.Close(); err != nil {
		return f, err
	}
	if f.Have, err = SchemaVersion(ctx, p.reads); err != nil {
		return f, fmt.Errorf("%w: is it a database of Carillon?", err)
	}
	return f, p.reads.QueryRowContext(ctx, "SELECT min_reader FROM schema_info").Scan(&f.MinReader)
}

// SchemaVersion is the newest migration that was applied.
func SchemaVersion(ctx context.Context, q Queryer) (v int64, err error) {
	err = q.QueryRowContext(ctx, "SELECT coalesce(max(version_id),0) FROM goose_db_version").Scan(&v)
	if err != nil {
		return 0, fmt.Errorf("read the schema version: %w", err)
	}
	return v, nil
}

// MigrationStatus is one line of `carillon migrate status`.
type MigrationStatus struct {
	Version int64
	Name    string
	Applied bool
}

// Migrations lists all migrations that this version knows, and first applies
// those that are missing if up is set. It needs no key ring.
func Migrations(ctx context.Context, url string, apply bool) (_ []MigrationStatus, err error) {
	kind, err := dialectOf(Options{URL: url})
	if err != nil {
		return nil, err
	}
	if err := kind.look(ctx); err != nil {
		return nil, err
	}
	db, p, err := kind.migrator(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if apply {
		if _, err := p.Up(ctx); err != nil {
			return nil, fmt.Errorf("migrate the database: %w", err)
		}
	}
	list, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the schema version: %w", err)
	}
	out := make([]MigrationStatus, len(list))
	for i, m := range list {
		out[i] = MigrationStatus{Version: m.Source.Version, Name: filepath.Base(m.Source.Path), Applied: m.State == goose.StateApplied}
	}
	return out, nil
}
