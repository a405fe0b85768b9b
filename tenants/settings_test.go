package tenants_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/tenants"
)

func TestSettingsAreChecked(t *testing.T) {
	t.Parallel()
	delays := func(n int, ms int64) []int64 {
		out := make([]int64, n)
		for i := range out {
			out[i] = ms
		}
		return out
	}
	const week = 7 * 24 * 3600 * 1000
	for name, x := range map[string]struct {
		settings tenants.Settings
		want     []string
	}{
		"nothing": {tenants.Settings{}, nil},
		"at the limits": {tenants.Settings{
			Retry: map[channels.Kind]tenants.RetryPolicy{
				channels.FCM:     {Delays: delays(20, week), Jitter: new(0.5), Floor: new(int64(0))},
				channels.APNs:    {Delays: delays(1, 0), Jitter: new(0.0), Floor: new(int64(24 * 3600 * 1000))},
				channels.Webhook: {Preset: "fast"},
			},
			TTL: map[channels.Kind]int64{channels.FCM: 28 * 86400, channels.Webhook: 30 * 86400, channels.APNs: 1},
		}, nil},
		"beyond them": {tenants.Settings{
			Retry: map[channels.Kind]tenants.RetryPolicy{
				channels.FCM:     {Delays: delays(21, 1), Jitter: new(0.51), Floor: new(int64(-1))},
				channels.APNs:    {Delays: []int64{1, -1, week + 1}, Jitter: new(math.NaN())},
				channels.WebPush: {Preset: "slow"},
				channels.Webhook: {Preset: "fast", Delays: delays(1, 1)},
			},
			TTL: map[channels.Kind]int64{channels.FCM: 28*86400 + 1, channels.Webhook: 30*86400 + 1, channels.APNs: 0},
		}, []string{"retry.apns.delays_ms[1]", "retry.apns.delays_ms[2]", "retry.apns.jitter", "retry.fcm.delays_ms", "retry.fcm.floor_ms",
			"retry.fcm.jitter", "retry.webhook.preset", "retry.webpush.preset", "ttl.apns", "ttl.fcm", "ttl.webhook"}},
		"empty list":      {tenants.Settings{Retry: map[channels.Kind]tenants.RetryPolicy{channels.FCM: {Delays: []int64{}}}}, []string{"retry.fcm.delays_ms"}},
		"unknown channel": {tenants.Settings{Retry: map[channels.Kind]tenants.RetryPolicy{9: {}}, TTL: map[channels.Kind]int64{9: 1}}, []string{"retry", "ttl"}},
		"many origins":    {tenants.Settings{Origins: make([]string, 101)}, []string{"origins"}},
	} {
		err := x.settings.Check()
		if x.want == nil {
			require.NoError(t, err, name)
			continue
		}
		require.Equal(t, x.want, paths(faults(t, err)), name)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for origin, ok := range map[string]bool{
		"https://app.example.com":       true,
		"https://app.example.com:8443":  true,
		"https://xn--bcher-kva.example": true,
		"http://localhost":              true,
		"http://localhost:5173":         true,
		"http://127.0.0.1:80801":        false,
		"https://app.example.com:08443": false,
		"https://app.example.com:0":     false,
		"http://127.0.0.1:8080":         true,
		"http://[::1]:8080":             true,
		"":                              false,
		"*":                             false,
		"null":                          false,
		"app.example.com":               false,
		"https://":                      false,
		"https://*.example.com":         false,
		"https://app.example.com/":      false,
		"https://app.example.com/path":  false,
		"https://app.example.com?x":     false,
		"https://app.example.com#x":     false,
		"https://u@app.example.com":     false,
		"https://App.example.com":       false,
		"https://app.example.com:443":   false,
		"https://app.example.com:":      false,
		"http://localhost:80":           false,
		"http://app.example.com":        false,
		"http://localhost.example.com":  false,
		"https://bücher.example":        false,
		"ftp://app.example.com":         false,
		"https://a b.example":           false,
	} {
		err := tenants.Settings{Origins: []string{origin}}.Check()
		require.Equal(t, ok, err == nil, "%q: %v", origin, err)
	}
	err := tenants.Settings{Origins: []string{"https://a.example", "https://a.example"}}.Check()
	require.Equal(t, []string{"origins[1]"}, paths(faults(t, err)))
}

func TestRetentionAndStalenessHaveBounds(t *testing.T) {
	t.Parallel()
	days := func(n int64) *int64 { return new(n * 24 * 3600 * 1000) }
	good := tenants.Settings{Retention: tenants.Retention{Sent: new(int64(0)), Dead: days(1), Rows: days(366)}, StaleAfter: days(31)}
	require.NoError(t, good.Check())
	require.NoError(t, tenants.Settings{StaleAfter: new(int64(0))}.Check(), "0 switches it off")
	bad := tenants.Settings{Retention: tenants.Retention{Sent: new(int64(-1)), Dead: new(int64(1000)), Rows: days(367)}, StaleAfter: days(30)}
	got := faults(t, bad.Check())
	require.Equal(t, []string{"retention.dead_ms", "retention.rows_ms", "retention.sent_ms", "stale_after_ms"}, paths(got))
	require.Contains(t, got["retention.dead_ms"], "86400000 to 31622400000 milliseconds (1 to 366 days)")
	for text, want := range map[string]tenants.Settings{
		`{}`: {},
		`{"retention":{"sent_ms":0},"stale_after_ms":0}`: {Retention: tenants.Retention{Sent: new(int64(0))}, StaleAfter: new(int64(0))},
	} {
		var read tenants.Settings
		require.NoError(t, json.Unmarshal([]byte(text), &read))
		require.Equal(t, want, read)
		written, err := json.Marshal(read)
		require.NoError(t, err)
		require.Equal(t, text, string(written), "0 is not the same as absent")
	}
}
