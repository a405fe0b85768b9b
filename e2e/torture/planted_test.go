package torture_test

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHarnessFindsWhatIsPlanted breaks the promise behind the server's back, in
// its database, and sees that a round finds each fault: that the harness sees
// nothing elsewhere is worth something only because it sees these.
func TestHarnessFindsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	var serial atomic.Int64
	open := func(_ *testing.T, dir string) database { return newSQLite(dir) }
	a := newArena(t, open, 1, rng, newReport("sqlite", 1), &serial)
	const sent = `state=4 AND channel=1 AND round=1 AND attempts=1 AND flags=0 AND att_ambiguous=0`
	v := a.round(scenario{"planted", func(a *arena) {
		l := a.load(func(m *[wishes]int) { *m = [wishes]int{post: 1} }) // of which every one is answered
		l.begin()
		a.wait(l, 60)
		l.end()
		a.drain()
		a.fleet.nodes[0].kill(t)
		db, ok := a.fleet.db.(*sqlite)
		require.True(t, ok)
		plant(t, db.path,
			`DELETE FROM deliveries WHERE (notification_id,target_id) IN (SELECT notification_id,target_id FROM deliveries WHERE `+sent+` LIMIT 1)`,
			`UPDATE deliveries SET state=6, reason=0 WHERE (notification_id,target_id) IN (SELECT notification_id,target_id FROM deliveries WHERE `+sent+` LIMIT 1)`,
			`UPDATE deliveries SET state=1, due_at=1 WHERE (notification_id,target_id) IN (SELECT notification_id,target_id FROM deliveries WHERE `+sent+` LIMIT 1)`,
		)
	}})
	var kinds []string
	for _, f := range v.findings {
		kinds = append(kinds, f.Kind)
	}
	slices.Sort(kinds)
	require.Equal(t, []string{duplicate, lost, unexplained, unsound}, kinds, "%v", v.findings)
}

// plant changes one row by each statement.
func plant(t *testing.T, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, s := range statements {
		r, err := db.ExecContext(ctx, s)
		require.NoError(t, err)
		n, err := r.RowsAffected()
		require.NoError(t, err)
		require.EqualValues(t, 1, n, s)
	}
}
