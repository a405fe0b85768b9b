package store

import (
	"context"
	"fmt"

	"github.com/pressly/goose/v3"

	"github.com/carillonhq/carillon/migrations"
)

func (s *Store) provider() (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectSQLite3, s.writeDB, migrations.SQLite(),
		goose.WithDisableGlobalRegistry(true), goose.WithSlog(s.opts.Log))
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

// Migrations lists all migrations that this version knows.
func (s *Store) Migrations(ctx context.Context) ([]MigrationStatus, error) {
	p, err := s.provider()
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	list, err := p.Status(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the schema version: %w", err)
	}
	out := make([]MigrationStatus, len(list))
	for i, m := range list {
		out[i] = MigrationStatus{Version: m.Source.Version, Name: m.Source.Path, Applied: m.State == goose.StateApplied}
	}
	return out, nil
}
