package registers

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/store/db"
)

// TestRestoringLooksAtOneWindow: a step costs what its window holds, whatever the
// filter asks for and however many devices there are.
func TestRestoringLooksAtOneWindow(t *testing.T) {
	t.Parallel()
	at := time.Now()
	condition, args := restorable(devices.RestoreFilter{Reason: "x", App: "a", User: "u", Credential: 1, Version: 1, Since: at, Until: at, Channel: 1}, at)
	plan := planOf(t, selectRestorable(condition), append(args, 1, 1, 1)...)
	require.Equal(t, "SEARCH d USING INDEX devices_tenant (tenant_id=? AND id>?)", plan[0])
	require.NotContains(t, strings.Join(plan, "\n"), "SCAN d")
	require.NotContains(t, strings.Join(plan, "\n"), "SCAN u")
	require.NotContains(t, strings.Join(plan, "\n"), "TEMP B-TREE", "in the order of the index")
}

// TestAnExportReadsOnePage: it costs what it returns, however many devices there are, and no index
// is passed over for a sort.
func TestAnExportReadsOnePage(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"SEARCH d USING INDEX devices_tenant (tenant_id=? AND id>?)", "SEARCH u USING COVERING INDEX users_id (tenant_id=? AND id=?)"},
		planOf(t, selectDevicesAfter, 1, 1, devices.ExportPage))
}

// TestTheHistoryOfADeviceCostsItsEvents: whatever has happened to others.
func TestTheHistoryOfADeviceCostsItsEvents(t *testing.T) {
	t.Parallel()
	for _, query := range []string{selectDeviceEvents, trimDeviceEvents} {
		plan := strings.Join(planOf(t, query, 1, 1, 1), "\n")
		require.Contains(t, plan, "INDEX device_events_device (tenant_id=? AND device_id=?)")
		require.NotContains(t, plan, "SCAN")
		require.NotContains(t, plan, "TEMP B-TREE")
	}
}

// TestSubscriptionsAreCountedByTheirIndex: never by a walk through all devices.
func TestSubscriptionsAreCountedByTheirIndex(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		boundToPair: "INDEX devices_address (tenant_id=? AND channel=? AND app=?)",
		wrongPairs:  "USING INDEX devices_doubt",
	} {
		plan := strings.Join(planOf(t, query, make([]any, strings.Count(query, "?"))...), "\n")
		require.Contains(t, plan, want)
		require.NotContains(t, plan, "SCAN devices\n")
	}
	require.NotContains(t, planOf(t, boundToPair, make([]any, 4)...), "USE TEMP B-TREE FOR ORDER BY", "in the order of the index")
}

// TestAVersionIsPutAtTheCostOfItsCredential: whatever versions others have.
func TestAVersionIsPutAtTheCostOfItsCredential(t *testing.T) {
	t.Parallel()
	for _, query := range []string{selectVersions, trimVersions} {
		plan := strings.Join(planOf(t, query, make([]any, strings.Count(query, "?"))...), "\n")
		require.Contains(t, plan, "SEARCH credential_versions USING PRIMARY KEY (credential_id=?")
		require.NotContains(t, plan, "SCAN credential_versions")
		require.NotContains(t, plan, "TEMP B-TREE")
	}
}

// TestDeletingAnAppLooksAtOneWindow: a step costs what its window holds, however many
// devices others have.
func TestDeletingAnAppLooksAtOneWindow(t *testing.T) {
	t.Parallel()
	plan := strings.Join(planOf(t, selectAppsDevices, 1, 1, 1, "a", []byte{}, 1), "\n")
	require.Contains(t, plan, "INDEX devices_address (tenant_id=? AND channel=? AND app=? AND address_hash>?)")
	require.NotContains(t, plan, "TEMP B-TREE", "in the order of the index")
}

// TestAppsOfDevicesAreFoundByTheirIndex: the list costs what there is of apps, not of
// devices, and reads no row.
func TestAppsOfDevicesAreFoundByTheirIndex(t *testing.T) {
	t.Parallel()
	plan := strings.Join(planOf(t, appsOfDevices, 1, 1, 1), "\n")
	require.Contains(t, plan, "SEARCH devices USING COVERING INDEX devices_address (tenant_id=? AND channel=?)")
	require.Contains(t, plan, "SEARCH devices USING COVERING INDEX devices_address (tenant_id=? AND channel=? AND app>?)")
	require.NotContains(t, plan, "SCAN devices")
	require.NotContains(t, plan, "TEMP B-TREE")
	require.Contains(t, strings.Join(planOf(t, appHasDevices, 1, 1, "a"), "\n"), "COVERING INDEX devices_address (tenant_id=? AND channel=? AND app=?)")
	require.Contains(t, strings.Join(planOf(t, goingApps, 1, 1), "\n"), "INDEX jobs_due")
}

