package store_test

import (
	"database/sql"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
)

// Nodes on SQLite do not beat, so that a test can let one be silent.
func TestWhatASilentNodeToldDoesNotCount(t *testing.T) {
	t.Parallel()
	o := options(t)
	k := opened(t, o)
	a, _ := k.Join(delivery.RoleAll)
	b, _ := k.Join(delivery.RoleAll)
	now := o.clock.Now()
	verdicts := []delivery.Verdicts{{Credential: 1, Version: 1, Seen: 1, Gone: 1, Since: now, Newest: now}}
	_, err := a.Exchange(t.Context(), delivery.NodeState{Verdicts: verdicts})
	require.NoError(t, err)
	for _, x := range []struct {
		after time.Duration
		want  int
	}{{6 * time.Second, 1}, {time.Millisecond, 0}} {
		o.clock.Advance(x.after)
		raw(t, o, "UPDATE nodes SET beat_at=? WHERE beat_at>0 AND id=(SELECT max(id) FROM nodes)", o.clock.Now().UnixMilli())
		got, err := b.Exchange(t.Context(), delivery.NodeState{Uses: []delivery.Use{{Kind: 1, Subject: 1, PerSecond: 1}}})
		require.NoError(t, err)
		require.Len(t, got.Verdicts, x.want)
		require.Equal(t, 1+x.want, got.Serving)
	}
}

func TestWhatNobodyReadsIsForgotten(t *testing.T) {
	t.Parallel()
	o := options(t)
	k := opened(t, o)
	a, leave := k.Join(delivery.RoleAll)
	b, _ := k.Join(delivery.RoleAll)
	now := o.clock.Now()
	_, err := b.Exchange(t.Context(), delivery.NodeState{}) // looks for what there is to forget
	require.NoError(t, err)
	_, err = a.Exchange(t.Context(), delivery.NodeState{
		Gates:    []delivery.SharedGate{{Subject: 1, Until: now.Add(time.Second)}, {Subject: 2, Until: now.Add(time.Hour)}},
		Verdicts: []delivery.Verdicts{{Credential: 1, Version: 1, Seen: 1, Newest: now.Add(-time.Hour)}, {Credential: 2, Version: 1, Seen: 1, Newest: now}},
		Uses:     []delivery.Use{{Kind: 1, Subject: 1, PerSecond: 1}},
	})
	require.NoError(t, err)
	count := func() (n [3]int) {
		db, err := sql.Open("sqlite", "file:"+o.URL)
		require.NoError(t, err)
		defer func() { require.NoError(t, db.Close()) }()
		require.NoError(t, db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM shared_gates), (SELECT count(*) FROM shared_verdicts),
 (SELECT count(*) FROM shared_uses)`).Scan(&n[0], &n[1], &n[2]))
		return n
	}
	exchange := func(after time.Duration) [3]int {
		o.clock.Advance(after)
		_, err := b.Exchange(t.Context(), delivery.NodeState{})
		require.NoError(t, err)
		return count()
	}
	require.Equal(t, [3]int{2, 2, 1}, exchange(59*time.Second), "it was looked for less than a minute ago")
	require.Equal(t, [3]int{1, 1, 0}, exchange(3*time.Second))
	leave()
	require.Equal(t, [3]int{1, 1, 0}, exchange(time.Second))
	require.Equal(t, [3]int{1, 0, 0}, exchange(time.Minute), "its node has left")
}
