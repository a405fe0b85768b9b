package backup

import (
	"bytes"
	"context"
	"database/sql"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/migrations"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/tenants"
)

// opened is a new database with what fills it.
type opened struct {
	*db.DB
	*Backups
	*registers.Registers
	options db.Options
}

func openStore(t *testing.T) opened {
	t.Helper()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	o := db.Options{URL: filepath.Join(t.TempDir(), "c.db"), KeyRing: ring, Migrate: true}
	d, err := db.Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	r := registers.New(d, nil)
	return opened{d, New(d, r), r, o}
}

// later is the schema with one more migration, as the next version has it.
func later(t *testing.T, path string) migrating {
	t.Helper()
	all := fstest.MapFS{"90000_next.sql": {Data: []byte("-- +goose Up\nALTER TABLE tenants ADD COLUMN motto TEXT NOT NULL DEFAULT 'none';\n")}}
	names, err := fs.Glob(migrations.SQLite(), "*.sql")
	require.NoError(t, err)
	for _, name := range names {
		b, err := fs.ReadFile(migrations.SQLite(), name)
		require.NoError(t, err)
		all[name] = &fstest.MapFile{Data: b}
	}
	return func(log *slog.Logger) (*sql.DB, *goose.Provider, error) {
		pool, err := sql.Open("sqlite", "file:"+path)
		require.NoError(t, err)
		p, err := goose.NewProvider(goose.DialectSQLite3, pool, all, goose.WithDisableGlobalRegistry(true), goose.WithSlog(log))
		return pool, p, err
	}
}

func backupTo(t *testing.T, s *Backups, file string) {
	t.Helper()
	var b bytes.Buffer
	_, err := s.Backup(context.Background(), "v1", &b)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(file, b.Bytes(), 0o600))
}

// TestAnOlderBackupIsMigratedAndANewerOneRefused.
func TestAnOlderBackupIsMigratedAndANewerOneRefused(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	s := openStore(t)
	o := s.options
	require.NoError(t, s.CreateTenant(ctx, tenants.Tenant{ID: 1 << 22, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	old := filepath.Join(dir, "old")
	backupTo(t, s.Backups, old)

	o.URL = filepath.Join(dir, "next.db")
	_, err := restore(ctx, o, old, "cli", later(t, o.URL))
	require.NoError(t, err)
	o.Peek = true
	next, err := db.Open(ctx, o)
	o.Peek = false
	require.NoError(t, err)
	defer func() { require.NoError(t, next.Close()) }()
	var motto string
	require.NoError(t, next.Reads().QueryRow("SELECT motto FROM tenants WHERE name='acme'").Scan(&motto))
	require.Equal(t, "none", motto)

	newer := filepath.Join(dir, "newer")
	backupTo(t, New(next, nil), newer)
	o.URL = filepath.Join(dir, "refused.db")
	_, err = Restore(ctx, o, newer, "cli")
	require.ErrorContains(t, err, "schema 90000")
	require.ErrorContains(t, err, "newer")

	// A database that a newer version has begun already, although it is empty.
	o.URL = filepath.Join(dir, "begun.db")
	_, err = restore(ctx, o, newer, "cli", later(t, o.URL))
	require.NoError(t, err)
	begun, err := sql.Open("sqlite", "file:"+o.URL)
	require.NoError(t, err)
	defer func() { require.NoError(t, begun.Close()) }()
	_, err = begun.Exec("DELETE FROM tenants")
	require.NoError(t, err)
	_, err = restore(ctx, o, old, "cli", later(t, o.URL))
	require.ErrorContains(t, err, "does not exist yet")
}

// TestABackupOfOtherColumnsIsRefused: it says the right schema, but is not of it.
func TestABackupOfOtherColumnsIsRefused(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	s := openStore(t)
	_, err := s.Writes().Exec("ALTER TABLE tenants ADD COLUMN motto TEXT")
	require.NoError(t, err)
	file := filepath.Join(dir, "odd")
	backupTo(t, s.Backups, file)
	_, err = Restore(ctx, db.Options{URL: filepath.Join(dir, "c.db"), KeyRing: s.options.KeyRing}, file, "cli")
	require.ErrorContains(t, err, "motto")
}

// TestASchemaWithoutThePauseIsNotBackedUp.
func TestASchemaWithoutThePauseIsNotBackedUp(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	_, err := s.Writes().Exec("DELETE FROM goose_db_version WHERE version_id>=5")
	require.NoError(t, err)
	_, err = s.Backup(context.Background(), "v1", &bytes.Buffer{})
	require.ErrorContains(t, err, "migrate up")
}
