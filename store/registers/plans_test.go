package registers

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/store/db"
)

// TestRestoringLooksAtOneWindow: a step costs what its window holds, whatever the
// filter asks for and however many devices there are.
func TestRestoringLooksAtOneWindow(t *testing.T) {
	t.Parallel()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	d, err := db.Open(t.Context(), db.Options{URL: filepath.Join(t.TempDir(), "c.db"), KeyRing: ring, Migrate: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, d.Close()) }()
	at := time.Now()
	condition, args := restorable(devices.RestoreFilter{Reason: "x", App: "a", User: "u", Credential: 1, Version: 1, Since: at, Until: at, Channel: 1}, at)
	rows, err := d.Reads().Query("EXPLAIN QUERY PLAN "+selectRestorable(condition), append(args, 1, 1, 1)...)
	require.NoError(t, err)
	var plan []string
	for rows.Next() {
		var (
			id, parent, unused int
			detail             string
		)
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		plan = append(plan, detail)
	}
	require.NoError(t, rows.Err())
	require.NoError(t, rows.Close())
	require.Equal(t, "SEARCH d USING INDEX devices_tenant (tenant_id=? AND id>?)", plan[0])
	require.NotContains(t, strings.Join(plan, "\n"), "SCAN d")
	require.NotContains(t, strings.Join(plan, "\n"), "SCAN u")
	require.NotContains(t, strings.Join(plan, "\n"), "TEMP B-TREE", "in the order of the index")
}
