package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func openStore(t *testing.T, edit func(*Options)) *Store {
	t.Helper()
	ring, _, err := NewKeyRing()
	require.NoError(t, err)
	o := Options{URL: filepath.Join(t.TempDir(), "c.db"), KeyRing: ring, Migrate: true}
	if edit != nil {
		edit(&o)
	}
	s, err := Open(context.Background(), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// hold keeps the writer busy until the returned function is called, so that what
// is offered meanwhile shares the next transaction.
func (w *writer) hold(t *testing.T) (release func()) {
	t.Helper()
	busy, free := make(chan struct{}), make(chan struct{})
	require.NoError(t, w.offer(context.Background(), op{run: func(*tx) error { close(busy); <-free; return nil }, done: func(error) {}}))
	<-busy
	return func() { close(free) }
}

// insert adds an app, and notes how often it was run.
func insert(name string, runs *int) func(*tx) error {
	return func(t *tx) error {
		*runs++
		return t.exec("INSERT INTO apps (tenant_id,name,created_at) VALUES (1,?,0)", name)
	}
}

func TestOneFaultNeverFailsItsBatch(t *testing.T) {
	t.Parallel()
	s := openStore(t, nil)
	release := s.writer.hold(t)
	boom := errors.New("boom")
	var (
		runs    [6]int
		results [6]chan error
		ops     = [6]op{
			{run: insert("a", &runs[0])},
			{run: insert("a", &runs[1])},                                                        // a duplicate
			{run: func(*tx) error { runs[2]++; panic("out of cheese") }},                        // must not end the writer
			{run: func(x *tx) error { _ = insert("b", &runs[3])(x); return boom }},              // writes, then fails
			{run: func(x *tx) error { _ = insert("c", &runs[4])(x); return boom }, alone: true}, // the same in a savepoint
			{run: insert("d", &runs[5])},
		}
	)
	for i := range ops {
		results[i] = make(chan error, 1)
		ops[i].done = func(err error) { results[i] <- err }
		require.NoError(t, s.writer.offer(context.Background(), ops[i]))
	}
	release()
	require.NoError(t, <-results[0])
	require.ErrorContains(t, <-results[1], "UNIQUE")
	require.ErrorContains(t, <-results[2], "out of cheese")
	require.ErrorIs(t, <-results[3], boom)
	require.ErrorIs(t, <-results[4], boom)
	require.NoError(t, <-results[5])
	require.Equal(t, 4, runs[0], "they did share a transaction, which was run again without each culprit")
	require.Equal(t, 1, runs[1])

	var names string
	require.NoError(t, s.readDB.QueryRow("SELECT group_concat(name) FROM (SELECT name FROM apps ORDER BY name)").Scan(&names))
	require.Equal(t, "a,d", names)
}

// TestATroubledDatabaseIsNoMembersFault: when the transaction cannot even begin,
// all are told, and none is tried by itself.
func TestATroubledDatabaseIsNoMembersFault(t *testing.T) {
	t.Parallel()
	s := openStore(t, nil)
	require.NoError(t, s.writer.txs[0].exec("PRAGMA busy_timeout=0"))
	db, err := sql.Open("sqlite", "file:"+s.opts.URL)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("BEGIN IMMEDIATE")
	require.NoError(t, err)
	runs := 0
	require.ErrorContains(t, s.do(context.Background(), 1, insert("a", &runs)), "begin")
	require.Zero(t, runs)
	_, err = db.Exec("ROLLBACK")
	require.NoError(t, err)
	require.NoError(t, s.do(context.Background(), 1, insert("a", &runs)), "the writer goes on")
}

func TestAFullQueueRefusesWhoHasADeadline(t *testing.T) {
	t.Parallel()
	s := openStore(t, func(o *Options) { o.QueueSize = 1 })
	release := s.writer.hold(t)
	runs := 0
	waiting := make(chan error, 1)
	require.NoError(t, s.writer.offer(context.Background(), op{run: insert("a", &runs), done: func(err error) { waiting <- err }}))
	_, n := s.WriteBeat()
	require.Equal(t, 1, n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.do(ctx, 1, insert("b", &runs))
	require.Equal(t, problem.Unavailable, problem.CodeOf(err))
	// Who has none waits, as outcomes do.
	patient := make(chan error, 1)
	go func() { patient <- s.do(context.Background(), 1, insert("c", &runs)) }()
	release()
	require.NoError(t, <-waiting)
	require.NoError(t, <-patient)
	require.Equal(t, 2, runs)
}

func TestCloseWritesWhatWaits(t *testing.T) {
	t.Parallel()
	s := openStore(t, nil)
	release := s.writer.hold(t)
	runs := 0
	result := make(chan error, 1)
	require.NoError(t, s.writer.offer(context.Background(), op{run: insert("a", &runs), done: func(err error) { result <- err }}))
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	release()
	require.NoError(t, <-result)
	require.NoError(t, <-closed)
	require.Equal(t, problem.Unavailable, problem.CodeOf(s.do(context.Background(), 1, insert("b", &runs))))
	done := make(chan delivery.FinishResult, 1)
	s.Finish(delivery.Finish{}, func(r delivery.FinishResult) { done <- r })
	require.Error(t, (<-done).Err)
}

// TestQueriesUseTheirIndexes: what runs all the time costs what it finds, not
// what the history weighs.
func TestQueriesUseTheirIndexes(t *testing.T) {
	t.Parallel()
	s := openStore(t, nil)
	queries := map[string]string{"tenants due": dueTenants, "due": selectDue, "resolve users": resolveUserDevices, "lease": lease, "finish": finishAttempt,
		"keep": keepAttempt, "unknown": unknownAttempt, "idempotency": selectIdempotency}
	queries["purge idempotency"], queries["find sensitive"], queries["find content"] = purgeIdempotency, findSensitive, findContent
	queries["remove content"], queries["oldest"] = removeContent, oldest
	for _, p := range purges {
		queries["purge "+p.what] = p.query
	}
	for name, q := range queries {
		rows, err := s.readDB.Query("EXPLAIN QUERY PLAN "+q, make([]any, strings.Count(q, "?"))...)
		if err != nil && strings.Contains(q, "?1") {
			rows, err = s.readDB.Query("EXPLAIN QUERY PLAN "+q, 1, 1)
		}
		require.NoError(t, err, name)
		for rows.Next() {
			var (
				id, parent, unused int
				detail             string
			)
			require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
			for _, table := range []string{"d", "deliveries", "a", "attempts", "n", "notifications", "k", "skips", "u", "devices"} {
				require.NotEqual(t, "SCAN "+table, detail, "%s reads a whole table", name)
				require.False(t, strings.HasPrefix(detail, "SCAN "+table+" USING"), "%s reads a whole index: %s", name, detail)
			}
			if detail == "SCAN p" || detail == "SCAN payloads" {
				t.Errorf("%s reads all contents", name)
			}
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	}
}

func TestAServerNoticesAnotherKeyRing(t *testing.T) {
	t.Parallel()
	s := openStore(t, nil)
	require.NoError(t, s.CheckKeyRing(t.Context()), "an empty database opens with any")
	require.NoError(t, s.CreateTenant(t.Context(), tenants.Tenant{ID: s.opts.IDs.Next(), Name: "acme"}, tenants.Change{Actor: "test", Action: "tenant.create"}))
	require.NoError(t, s.CheckKeyRing(t.Context()))
	other, _, err := NewKeyRing()
	require.NoError(t, err)
	s.ring, s.seals.open = other, nil
	require.ErrorContains(t, s.CheckKeyRing(t.Context()), "key ring")
}

func TestADatabaseThatTakesNoWritesSaysSo(t *testing.T) {
	t.Parallel()
	s := openStore(t, nil)
	full := func(pages int) {
		require.NoError(t, s.do(context.Background(), 1, func(x *tx) error {
			_, err := x.conn.ExecContext(x.ctx, fmt.Sprintf("PRAGMA max_page_count=%d", pages))
			return err
		}))
	}
	full(1) // as small as it can be: what it is
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = s.CreateTenant(t.Context(), tenants.Tenant{ID: s.opts.IDs.Next(), Name: fmt.Sprint("tenant-", i)}, tenants.Change{Actor: "test", Action: "tenant.create"})
	}
	require.Equal(t, problem.Unavailable, problem.CodeOf(err), "%v", err)
	_, waiting := s.WriteBeat()
	require.Positive(t, waiting, "so that the server is not ready for long")
	full(1 << 20)
	require.NoError(t, s.CreateTenant(t.Context(), tenants.Tenant{ID: s.opts.IDs.Next(), Name: "again"}, tenants.Change{Actor: "test", Action: "tenant.create"}))
	_, waiting = s.WriteBeat()
	require.Zero(t, waiting)
}
