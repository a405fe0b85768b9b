package queue

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestQueriesUseTheirIndexes: what runs all the time costs what it finds, not
// what the history weighs.
func TestQueriesUseTheirIndexes(t *testing.T) {
	t.Parallel()
	d := openDB(t, filepath.Join(t.TempDir(), "c.db"))
	queries := map[string]string{"tenants due": dueTenants, "due": selectDue, "resolve users": resolveUserDevices, "resolve devices": resolveDevices, "has worked": hasWorked, "ask refusals": askRefusals, "ask successes": askSuccesses, "lease": lease, "finish": finishAttempt,
		"keep": keepAttempt, "unknown": unknownAttempt, "idempotency": selectIdempotency}
	queries["purge device events"], queries["purge idempotency"], queries["find sensitive"], queries["find content"] = purgeDeviceEvents, purgeIdempotency, findSensitive, findContent
	queries["remove content"], queries["oldest"] = removeContent, oldest
	for i, q := range []string{windowOfUnfinished, windowOfUsersDeliveries, windowOfDevices, windowOfUsersDevices, windowOfEndpoints, windowOfUsersEndpoints,
		windowOfPairsDevices, waitingForApp, fmt.Sprintf(windowOfAppsDevices, "1=1"), fmt.Sprintf(windowOfAppsDeliveries, "1=1")} {
		queries[fmt.Sprint("affected ", i)] = q
	}
	queries["count holds"], queries["list holds"] = countHolds, listHolds
	for _, p := range purges {
		queries["purge "+p.what] = p.query
	}
	for name, q := range queries {
		rows, err := d.Reads().Query("EXPLAIN QUERY PLAN "+q, make([]any, strings.Count(q, "?"))...)
		if err != nil && strings.Contains(q, "?1") {
			rows, err = d.Reads().Query("EXPLAIN QUERY PLAN "+q, 1, 1)
		}
		require.NoError(t, err, name)
		for rows.Next() {
			var (
				id, parent, unused int
				detail             string
			)
			require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
			for _, table := range []string{"d", "deliveries", "a", "attempts", "n", "notifications", "k", "skips", "u", "devices", "device_events", "endpoints", "h", "holds", "shared_refusals", "shared_successes"} {
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