// TestPlacesOfAnInstallationAreFoundByTheirIndex: a registration costs what its
// installation and its user have, and what has ended costs what there is of it.
func TestPlacesOfAnInstallationAreFoundByTheirIndex(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		devicesByInstallation: "SEARCH d USING INDEX devices_installation (tenant_id=? AND app=? AND installation_id=? AND channel=? AND purpose=? AND activity_id=?)",
		devicesByAddress:      "SEARCH d USING INDEX devices_address (tenant_id=? AND channel=? AND app=? AND address_hash=?)",
		usersByName:           "SEARCH u USING PRIMARY KEY (tenant_id=? AND external_id=?)",
		forgetActivities:      "INDEX devices_installation (tenant_id=? AND app=? AND installation_id=? AND channel=? AND purpose=?)",
		forgetInstallations:   "INDEX devices_user (tenant_id=? AND user_id=?)",
		dropEnded:             "INDEX devices_activities (expires_at<?)",
	} {
		n := strings.Count(query, "?")
		if strings.Contains(query, "?1") {
			n = map[string]int{forgetActivities: 9, forgetInstallations: 4, dropEnded: 2, usersByName: 2, devicesByAddress: 2, devicesByInstallation: 2}[query]
		}
		plan := strings.Join(planOf(t, query, make([]any, n)...), "\n")
		require.Contains(t, plan, want)
		require.NotContains(t, plan, "SCAN devices")
		require.NotContains(t, plan, "SCAN d")
	}
}

func openDB(t *testing.T) *db.DB {
	t.Helper()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	d, err := db.Open(t.Context(), db.Options{URL: filepath.Join(t.TempDir(), "c.db"), KeyRing: ring, Migrate: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// planOf is what SQLite is going to do for a query.
func planOf(t *testing.T, query string, args ...any) (plan []string) {
	t.Helper()
	d := openDB(t)
	rows, err := d.Reads().Query("EXPLAIN QUERY PLAN "+query, args...)
	require.NoError(t, err)
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
	return plan
}

// TestKeysetsAreWalkedInOrder: a step of a reseal reads its tenants, or its endpoints, and
// no others.
func TestKeysetsAreWalkedInOrder(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"SEARCH tenants USING INTEGER PRIMARY KEY (rowid>?)"}, planOf(t, selectKeysets, 1, 1))
	require.Equal(t, []string{"SEARCH e USING INTEGER PRIMARY KEY (rowid>?)", "SEARCH t USING INTEGER PRIMARY KEY (rowid=?) LEFT-JOIN"}, planOf(t, selectURLs, 1, 1))
}

// TestCountsFollowAnIndex: what tenants have is counted without a look at the rows.
func TestCountsFollowAnIndex(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"SCAN devices USING COVERING INDEX devices_tenant"}, planOf(t, countDevices))
	require.Equal(t, []string{"SCAN endpoints USING COVERING INDEX endpoints_tenant"}, planOf(t, countEndpoints))
}

// TestListsOfDevicesCostWhatTheyLookAt: an index leads to each device of a page and of its
// window, whatever is filtered.
func TestListsOfDevicesCostWhatTheyLookAt(t *testing.T) {
	t.Parallel()
	s := &deviceRegister{db: openDB(t)}
	f := devices.Filter{Channel: channels.FCM, Status: devices.Suspect, App: "a", After: 1}
	for user, index := range map[string]string{"": "INDEX devices_tenant (tenant_id=? AND id>?)", "alice": "INDEX devices_user (tenant_id=? AND user_id=?"} {
		f.User = user
		st := s.window(t.Context(), 1, f).Session(&gorm.Session{DryRun: true}).Find(&[]map[string]any{}).Statement
		plan := planOf(t, st.SQL.String(), st.Vars...)
		require.Contains(t, plan[0], index)
		require.NotContains(t, strings.Join(plan, "\n"), "SCAN")
	}
}
