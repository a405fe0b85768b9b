package devices_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/problem"
)

// TestStatusesHaveNames: these are in the API, and in the specs of jobs.
func TestStatusesHaveNames(t *testing.T) {
	t.Parallel()
	for s, name := range map[devices.Status]string{1: "active", 2: "suspect", 3: "retired"} {
		require.Equal(t, name, s.String())
		back, ok := devices.ParseStatus(name)
		require.True(t, ok)
		require.Equal(t, s, back)
	}
	_, ok := devices.ParseStatus("")
	require.False(t, ok)
	require.Equal(t, "status(9)", devices.Status(9).String())
}

// TestEventsHaveNames: the numbers are stored, the names are in the API.
func TestEventsHaveNames(t *testing.T) {
	t.Parallel()
	for k, name := range map[devices.EventKind]string{1: "registered", 2: "rebound", 3: "address_changed", 4: "suspected", 5: "retired", 6: "restored", 7: "deleted"} {
		require.Equal(t, name, k.String())
	}
	require.Equal(t, "event(9)", devices.EventKind(9).String())
}

func TestARestoreFilterIsReadBack(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, f := range map[string]devices.RestoreFilter{
		`{"status":"retired","reason":"x"}`: {Status: devices.Retired, Reason: "x"},
		`{"status":"suspect","reason":"x","channel":"fcm","app":"shop","user":"u","credential":"crd_000000000007d","version":3,"since":"2026-01-31T12:00:00Z","until":"2026-01-31T13:00:00Z"}`: {
			Status: devices.Suspect, Reason: "x", Channel: channels.FCM, App: "shop", User: "u", Credential: 237, Version: 3, Since: at, Until: at.Add(time.Hour)},
	} {
		b, err := json.Marshal(f)
		require.NoError(t, err)
		require.JSONEq(t, text, string(b))
		var back devices.RestoreFilter
		require.NoError(t, json.Unmarshal(b, &back))
		require.Equal(t, f, back)
	}
	b, err := json.Marshal(devices.RestoreFilter{App: "shop"})
	require.NoError(t, err)
	require.JSONEq(t, `{"status":"retired","app":"shop"}`, string(b), "retired, where nothing is said")
}

func TestFaultsOfARestoreFilter(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for _, x := range []struct {
		f    devices.RestoreFilter
		want []string
	}{
		{devices.RestoreFilter{}, []string{"filter"}},
		{devices.RestoreFilter{Status: devices.Suspect}, []string{"filter"}},
		{devices.RestoreFilter{Status: devices.Active, App: "a"}, []string{"filter.status"}},
		{devices.RestoreFilter{Version: 3}, []string{"filter.version"}},
		{devices.RestoreFilter{Credential: 1, Version: -3}, []string{"filter.version"}},
		{devices.RestoreFilter{Since: at, Until: at}, []string{"filter.until"}},
		{devices.RestoreFilter{Since: at, Until: at.Add(1)}, nil},
		{devices.RestoreFilter{Status: devices.Suspect, Credential: 1, Version: 3}, nil},
	} {
		var (
			e   *problem.Error
			got []string
		)
		if errors.As(x.f.Check(), &e) {
			for _, f := range e.Fields {
				got = append(got, f.Path)
			}
		}
		require.Equal(t, x.want, got, "%+v", x.f)
	}
}
