package queue

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"slices"
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
	queries := map[string]string{"tenants due": dueTenants, "due": selectDue, "resolve users": resolveUserDevices, "resolve devices": resolveDevices, "has worked": lastWorked, "last address": lastAddress, "ask refusals": askRefusals, "ask successes": askSuccesses, "lease": lease, "finish": finishAttempt,
		"keep": keepAttempt, "unknown": unknownAttempt, "idempotency": selectIdempotency,
		"move newest": moveNewest, "drop superseded": dropSuperseded, "set superseded": setSuperseded, "newest": selectNewest, "replay": replayDead, "newer than dead": newerThanDead}
	queries["purge device events"], queries["purge idempotency"], queries["find sensitive"] = purgeDeviceEvents, purgeIdempotency, findSensitive
	queries["remove content"], queries["oldest"], queries["for deleted endpoints"] = removeContent, oldest, selectForDeleted
	for i, q := range []string{windowOfUnfinished, windowOfUsersDeliveries, windowOfDevices, windowOfUsersDevices, windowOfEndpoints, windowOfUsersEndpoints,
		windowOfPairsDevices, waitingForApp, fmt.Sprintf(windowOfAppsDevices, "1=1"), fmt.Sprintf(windowOfAppsDeliveries, "1=1")} {
		queries[fmt.Sprint("affected ", i)] = q
	}
	queries["page of a user"], queries["page of bound"], queries["subscribers"] = pageOfDevices, pageOfBound, resolveUnbound
	inOrder := []string{"page of a user", "page of bound", "subscribers"} // nothing is sorted: a page reads what it returns
	queries["any of users"], queries["any bound"] = resolveUserDevices+anyOfThem, resolveBound+anyOfThem
	inOrder = append(inOrder, "any of users", "any bound")
	queries["scheduled tenants"], queries["scheduled"], queries["stored targets"], queries["overtaken"] = dueScheduledTenants, dueScheduled, storedTargets, dropOvertaken
	queries["count holds"], queries["list holds"] = countHolds, listHolds
	queries["standing wait"], queries["newer bring"], queries["one wait"] = standingWait, newerBring, oneWait
	queries["list waits"], queries["put wait"], queries["end wait"], queries["new trouble"], queries["purge waits"] = listWaits, putWait, endWait, newTrouble, purgeWaits
	queries["bring forward"], queries["send now"], queries["replay"], queries["resend"] = bringForward, sendNow, replayDead, resendHook
	queries["window of an endpoint"], queries["window of a credential"] = windowOfEndpoint, windowOfCredential
	queries["walk ended"] = fmt.Sprintf(walkEnded, "1=1", "")
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
			for _, table := range []string{"d", "deliveries", "a", "attempts", "n", "notifications", "k", "skips", "u", "devices", "device_events", "endpoints", "h", "holds", "shared_refusals", "shared_successes", "w", "newest", "f", "fanouts", "e"} {
				require.NotEqual(t, "SCAN "+table, detail, "%s reads a whole table", name)
				require.False(t, strings.HasPrefix(detail, "SCAN "+table+" USING"), "%s reads a whole index: %s", name, detail)
			}
			require.False(t, slices.Contains(inOrder, name) && strings.Contains(detail, "TEMP B-TREE"), "%s: %s", name, detail)
			if detail == "SCAN p" || detail == "SCAN payloads" {
				t.Errorf("%s reads all contents", name)
			}
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
	}
}

