package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

func openDB(t *testing.T, edit func(*Options)) *DB {
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

// addTenant stores a tenant with keys of its own.
func (d *DB) addTenant(name string) error {
	id := d.IDs().Next()
	keyset, err := d.ring.NewKeyset(id)
	if err != nil {
		return err
	}
	return d.Change(context.Background(), func(t *Tx) error {
		return t.Exec("INSERT INTO tenants (id,name,title,settings,keyset,created_at,updated_at) VALUES (?,?,'','{}',?,0,0)", id, name, keyset)
	})
}

// hold keeps the writer busy until the returned function is called, so that what
// is offered meanwhile shares the next transaction.
func (w *writer) hold(t *testing.T) (release func()) {
	t.Helper()
	busy, free := make(chan struct{}), make(chan struct{})
	require.NoError(t, w.Offer(context.Background(), Op{Run: func(*Tx) error { close(busy); <-free; return nil }, Done: func(error) {}}))
	<-busy
	return func() { close(free) }
}

// insert adds an app, and notes how often it was run.
func insert(name string, runs *int) func(*Tx) error {
	return func(t *Tx) error {
		*runs++
		return t.Exec("INSERT INTO apps (tenant_id,name,created_at) VALUES (1,?,0)", name)
	}
}

func TestOneFaultNeverFailsItsBatch(t *testing.T) {
	t.Parallel()
	s := openDB(t, nil)
	release := s.writer.hold(t)
	boom := errors.New("boom")
	var (
		runs    [6]int
		results [6]chan error
		ops     = [6]Op{
			{Run: insert("a", &runs[0])},
			{Run: insert("a", &runs[1])},                                                        // a duplicate
			{Run: func(*Tx) error { runs[2]++; panic("out of cheese") }},                        // must not end the writer
			{Run: func(x *Tx) error { _ = insert("b", &runs[3])(x); return boom }},              // writes, then fails
			{Run: func(x *Tx) error { _ = insert("c", &runs[4])(x); return boom }, Alone: true}, // the same in a savepoint
			{Run: insert("d", &runs[5])},
		}
	)
	for i := range ops {
		results[i] = make(chan error, 1)
		ops[i].Done = func(err error) { results[i] <- err }
		require.NoError(t, s.Offer(context.Background(), ops[i]))
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
	require.NoError(t, s.reads.QueryRow("SELECT group_concat(name) FROM (SELECT name FROM apps ORDER BY name)").Scan(&names))
	require.Equal(t, "a,d", names)
}

// TestATroubledDatabaseIsNoMembersFault: when the transaction cannot even begin,
// all are told, and none is tried by itself.
func TestATroubledDatabaseIsNoMembersFault(t *testing.T) {
	t.Parallel()
	s := openDB(t, nil)
	require.NoError(t, s.txs[0].Exec("PRAGMA busy_timeout=0"))
	db, err := sql.Open("sqlite", "file:"+s.opts.URL)
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	db.SetMaxOpenConns(1)
	_, err = db.Exec("BEGIN IMMEDIATE")
	require.NoError(t, err)
	runs := 0
	require.ErrorContains(t, s.Do(context.Background(), 1, insert("a", &runs)), "begin")
	require.Zero(t, runs)
	_, err = db.Exec("ROLLBACK")
	require.NoError(t, err)
	require.NoError(t, s.Do(context.Background(), 1, insert("a", &runs)), "the writer goes on")
}

func TestAFullQueueRefusesWhoHasADeadline(t *testing.T) {
	t.Parallel()
	s := openDB(t, func(o *Options) { o.QueueSize = 1 })
	release := s.writer.hold(t)
	runs := 0
	waiting := make(chan error, 1)
	require.NoError(t, s.Offer(context.Background(), Op{Run: insert("a", &runs), Done: func(err error) { waiting <- err }}))
	_, n := s.WriteBeat()
	require.Equal(t, 1, n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := s.Do(ctx, 1, insert("b", &runs))
	require.Equal(t, problem.Unavailable, problem.CodeOf(err))
	// Who has none waits, as outcomes do.
	patient := make(chan error, 1)
	go func() { patient <- s.Do(context.Background(), 1, insert("c", &runs)) }()
	release()
	require.NoError(t, <-waiting)
	require.NoError(t, <-patient)
	require.Equal(t, 2, runs)
}

func TestCloseWritesWhatWaits(t *testing.T) {
	t.Parallel()
	s := openDB(t, nil)
	release := s.writer.hold(t)
	runs := 0
	result := make(chan error, 1)
	require.NoError(t, s.Offer(context.Background(), Op{Run: insert("a", &runs), Done: func(err error) { result <- err }}))
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	release()
	require.NoError(t, <-result)
	require.NoError(t, <-closed)
	require.Equal(t, problem.Unavailable, problem.CodeOf(s.Do(context.Background(), 1, insert("b", &runs))))
	require.Error(t, s.Offer(context.Background(), Op{Run: insert("c", &runs), Done: func(error) {}}))
}

func TestAServerNoticesAnotherKeyRing(t *testing.T) {
	t.Parallel()
	s := openDB(t, nil)
	require.NoError(t, s.CheckKeyRing(t.Context()), "an empty database opens with any")
	require.NoError(t, s.addTenant("acme"))
	require.NoError(t, s.CheckKeyRing(t.Context()))
	other, _, err := NewKeyRing()
	require.NoError(t, err)
	s.ring, s.seals.open = other, nil
	require.ErrorContains(t, s.CheckKeyRing(t.Context()), "key ring")
}

func TestADatabaseThatTakesNoWritesSaysSo(t *testing.T) {
	t.Parallel()
	s := openDB(t, nil)
	full := func(pages int) {
		require.NoError(t, s.Do(context.Background(), 1, func(x *Tx) error {
			_, err := x.conn.ExecContext(x.ctx, fmt.Sprintf("PRAGMA max_page_count=%d", pages))
			return err
		}))
	}
	full(1) // as small as it can be: what it is
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		err = s.addTenant(fmt.Sprint("tenant-", i))
	}
	require.Equal(t, problem.Unavailable, problem.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "nothing was changed", "which is so, though the commit itself may have failed")
	require.False(t, s.TakesWrites(), "so that the server is not ready")
	require.Error(t, s.tryWrite(t.Context()), "though nobody else writes")
	require.Error(t, s.addTenant("no room"))
	full(1 << 20)
	require.NoError(t, s.addTenant("again"))
	require.False(t, s.TakesWrites(), "what is small may find room")
	s.trouble.mu.Lock()
	s.trouble.last = s.trouble.last.Add(-settled)
	s.trouble.mu.Unlock()
	require.NoError(t, s.tryWrite(t.Context()))
	require.True(t, s.TakesWrites())
	var left int
	require.NoError(t, s.Reads().QueryRow("SELECT count(*) FROM installation").Scan(&left))
	require.Zero(t, left)
}

// TestWithoutAWriterNothingWaits: a database that is opened to be looked at refuses
// what would be written, and closes.
func TestWithoutAWriterNothingWaits(t *testing.T) {
	t.Parallel()
	var o Options
	openDB(t, func(x *Options) { o = *x })
	o.Peek, o.Migrate = true, false
	d, err := Open(t.Context(), o)
	require.NoError(t, err)
	runs := 0
	require.ErrorContains(t, d.Do(context.Background(), 1, insert("a", &runs)), "without a writer")
	require.NoError(t, d.Close())
	require.Zero(t, runs)
}

// TestALockThatIsHeldIsKept: asking twice is a mistake, and must not leave the lock
// behind when the database is closed.
func TestALockThatIsHeldIsKept(t *testing.T) {
	t.Parallel()
	var o Options
	d := openDB(t, func(x *Options) { o = *x })
	require.NoError(t, d.LockEngine())
	require.ErrorContains(t, d.LockEngine(), "another server")
	require.NoError(t, d.Close())
	again, err := Open(t.Context(), o)
	require.NoError(t, err)
	require.NoError(t, again.LockEngine())
	require.NoError(t, again.Close())
}
