package pgtest_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/pgtest"
)

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	_, err := connect(t, url).Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

func count(t *testing.T, url, sql string) (n int) {
	t.Helper()
	require.NoError(t, connect(t, url).QueryRow(t.Context(), sql).Scan(&n))
	return n
}

// prepareTable makes a table in a template.
func prepareTable(url, table string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE "+pgx.Identifier{table}.Sanitize()+" (id BIGINT PRIMARY KEY)")
	return errors.Join(err, conn.Close(ctx))
}

// TestDatabasesAreTheirTestsOwn: parallel tests of one template do not see each
// other's rows, and the template is prepared once.
func TestDatabasesAreTheirTestsOwn(t *testing.T) {
	t.Parallel()
	name := rand.Text() // a new template even where the test runs again
	var prepared atomic.Int32
	prepare := func(url string) error {
		prepared.Add(1)
		return prepareTable(url, "notes")
	}
	t.Run("tests", func(t *testing.T) {
		t.Parallel()
		for i := range 12 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				started := time.Now()
				url := pgtest.Database(t, name, prepare)
				t.Logf("database made in %s", time.Since(started))
				exec(t, url, "INSERT INTO notes VALUES ($1)", 100+i)
				require.Equal(t, 1, count(t, url, "SELECT count(*) FROM notes"))
			})
		}
	})
	t.Cleanup(func() { require.EqualValues(t, 1, prepared.Load()) })
}

func TestTemplatesHaveNames(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"first", "second"} {
		url := pgtest.Database(t, "named "+table, func(url string) error { return prepareTable(url, table) })
		require.Zero(t, count(t, url, "SELECT count(*) FROM "+table))
	}
}

// TestTheDatabaseIsDropped although a connection to it is still open.
func TestTheDatabaseIsDropped(t *testing.T) { //nolint:tparallel // what the subtest leaves is looked at after it
	t.Parallel()
	other := pgtest.Empty(t)
	var name string
	t.Run("test", func(t *testing.T) {
		conn, err := pgx.Connect(t.Context(), pgtest.Empty(t))
		require.NoError(t, err)
		name = conn.Config().Database
		require.Equal(t, 1, databases(t, other, name))
	})
	require.Zero(t, databases(t, other, name))
}

func databases(t *testing.T, url, name string) (n int) {
	t.Helper()
	require.NoError(t, connect(t, url).QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&n))
	return n
}

// TestTestsAreNoSuperusers: what they can do, an ordinary owner of a database can.
func TestTestsAreNoSuperusers(t *testing.T) {
	t.Parallel()
	if os.Getenv("CARILLON_TEST_POSTGRES_URL") != "" && os.Getenv(again) == "" {
		t.Skip("the user of a given server may be whoever")
	}
	url := pgtest.Empty(t)
	require.Zero(t, count(t, url, "SELECT count(*) FROM pg_roles WHERE rolname = current_user AND rolsuper"))
	exec(t, url, "CREATE TABLE things (id BIGINT PRIMARY KEY)")
	require.Zero(t, count(t, url, "SELECT count(*) FROM things"))
}