// TestTheWalksFollowTheirIndexes on PostgreSQL, too: a step costs
// what its window holds, wherever in a long queue it is.
func TestTheWalksFollowTheirIndexes(t *testing.T) {
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
	explain := func(query string, args ...any) (plan string) {
		rows, err := d.Lists().Query("EXPLAIN "+query, args...)
		require.NoError(t, err)
		for rows.Next() {
			var line string
			require.NoError(t, rows.Scan(&line))
			plan += line + "\n"
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		require.NotContains(t, plan, "Seq Scan on deliveries")
		return plan
	}
	window := []any{1, 1, 15000, 15000, 15000, 7, deletionWindow}
	for name, plan := range map[string]string{
		"for deleted endpoints": explain(selectForDeleted, window...),
		"of an endpoint":        explain(windowOfEndpoint, append([]any{1, 0, 7}, window...)...),
		"of a credential":       explain(windowOfCredential, append([]any{1, 0, 3, "default", "key", "key", "key", "https://a/", 10, "https://a/"}, window...)...),
	} {
		require.Contains(t, plan, "Index Scan using deliveries_due", name)
		require.Regexp(t, `Presorted Key: (d\.)?due_at`, plan, name)
	}
	require.Contains(t, explain(fmt.Sprintf(walkEnded, "1=1", ""), 4, 27, 1, 1, 100, 20000, 100, 7, 100), "Index Scan using deliveries_pkey")
}

// TestUnfinishedIsCountedAlongAnIndex: what has ended costs a count nothing, and
// no more than one sum is in memory.
func TestUnfinishedIsCountedAlongAnIndex(t *testing.T) {
	t.Parallel()
	d := openDB(t, filepath.Join(t.TempDir(), "c.db"))
	require.Equal(t, []string{"SCAN deliveries USING INDEX deliveries_due"}, planOf(t, d, unfinishedDeliveries, 1), "in its order, without sorting")
	require.Equal(t, []string{"SCAN fanouts USING COVERING INDEX fanouts_tenant"}, planOf(t, d, unfinishedScheduled), "its key begins with the tenant")
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

// TestAPurgeFollowsWhatIsPastItsTime: by ranges of a key that begins with the tenant, and
// never by way of the notifications that are kept.
func TestAPurgeFollowsWhatIsPastItsTime(t *testing.T) {
	t.Parallel()
	d := openDB(t, filepath.Join(t.TempDir(), "c.db"))
	for query, first := range map[string]string{
		findSensitive: "SEARCH p USING INDEX payloads_sensitive",
		findContent:   "SEARCH p USING COVERING INDEX payloads_tenant (tenant_id=? AND notification_id>? AND notification_id<?)",
	} {
		plan := planOf(t, d, query, make([]any, map[string]int{findSensitive: 1, findContent: 7}[query])...)
		require.True(t, strings.HasPrefix(plan[0], first) || strings.HasPrefix(plan[0], strings.Replace(first, "SEARCH", "SCAN", 1)), plan[0])
		require.Contains(t, plan, "SEARCH n USING PRIMARY KEY (tenant_id=? AND id=?)")
	}
	for _, p := range purges {
		plan := planOf(t, d, p.query, make([]any, strings.Count(p.query, "?"))...)
		require.NotContains(t, strings.Join(plan, "\n"), "TEMP B-TREE", p.what)
	}
	require.Contains(t, strings.Join(planOf(t, d, contentWindow, make([]any, 4)...), "\n"), "INDEX payloads_tenant (tenant_id=? AND notification_id>? AND notification_id<?)")
}

// TestPostgresPurgesByIndex: the same where statistics decide, with a history of which
// most is kept.
func TestPostgresPurgesByIndex(t *testing.T) {
	t.Parallel()
	d := openDB(t, pgtest.Empty(t))
	const rows = 200_000
	require.NoError(t, d.Do(t.Context(), 1, func(x *db.Tx) error {
		for _, fill := range []string{
			`INSERT INTO notifications (tenant_id,id,lane,type,created_at,send_at,flags,targets) SELECT 1+i%2,i,1,'',i,i,0,1 FROM generate_series(1,?) AS i`,
			`INSERT INTO payloads (notification_id,tenant_id,sensitive,body) SELECT i,1+i%2,0,'' FROM generate_series(1,?) AS i`,
			`INSERT INTO deliveries (tenant_id,notification_id,target_id,channel,lane,state,reason,device_epoch,credential_id,due_at,expires_at,claim,
 hold_id,round,spent,attempts,takeovers,flags,renewed,updated_at,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id)
 SELECT 1+i%2,i,7,4,1,CASE WHEN i%3=0 THEN 6 ELSE 4 END,0,0,0,i,i,0,0,1,0,0,0,0,0,i,0,0,0,0,0,'','','' FROM generate_series(1,?) AS i`,
		} {
			if err := x.Exec(fill, rows); err != nil {
				return err
			}
		}
		for _, table := range []string{"notifications", "payloads", "deliveries", "attempts", "skips"} {
			if err := x.Exec("ANALYZE " + table); err != nil {
				return err
			}
		}
		return nil
	}))
	c := cut{tenant: 1, rowID: 2000, sentID: 4000, deadID: 2000, rowAt: 2000, sentAt: 4000, deadAt: 2000}
	queries := map[string][]any{
		contentWindow: {c.tenant, 1000, c.sentID, walkWindow},
		findContent:   {c.tenant, 1000, 4000, c.sentAt, c.deadID, c.deadAt, 1000},
		findSensitive: {1000},
	}
	for _, p := range purges {
		queries[p.query] = append(p.args(c), 1000)
	}
	for query, args := range queries {
		rows, err := d.Lists().Query("EXPLAIN "+query, args...)
		require.NoError(t, err, query)
		plan := strings.Join(collectText(t, rows), "\n")
		for _, table := range []string{"notifications", "payloads", "deliveries"} {
			require.NotContains(t, plan, "Seq Scan on "+table, "%s\n%s", query, plan)
		}
		require.NotContains(t, plan, "deliveries_due", "what waits may be much: %s\n%s", query, plan)
	}
}

func collectText(t *testing.T, rows *sql.Rows) []string {
	lines, err := db.Collect(rows, func(r *sql.Rows) (line string, err error) { return line, r.Scan(&line) })
	require.NoError(t, err)
	return lines
}

// TestTheNewestIsFoundByItsKeys on PostgreSQL, too, where many are written together.
func TestTheNewestIsFoundByItsKeys(t *testing.T) {
	t.Parallel()
	d := openDB(t, pgtest.Empty(t))
	require.NoError(t, d.Do(t.Context(), 1, func(x *db.Tx) error {
		if err := x.Exec(`INSERT INTO deliveries (tenant_id,notification_id,target_id,channel,lane,state,reason,device_epoch,credential_id,due_at,expires_at,claim,
 hold_id,order_key,replaces,round,spent,attempts,takeovers,flags,renewed,updated_at,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id)
 SELECT 1,i,7,1,1,CASE WHEN i%3=0 THEN 4 ELSE 1 END,0,0,0,i,i,0,0,i%100,i-1,1,0,0,0,0,0,0,0,0,0,0,0,'','','' FROM generate_series(1,30000) AS i`); err != nil {
			return err
		}
		if err := x.Exec(`INSERT INTO newest SELECT 1,i%300,i,i,0,0 FROM generate_series(1,30000) AS i`); err != nil {
			return err
		}
		if err := x.Exec("ANALYZE deliveries"); err != nil {
			return err
		}
		return x.Exec("ANALYZE newest")
	}))
	some := []int64{1, 2, 3}
	for name, q := range map[string]struct {
		query string
		args  []any
	}{
		"newest":          {selectNewest, []any{1, 7, 7}},
		"move":            {moveNewestTogether, []any{some, some, some, some, 1, 1}},
		"lock":            {lockDeliveries, []any{some, some, some}},
		"drop":            {dropSupersededTogether, []any{some, some, some, some, 5, 24, 1}},
		"older in hand":   {olderInHand, []any{1, 7, 29000, 1, mostOlder}},
		"replay":          {replayDead, []any{1, 0, 1, 1, 0, 1, 1, 9, 7, 9, 1}},
		"newer than dead": {newerThanDead, []any{1, 9, 7}},
		"stored targets":  {storedTargets, []any{1, 7, "[1]"}},
		"overtaken":       {dropOvertaken, []any{5, 24, 1, 1, 7, "[1]"}},
		"purge newest":    {purges[1].query, []any{1, 1000, 1000, 100}},
	} {
		rows, err := d.Lists().Query("EXPLAIN "+q.query, q.args...)
		require.NoError(t, err, name)
		plan := ""
		for rows.Next() {
			var line string
			require.NoError(t, rows.Scan(&line))
			plan += line + "\n"
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		require.NotContains(t, plan, "Seq Scan on deliveries", "%s\n%s", name, plan)
		require.NotContains(t, plan, "Seq Scan on newest", "%s\n%s", name, plan)
	}
}
