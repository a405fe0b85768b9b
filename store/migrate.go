package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/pressly/goose/v3"

	"github.com/carillonhq/carillon/migrations"
)

func (s *Store) provider() (*goose.Provider, error) { return provider(s.writeDB, s.opts.Log) }

func provider(db *sql.DB, log *slog.Logger) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectSQLite3, db, migrations.SQLite(),
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(log))
}

// Migrate applies every migration that is missing.
func (s *Store) Migrate(ctx context.Context) error {
	p, err := s.provider()
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate the database: %w", err)
	}
	return s.checkSchema(ctx)
}

// checkSchema refuses a schema that this binary cannot work with: one that lacks
// migrations, or one that a newer version has closed to it (min_reader).
func (s *Store) checkSchema(ctx context.Context) error {
	p, err := s.provider()
	if err != nil {
		return fmt.Errorf("read the migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if have < want {
		return fmt.Errorf("the database has schema %d, this version needs %d: run `carillon migrate up`", have, want)
	}
	var minReader int64
	if err := s.writeDB.QueryRowContext(ctx, "SELECT min_reader FROM schema_info").Scan(&minReader); err != nil {
		return fmt.Errorf("read the schema version: %w", err)
	}
	if want < minReader {
		return fmt.Errorf("the database was migrated by a newer version and needs at least schema %d, this version knows %d: use the newer version", minReader, want)
	}
	return nil
}

// MigrationStatus is one line of `carillon migrate status`.
type MigrationStatus struct {
	Version int64
	Name    string
	Applied bool
}

// Migrations lists all migrations that this version knows, and first applies
// those that are missing if up is set. It needs no key ring.
func Migrations(ctx context.Context, path string, up bool) (_ []MigrationStatus, err error) {
	if err := private(path); err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", dsn(path)+"&_txlock=immediate")
	if err != nil {
		return nil, fmt.Errorf("open the database: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	p, err := provider(db, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	if up {
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
