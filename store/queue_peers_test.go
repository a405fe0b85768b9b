package store_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/storetest"
)

// joins opens the database as one more node.
func joins(t *testing.T, o testOptions) func(role string) (storetest.Store, func()) {
	t.Helper()
	return func(role string) (storetest.Store, func()) {
		o := o
		o.IDs = ids.NewGenerator(0, o.Now)
		s := open(t, o)
		if db.IsPostgres(o.URL) {
			require.NoError(t, s.Join(t.Context(), db.Node{Role: role}))
		} else { // where no second server can join, but commands can
			require.NoError(t, s.Join(t.Context(), db.Node{Role: db.RoleCommand}))
			_, err := onFile(t, o).ExecContext(t.Context(), "UPDATE nodes SET role=? WHERE id=?", role, o.IDs.Node())
			require.NoError(t, err)
		}
		return s, func() { require.NoError(t, s.Close()) }
	}
}

// onFile opens the file of an SQLite database, and skips a test that is not on one:
// its nodes do not beat, so that the test can let one be silent.
func onFile(t *testing.T, o testOptions) *sql.DB {
	t.Helper()
	if db.IsPostgres(o.URL) {
		t.Skip("nodes on PostgreSQL beat by themselves")
	}
	db, err := sql.Open("sqlite", "file:"+o.URL+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

func TestWhatASilentNodeToldDoesNotCount(t *testing.T) {
	t.Parallel()
	o := options(t)
	join, db := joins(t, o), onFile(t, o)
	a, _ := join(delivery.RoleAll)
	b, _ := join(delivery.RoleAll)
	now := o.clock.Now()
	verdicts := []delivery.Verdicts{{Credential: 1, Version: 1, Seen: 1, Gone: 1, Since: now, Newest: now}}
	_, err := a.Exchange(t.Context(), delivery.NodeState{Verdicts: verdicts})
	require.NoError(t, err)
	for _, x := range []struct {
		after time.Duration
		want  int
	}{{6 * time.Second, 1}, {time.Millisecond, 0}} {
		o.clock.Advance(x.after)
		_, err := db.ExecContext(t.Context(), "UPDATE nodes SET beat_at=? WHERE id=(SELECT max(id) FROM nodes)", o.clock.Now().UnixMilli())
		require.NoError(t, err)
		got, err := b.Exchange(t.Context(), delivery.NodeState{Uses: []delivery.Use{{Kind: 1, Subject: 1, PerSecond: 1}}})
		require.NoError(t, err)
		require.Len(t, got.Verdicts, x.want)
		require.Equal(t, 1+x.want, got.Serving)
	}
}

func TestWhatNobodyReadsIsForgotten(t *testing.T) {
	t.Parallel()
	o := options(t)
	join, db := joins(t, o), onFile(t, o)
	a, leave := join(delivery.RoleAll)
	b, _ := join(delivery.RoleAll)
	now := o.clock.Now()
	_, err := b.Exchange(t.Context(), delivery.NodeState{}) // looks for what there is to forget
	require.NoError(t, err)
	_, err = a.Exchange(t.Context(), delivery.NodeState{
		Verdicts: []delivery.Verdicts{{Credential: 1, Version: 1, Seen: 1, Newest: now.Add(-time.Hour)}, {Credential: 2, Version: 1, Seen: 1, Newest: now}},
		Uses:     []delivery.Use{{Kind: 1, Subject: 1, PerSecond: 1}},
	})
	require.NoError(t, err)
	count := func() (n [2]int) {
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM shared_verdicts),
 (SELECT count(*) FROM shared_uses)`).Scan(&n[0], &n[1]))
		return n
	}
	exchange := func(after time.Duration) [2]int {
		o.clock.Advance(after)
		_, err := b.Exchange(t.Context(), delivery.NodeState{})
		require.NoError(t, err)
		return count()
	}
	require.Equal(t, [2]int{2, 1}, exchange(59*time.Second), "it was looked for less than a minute ago")
	require.Equal(t, [2]int{1, 0}, exchange(3*time.Second))
	leave()
	require.Equal(t, [2]int{1, 0}, exchange(time.Second))
	require.Equal(t, [2]int{0, 0}, exchange(time.Minute), "its node has left")
}
