package api

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func restoreOf(body string) request {
	return request{method: "POST", path: "/v1/devices/restore", key: keyWith(tenants.Devices), body: body}
}

func TestRestoresOfDevicesBecomeOrders(t *testing.T) {
	t.Parallel()
	w := setup(t)
	credential := ids.ID(1 << 40)
	r := restoreOf(`{"filter":{"status":"suspect","reason":"fcm.unregistered","channel":"fcm","app":"shop","user":"u1","credential":"` + credential.Format(ids.Credential) +
		`","version":3,"since":"2026-01-01T00:00:00Z","until":"2026-02-01T00:00:00Z"}}`)
	r.header = map[string]string{idempotencyHeader: "once"}
	j := jsonIn[Job](t, w.do(t, r), 202)
	require.Equal(t, theJob.Format(ids.Job), j.ID)
	o := w.engine.restore
	require.Equal(t, devices.RestoreFilter{Status: devices.Suspect, Reason: "fcm.unregistered", Channel: channels.FCM, App: "shop", User: "u1", Credential: credential, Version: 3,
		Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Until: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)}, o.Filter)
	require.Equal(t, tenantA, o.Tenant)
	require.NotEmpty(t, o.Actor)
	require.Equal(t, "once", o.Idempotency.Key)
	require.Equal(t, restoreRoute, o.Idempotency.Route)
	require.Equal(t, []string{"stored", "restore devices"}, w.did)
}

func TestADryRunOfARestoreOnlyCounts(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := restoreOf(`{"filter":{"app":"shop"},"dry_run":true}`)
	require.Equal(t, DeviceRestorePreview{DryRun: true, Matching: 7, LowerBound: true}, jsonIn[DeviceRestorePreview](t, w.do(t, r), 200))
	require.Equal(t, devices.RestoreFilter{App: "shop"}, w.engine.restore.Filter)
	w.engine.exact = true
	require.Equal(t, DeviceRestorePreview{DryRun: true, Matching: 7}, jsonIn[DeviceRestorePreview](t, w.do(t, r), 200))
	require.Equal(t, []string{"count restorable", "count restorable"}, w.did)
}

// TestSuspectsAreRetiredByFilter: the same call, for suspects only.
func TestSuspectsAreRetiredByFilter(t *testing.T) {
	t.Parallel()
	w := setup(t)
	retire := func(body string) request {
		r := restoreOf(body)
		r.path = "/v1/devices/retire"
		return r
	}
	jsonIn[Job](t, w.do(t, retire(`{"filter":{"app":"shop"}}`)), 202)
	require.True(t, w.engine.restore.Retire)
	require.Equal(t, devices.RestoreFilter{Status: devices.Suspect, App: "shop"}, w.engine.restore.Filter)
	require.Equal(t, DeviceRestorePreview{DryRun: true, Matching: 7, LowerBound: true},
		jsonIn[DeviceRestorePreview](t, w.do(t, retire(`{"filter":{"app":"shop"},"dry_run":true}`)), 200))
	w.do(t, restoreOf(`{"filter":{"app":"shop"}}`))
	require.False(t, w.engine.restore.Retire)
	p := problemIn(t, w.do(t, retire(`{"filter":{}}`)))
	require.Equal(t, "filter", p.Errors[0].Path)
}

func TestFaultsOfARestoreAreAllNamed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	long := strings.Repeat("x", 256)
	for body, want := range map[string][]string{
		`{}`:                                  {"filter"},
		`{"filter":{"status":"suspect"}}`:     {"filter"},
		`{"filter":{"status":"active"}}`:      {"filter.status"},
		`{"filter":{"version":3}}`:            {"filter.version"},
		`{"filter":{"version":-1}}`:           {"filter.version", "filter.version"},
		`{"filter":{"channel":"webhook"}}`:    {"filter.channel"},
		`{"filter":{"devices":["dev_1"]}}`:    {"filter.devices"},
		`{"filter":{"app":"a"},"force":true}`: {"force"},
		`{"filter":{"credential":"dev_1","reason":"` + long + `","app":"` + long + `","user":"` + long + `"}}`: {
			"filter.credential", "filter.reason", "filter.app", "filter.user"},
		`{"filter":{"since":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"}}`: {"filter.until"},
	} {
		p := problemIn(t, w.do(t, restoreOf(body)))
		require.Equal(t, problem.Invalid, p.Code)
		var got []string
		for _, x := range p.Errors {
			got = append(got, x.Path)
		}
		require.Equal(t, want, got, body)
	}
	require.Empty(t, w.did)
}
