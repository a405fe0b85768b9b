package pgtest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/pgtest"
)

// TestCommitsSurviveTheirPrimary: what was committed is there after the primary
// is killed, twice, so that both nodes have been primary and standby.
func TestCommitsSurviveTheirPrimary(t *testing.T) {
	t.Parallel()
	started := time.Now()
	c := pgtest.StartCluster(t)
	t.Logf("started in %s", time.Since(started))
	url := c.URL("carillon")
	exec(t, url, "CREATE TABLE notes (id BIGINT PRIMARY KEY)")
	for round := range 2 {
		exec(t, url, "INSERT INTO notes VALUES ($1)", round)
		started = time.Now()
		require.NoError(t, c.KillPrimary())
		require.NoError(t, c.WaitForFailover())
		t.Logf("failed over in %s", time.Since(started))
		require.Equal(t, round+1, count(t, url, "SELECT count(*) FROM notes"))
		if round == 0 {
			started = time.Now()
			require.NoError(t, c.Restart())
			t.Logf("rejoined in %s", time.Since(started))
		}
	}
}
