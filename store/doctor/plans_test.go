package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/db"
)

// TestLooksCostWhatTheyTellOf: what is unfinished, or the dead letters of a day, and
// not the history.
func TestLooksCostWhatTheyTellOf(t *testing.T) {
	t.Parallel()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	d, err := db.Open(t.Context(), db.Options{URL: filepath.Join(t.TempDir(), "c.db"), KeyRing: ring, Migrate: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	for query, want := range map[string]string{
		selectOldest:     "SEARCH n USING PRIMARY KEY (tenant_id=?)",
		selectInHand:     "SCAN deliveries USING INDEX deliveries_due",
		selectDeadLately: "SEARCH d USING INDEX deliveries_dead (tenant_id=? AND updated_at>?)",
	} {
		rows, err := d.Reads().Query("EXPLAIN QUERY PLAN "+query, make([]any, strings.Count(query, "?"))...)
		require.NoError(t, err)
		var plan []string
		for rows.Next() {
			var id, parent, unused int
			var detail string
			require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
			plan = append(plan, detail)
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		require.Contains(t, plan, want)
	}
}
