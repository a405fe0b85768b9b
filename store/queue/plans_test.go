package queue

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// TestQueriesUseTheirIndexes: what runs all the time costs what it finds, not
// what the history weighs.
func TestQueriesUseTheirIndexes(t *testing.T) {
	t.Parallel()
	d := openDB(t, filepath.Join(t.TempDir(), "c.db"))
	queries := map[string]string{"tenants due": dueTenants, "due": selectDue, "resolve users": resolveUserDevices, "resolve devices": resolveDevices, "has worked": hasWorked, "ask refusals": askRefusals, "ask successes": askSuccesses, "lease": lease, "finish": finishAttempt,
		"keep": keepAttempt, "unknown": unknownAttempt, "idempotency": selectIdempotency}
	queries["purge device events"], queries["purge idempotency"], queries["find sensitive"], queries["find content"] = purgeDeviceEvents, purgeIdempotency, findSensitive, findContent
	queries["remove content"], queries["oldest"], queries["for deleted endpoints"] = removeContent, oldest, selectForDeleted
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

// TestTheWalkForDeletedEndpointsFollowsItsIndex on PostgreSQL, too: a step costs
// what its window holds, wherever in a long queue it is.
func TestTheWalkForDeletedEndpointsFollowsItsIndex(t *testing.T) {
	t.Parallel()
	d := openDB(t, pgtest.Empty(t))
	require.NoError(t, d.Do(t.Context(), 1, func(x *db.Tx) error {
		if err := x.Exec(`INSERT INTO deliveries (tenant_id,notification_id,target_id,channel,lane,state,reason,device_epoch,credential_id,due_at,expires_at,claim,
 hold_id,round,spent,attempts,takeovers,flags,renewed,updated_at,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id)
 SELECT 1+i%2,i,7,4,1,CASE WHEN i%3=0 THEN 4 ELSE 1 END,0,0,0,i,i,0,0,1,0,0,0,0,0,0,0,0,0,0,0,'','','' FROM generate_series(1,30000) AS i`); err != nil {
			return err
		}
		return x.Exec("ANALYZE deliveries")
	}))
	rows, err := d.Lists().Query("EXPLAIN "+selectForDeleted, 1, 1, 15000, 15000, 15000, 7, deletionWindow)
	require.NoError(t, err)
	plan := ""
	for rows.Next() {
		var line string
		require.NoError(t, rows.Scan(&line))
		plan += line + "\n"
	}
	require.NoError(t, rows.Err())
	require.NoError(t, rows.Close())
	require.Contains(t, plan, "Index Scan using deliveries_due")
	require.Contains(t, plan, "Presorted Key: d.due_at")
	require.NotContains(t, plan, "Seq Scan on deliveries")
}

// TestUnfinishedIsCountedAlongAnIndex: what has ended costs a count nothing, and
// no more than one sum is in memory.
func TestUnfinishedIsCountedAlongAnIndex(t *testing.T) {
	t.Parallel()
	d := openDB(t, filepath.Join(t.TempDir(), "c.db"))
	require.Equal(t, []string{"SCAN deliveries USING INDEX deliveries_due"}, planOf(t, d, unfinishedDeliveries, 1), "in its order, without sorting")
	require.Equal(t, []string{"SCAN fanouts"}, planOf(t, d, unfinishedScheduled), "its key begins with the tenant")
}

func planOf(t *testing.T, d *db.DB, query string, args ...any) (lines []string) {
	rows, err := d.Reads().Query("EXPLAIN QUERY PLAN "+query, args...)
	require.NoError(t, err)
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var (
			id, parent, unused int
			detail             string
		)
		require.NoError(t, rows.Scan(&id, &parent, &unused, &detail))
		lines = append(lines, detail)
	}
	require.NoError(t, rows.Err())
	return lines
}

// TestListsCostWhatTheyLookAt: an index leads to each row of a page and of its window, in
// the order of the list, whatever is filtered.
func TestListsCostWhatTheyLookAt(t *testing.T) {
	t.Parallel()
	d := openDB(t, filepath.Join(t.TempDir(), "c.db"))
	s := &reads{db: d}
	at := time.UnixMilli(1)
	everything := delivery.Query{State: delivery.Held, Reason: delivery.InDoubt, Channel: channels.FCM, Since: at, Until: at, Limit: 51,
		After: delivery.Cursor{Notification: 2, Target: 2, At: at}, To: delivery.Cursor{Notification: 1, Target: 1, At: at}}
	ofUser := everything
	ofUser.User = "alice"
	for name, x := range map[string]struct {
		query *gorm.DB
		index string
	}{
		"all":            {filtered(allDeliveries.rows(s.views(t.Context()), 1, everything), everything), "USING PRIMARY KEY (tenant_id=? AND (notification_id,target_id)"},
		"window":         {s.window(t.Context(), 1, everything, false), "USING PRIMARY KEY (tenant_id=?"},
		"first page":     {s.window(t.Context(), 1, delivery.Query{State: delivery.Held}, false), "USING PRIMARY KEY (tenant_id=?)"},
		"user":           {filtered(allDeliveries.rows(s.views(t.Context()), 1, ofUser), ofUser), "USING INDEX deliveries_user (tenant_id=? AND user_id=?"},
		"user's window":  {s.window(t.Context(), 1, ofUser, false), "INDEX deliveries_user (tenant_id=? AND user_id=?"},
		"dead":           {filtered(deadLetters.rows(s.views(t.Context()), 1, everything), everything), "USING INDEX deliveries_dead (tenant_id=? AND updated_at>? AND updated_at<?)"},
		"window of dead": {s.window(t.Context(), 1, everything, true), "INDEX deliveries_dead (tenant_id=? AND updated_at>? AND updated_at<?)"},
	} {
		st := x.query.Session(&gorm.Session{DryRun: true}).Find(&[]map[string]any{}).Statement
		plan := planOf(t, d, st.SQL.String(), st.Vars...)
		require.Contains(t, plan[0], x.index, name)
		require.NotContains(t, strings.Join(plan, "\n"), "TEMP B-TREE", name)
		require.NotContains(t, strings.Join(plan, "\n"), "SCAN", name)
	}
}
