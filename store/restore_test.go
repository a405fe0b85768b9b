package store

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
	"github.com/carillonhq/carillon/tenants"
)

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
		db, err := (&sqliteFile{path: path}).openWriter()
		require.NoError(t, err)
		return provide(db, goose.DialectSQLite3, all, log)
	}
}

func backupTo(t *testing.T, s *Store, file string) {
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
	var o Options
	s := openStore(t, func(x *Options) { o = *x })
	o.KeyRing = s.ring
	require.NoError(t, s.CreateTenant(ctx, tenants.Tenant{ID: 1 << 22, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	old := filepath.Join(dir, "old")
	backupTo(t, s, old)

	o.URL = filepath.Join(dir, "next.db")
	_, err := restore(ctx, o, old, "cli", later(t, o.URL))
	require.NoError(t, err)
	next, err := Peek(ctx, o)
	require.NoError(t, err)
	defer func() { require.NoError(t, next.Close()) }()
	var motto string
	require.NoError(t, next.readDB.QueryRow("SELECT motto FROM tenants WHERE name='acme'").Scan(&motto))
	require.Equal(t, "none", motto)

	newer := filepath.Join(dir, "newer")
	backupTo(t, next, newer)
	o.URL = filepath.Join(dir, "refused.db")
	_, err = Restore(ctx, o, newer, "cli")
	require.ErrorContains(t, err, "schema 90000")
	require.ErrorContains(t, err, "newer")

	// A database that a newer version has begun already, although it is empty.
	o.URL = filepath.Join(dir, "begun.db")
	_, err = restore(ctx, o, newer, "cli", later(t, o.URL))
	require.NoError(t, err)
	db, err := sql.Open("sqlite", "file:"+o.URL)
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	_, err = db.Exec("DELETE FROM tenants")
	require.NoError(t, err)
	_, err = restore(ctx, o, old, "cli", later(t, o.URL))
	require.ErrorContains(t, err, "does not exist yet")
}

// TestABackupOfOtherColumnsIsRefused: it says the right schema, but is not of it.
func TestABackupOfOtherColumnsIsRefused(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	s := openStore(t, nil)
	_, err := s.writeDB.Exec("ALTER TABLE tenants ADD COLUMN motto TEXT")
	require.NoError(t, err)
	file := filepath.Join(dir, "odd")
	backupTo(t, s, file)
	_, err = Restore(ctx, Options{URL: filepath.Join(dir, "c.db"), KeyRing: s.ring}, file, "cli")
	require.ErrorContains(t, err, "motto")
}

// TestASchemaWithoutThePauseIsNotBackedUp.
func TestASchemaWithoutThePauseIsNotBackedUp(t *testing.T) {
	t.Parallel()
	s := openStore(t, nil)
	_, err := s.writeDB.Exec("DELETE FROM goose_db_version WHERE version_id>=5")
	require.NoError(t, err)
	_, err = s.Backup(context.Background(), "v1", &bytes.Buffer{})
	require.ErrorContains(t, err, "migrate up")
}
