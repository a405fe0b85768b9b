package pgtest_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/pgtest"
)

// TestServersAreHurt: whatever ends a server, commits survive, and it comes back
// at the same address.
func TestServersAreHurt(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	url := s.URL("carillon")
	exec(t, url, "CREATE TABLE notes (id BIGINT PRIMARY KEY)")
	for i, end := range []func() error{s.Stop, s.StopImmediately, s.Kill} {
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		_, err = conn.Exec(t.Context(), "INSERT INTO notes VALUES ($1)", i)
		require.NoError(t, err)

		require.NoError(t, end())
		require.False(t, s.Running())
		require.Error(t, conn.Ping(t.Context()), "the connection must end with its server")
		_, err = pgx.Connect(t.Context(), url)
		require.Error(t, err)

		require.NoError(t, s.Start())
		require.True(t, s.Running())
		require.Error(t, s.Start(), "it runs already")
		require.Equal(t, i+1, count(t, url, "SELECT count(*) FROM notes"))
	}
}

// TestNothingLivesOnAfterKill: no backend goes on with what it was doing.
func TestNothingLivesOnAfterKill(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	conn := connect(t, s.URL("carillon"))
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "SELECT pg_sleep(60)")
		done <- err
	}()
	require.Eventually(t, func() bool {
		n, err := pgtest.Query[int](s, "postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active'")
		return err == nil && n[0] == 1
	}, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, s.Kill())
	require.Error(t, <-done)
}

func TestOptionsOfServers(t *testing.T) {
	t.Parallel()
	show := func(s *pgtest.Server, name string) string {
		values, err := pgtest.Query[string](s, "postgres", "SHOW "+name)
		require.NoError(t, err)
		return values[0]
	}
	s := pgtest.Start(t, pgtest.Options{FSync: true, Settings: map[string]string{"statement_timeout": "1234ms", "max_connections": "7"}})
	require.Equal(t, "on", show(s, "fsync"))
	require.Equal(t, "on", show(s, "full_page_writes"))
	require.Equal(t, "1234ms", show(s, "statement_timeout"))
	require.Equal(t, "7", show(s, "max_connections"))

	sorted, err := pgtest.Query[string](s, "carillon", "SELECT x FROM (VALUES ('B'), ('a'), ('C')) AS v (x) ORDER BY x")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "B", "C"}, sorted, "as people sort, not as bytes do")

	require.NoError(t, s.Exec("postgres", "CREATE DATABASE other"))
	names, err := pgtest.Query[string](s, "other", "SELECT datname FROM pg_database WHERE datname = $1", "other")
	require.NoError(t, err)
	require.Equal(t, []string{"other"}, names)
}

// TestTheDiskIsFull: a server whose disk is full takes no more, and loses nothing.
func TestTheDiskIsFull(t *testing.T) {
	t.Parallel()
	disk := pgtest.NewDisk(t, 100)
	s := pgtest.Start(t, pgtest.Options{DataDir: disk.Dir, FSync: true})
	url := s.URL("carillon")
	exec(t, url, "CREATE TABLE notes (id BIGSERIAL PRIMARY KEY, filler TEXT)")
	conn := connect(t, url)
	insert := func() error {
		_, err := conn.Exec(t.Context(), "INSERT INTO notes (filler) VALUES (repeat(md5(random()::text), 1000))")
		return err
	}
	committed := 0
	for ; committed < 10; committed++ {
		require.NoError(t, insert())
	}
	require.NoError(t, disk.Fill())
	for err := insert(); ; err = insert() {
		if err != nil {
			t.Logf("after %d commits: %v", committed, err)
			break
		}
		committed++
		require.Less(t, committed, 10_000, "so much must not fit")
	}
	require.NoError(t, disk.Free())
	if !s.Running() {
		require.NoError(t, s.Start())
	}
	require.Eventually(t, func() bool { // it may be recovering
		n, err := pgtest.Query[int](s, "carillon", "SELECT count(*) FROM notes")
		return err == nil && n[0] >= committed
	}, 30*time.Second, 50*time.Millisecond)
	exec(t, url, "INSERT INTO notes (filler) VALUES ('there is room again')")
}

// TestThePoolerIsInBetween: a connection to it may have another server process in
// every transaction, and connections there are fewer than here.
func TestThePoolerIsInBetween(t *testing.T) {
	t.Parallel()
	url := pgtest.PgBouncer(t, pgtest.Empty(t))
	exec(t, url, "CREATE TABLE notes (id BIGINT PRIMARY KEY)")

	config, err := pgx.ParseConfig(url)
	require.NoError(t, err)
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // prepared statements stay behind in another process
	processes := map[int]bool{}
	for range 30 {
		conn, err := pgx.ConnectConfig(t.Context(), config)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		var pid int
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))
		processes[pid] = true
	}
	require.Less(t, len(processes), 30)
}
