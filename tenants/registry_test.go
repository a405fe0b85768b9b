package tenants_test

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func TestTenants(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, err := b.CreateTenant(t.Context(), "", "Made", tenants.Settings{}, "cli")
	require.NoError(t, err)
	require.Equal(t, made.ID.Format(ids.Tenant), made.Name)
	_, err = b.CreateTenant(t.Context(), "acme", "Acme", tenants.Settings{}, "cli")
	require.NoError(t, err)
	_, err = b.CreateTenant(t.Context(), "acme", "Acme", tenants.Settings{}, "cli")
	require.Equal(t, problem.Conflict, problem.CodeOf(err))

	put, created, err := b.PutTenant(t.Context(), "other", "Other", tenants.Settings{}, "cli")
	require.NoError(t, err)
	require.True(t, created)
	before, err := b.TenantByName(t.Context(), "other")
	require.NoError(t, err)
	require.Equal(t, put, before)

	again, created, err := b.PutTenant(t.Context(), "other", "Another", tenants.Settings{Origins: []string{"https://a.example"}}, "cli")
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, put.ID, again.ID)
	require.Equal(t, []ids.ID{put.ID}, b.changed)
	after, err := b.TenantByName(t.Context(), "other")
	require.NoError(t, err)
	require.Equal(t, "Another", after.Title, "the change is seen at once")

	renamed, created, err := b.PutTenant(t.Context(), made.Name, "Renamed", tenants.Settings{}, "cli")
	require.NoError(t, err)
	require.False(t, created, "a made name can be put when it exists")
	require.Equal(t, made.ID, renamed.ID)
	list, err := b.Tenants(t.Context(), tenants.Page{Limit: 10})
	require.NoError(t, err)
	require.Len(t, list, 3)
	for _, name := range []string{"nobody", "Not a name", ""} {
		_, err = b.TenantByName(t.Context(), name)
		require.Equal(t, problem.NotFound, problem.CodeOf(err))
	}
}

func TestATenantIsReadOnceIn5Seconds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, err := b.CreateTenant(t.Context(), "acme", "", tenants.Settings{}, "cli")
	require.NoError(t, err)
	read := func() {
		for range 3 {
			byName, err := b.TenantByName(t.Context(), "acme")
			require.NoError(t, err)
			byID, err := b.Tenant(t.Context(), made.ID)
			require.NoError(t, err)
			require.Equal(t, byName, byID)
		}
	}
	read()
	require.Equal(t, 1, b.store.count("Tenant"))
	b.clock.forward(5 * time.Second)
	read()
	require.Equal(t, 2, b.store.count("Tenant"))
}

func TestPutTenantMeetsAnotherWhoMakesIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	raced := &racing{memory: b.store, other: tenants.Tenant{ID: 99, Name: "acme"}}
	svc := tenants.NewRegistry(tenants.Options{Store: raced, IDs: ids.NewGenerator(2, b.clock.now), Now: b.clock.now})
	got, created, err := svc.PutTenant(t.Context(), "acme", "Acme", tenants.Settings{}, "cli")
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, ids.ID(99), got.ID)
	require.Equal(t, "Acme", b.store.tenants[99].Title)
}

// racing makes a tenant of the same name right before the caller does.
type racing struct {
	*memory
	other tenants.Tenant
}

func (r *racing) CreateTenant(ctx context.Context, t tenants.Tenant, c tenants.Change) error {
	r.memory.tenants[r.other.ID] = r.other
	return r.memory.CreateTenant(ctx, t, c)
}

func TestNewTenantsAreChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := tenants.Settings{Origins: []string{"*"}}
	_, err := b.CreateTenant(t.Context(), "Acme Inc", strings.Repeat("x", 201), bad, "cli")
	require.Equal(t, []string{"name", "settings.origins[0]", "title"}, paths(faults(t, err)))
	_, err = b.CreateTenant(t.Context(), "ten_mine", "", tenants.Settings{}, "cli")
	require.Equal(t, []string{"name"}, paths(faults(t, err)))
	_, _, err = b.PutTenant(t.Context(), "", "", tenants.Settings{}, "cli")
	require.Equal(t, []string{"name"}, paths(faults(t, err)))

	_, err = b.CreateTenant(t.Context(), "acme", "", tenants.Settings{}, "cli")
	require.NoError(t, err)
	_, _, err = b.PutTenant(t.Context(), "acme", "a\tb", bad, "cli")
	require.Equal(t, []string{"settings.origins[0]", "title"}, paths(faults(t, err)))
	require.Empty(t, b.changed)
}

func TestApps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.PutApp(t.Context(), 7, "ios-app", "cli"))
	require.Equal(t, []string{"name"}, paths(faults(t, b.PutApp(t.Context(), 7, "-", "cli"))))
	apps, err := b.Apps(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, []tenants.App{{Tenant: 7, Name: "ios-app", CreatedAt: epoch}}, apps)
}

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

func TestSchedules(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"default", "six-step", "standard-webhooks", "fast"}, tenants.Presets())
	sum := func(s tenants.Schedule) (total time.Duration) {
		for _, d := range s.Delays {
			total += d
		}
		return total
	}
	none := tenants.Settings{}
	for kind, want := range map[channels.Kind]time.Duration{
		channels.FCM: 38*time.Minute + 40*time.Second, channels.APNs: 51*time.Minute + 10*time.Second,
		channels.WebPush: 2*time.Hour + 36*time.Minute + 10*time.Second, channels.Webhook: 32*time.Hour + 36*time.Minute,
	} {
		require.Equal(t, want, sum(none.Schedule(kind)), kind.String())
		require.InDelta(t, 0.2, none.Schedule(kind).Jitter, 0)
		require.Nil(t, none.Schedule(kind).Floor)
	}
	chosen := tenants.Settings{Retry: map[channels.Kind]tenants.RetryPolicy{
		channels.FCM:     {Preset: "standard-webhooks"},
		channels.APNs:    {Jitter: new(0.0), Floor: new(int64(50))},
		channels.Webhook: {Delays: []int64{10, 20}},
	}}
	require.Equal(t, 75*time.Hour+35*time.Minute+5*time.Second, sum(chosen.Schedule(channels.FCM)))
	require.Equal(t, []time.Duration{10 * time.Millisecond, 20 * time.Millisecond}, chosen.Schedule(channels.Webhook).Delays)
	require.Equal(t, none.Schedule(channels.APNs).Delays, chosen.Schedule(channels.APNs).Delays)
	require.Equal(t, new(50*time.Millisecond), chosen.Schedule(channels.APNs).Floor)
	require.Zero(t, chosen.Schedule(channels.APNs).Jitter)
}

func TestACredentialIsAVersionOfTheOneInItsPlace(t *testing.T) {
	t.Parallel()
	b := setup(t)
	put := func(app string, kind channels.Kind, input string) (tenants.Credential, error) {
		return b.PutCredential(t.Context(), 7, tenants.PutCredential{App: app, Channel: kind, Input: json.RawMessage(input)}, "cli")
	}
	first, err := put("", channels.FCM, `{"project":"p"}`)
	require.NoError(t, err)
	require.Equal(t, "default", first.App)
	require.Equal(t, 1, first.Version)
	second, err := put("default", channels.FCM, `{"project":"p"}`)
	require.NoError(t, err)
	require.Equal(t, first.ID, second.ID)
	require.Equal(t, 2, second.Version)
	_, err = put("default", channels.FCM, `{"project":"q"}`)
	require.Equal(t, problem.CredentialRefused, problem.CodeOf(err))
	_, err = put("second", channels.FCM, `{"project":"q"}`)
	require.NoError(t, err, "another app has its own")
	require.Equal(t, []ids.ID{7, 7, 7}, b.changed)
	require.Equal(t, []string{"", "", `{"project":"p"}`, "", `{"project":"p"}`, ""}, b.fcm.priors)

	both, err := put("default", channels.APNs, `{"project":"t"}`)
	require.NoError(t, err)
	sandbox, err := put("default", channels.APNs, `{"slot":"sandbox","project":"u"}`)
	require.NoError(t, err, "one for an environment stands beside one for both")
	require.NotEqual(t, both.ID, sandbox.ID)
	require.Equal(t, "sandbox", sandbox.Qualifier)

	for range 2 {
		made, err := put("default", channels.APNs, `{"generate":true}`)
		require.NoError(t, err)
		require.Equal(t, 1, made.Version)
	}
	require.Equal(t, 2, b.apns.generated, "no pair is made and thrown away")
}

func TestNewCredentialsAreChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, x := range map[string]struct {
		in   tenants.PutCredential
		want []string
	}{
		"bad app, no channel": {tenants.PutCredential{App: "A", Input: json.RawMessage(`{}`)}, []string{"app", "channel"}},
		"webhook":             {tenants.PutCredential{Channel: channels.Webhook, Input: json.RawMessage(`{}`)}, []string{"channel"}},
		"switched off":        {tenants.PutCredential{Channel: channels.WebPush, Input: json.RawMessage(`{}`)}, []string{"channel"}},
		"the channel says no": {tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{`)}, []string{""}},
	} {
		_, err := b.PutCredential(t.Context(), 7, x.in, "cli")
		require.Equal(t, x.want, paths(faults(t, err)), name)
	}
	for i := range ids.ID(tenants.MaxCredentials) {
		b.store.creds[i+1] = tenants.Credential{Tenant: 7, ID: i + 1, App: "x", Channel: channels.FCM}
	}
	_, err := b.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{}`)}, "cli")
	require.Equal(t, problem.Conflict, problem.CodeOf(err))
	require.Empty(t, b.changed)
}

func TestPauseResumeDelete(t *testing.T) {
	t.Parallel()
	b := setup(t)
	c, err := b.PutCredential(t.Context(), 7, tenants.PutCredential{Channel: channels.FCM, Input: json.RawMessage(`{}`)}, "cli")
	require.NoError(t, err)
	_, err = b.PauseCredential(t.Context(), 7, c.ID, "a\x00b", "cli")
	require.Equal(t, []string{"reason"}, paths(faults(t, err)))
	paused, err := b.PauseCredential(t.Context(), 7, c.ID, "leaked", "key_1")
	require.NoError(t, err)
	require.Equal(t, tenants.CredentialPaused, paused.Status)
	resumed, err := b.ResumeCredential(t.Context(), 7, c.ID, "key_1")
	require.NoError(t, err)
	require.Equal(t, tenants.CredentialActive, resumed.Status)
	got, err := b.Credential(t.Context(), 7, c.ID)
	require.NoError(t, err)
	require.Equal(t, resumed, got)
	require.NoError(t, b.DeleteCredential(t.Context(), 7, c.ID, "key_1"))
	list, err := b.Credentials(t.Context(), 7)
	require.NoError(t, err)
	require.Empty(t, list)
	require.Equal(t, []ids.ID{7, 7, 7, 7}, b.changed)
	require.Equal(t, tenants.Change{Actor: "key_1", Action: "credential.delete"}, b.store.made()[3])
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

func TestADeletedTenantIsForgottenAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, err := b.CreateTenant(t.Context(), "acme", "", tenants.Settings{}, "cli")
	require.NoError(t, err)
	_, secret, err := b.CreateKey(t.Context(), made.ID, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Send}}, "cli")
	require.NoError(t, err)
	_, err = b.Authenticate(t.Context(), secret)
	require.NoError(t, err)
	_, err = b.TenantByName(t.Context(), "acme")
	require.NoError(t, err)

	gone, err := b.DeleteTenant(t.Context(), "acme", "key_1")
	require.NoError(t, err)
	require.True(t, gone.Deleting())
	require.Equal(t, []ids.ID{made.ID}, b.changed)
	changes := b.store.made()
	require.Equal(t, tenants.Change{Actor: "key_1", Action: "tenant.delete"}, changes[len(changes)-1])
	for id, k := range b.store.keys { // as a store does
		k.RevokedAt = epoch
		b.store.keys[id] = k
	}
	_, err = b.Authenticate(t.Context(), secret)
	require.Equal(t, problem.Unauthenticated, problem.CodeOf(err), "the key is read anew")
	shown, err := b.TenantByName(t.Context(), "acme")
	require.NoError(t, err)
	require.True(t, shown.Deleting(), "the tenant is read anew")
	_, err = b.DeleteTenant(t.Context(), "nobody", "key_1")
	require.Equal(t, problem.NotFound, problem.CodeOf(err))

	// The name is free in the end, and stands for the new tenant at once.
	delete(b.store.tenants, made.ID)
	again, err := b.CreateTenant(t.Context(), "acme", "", tenants.Settings{}, "cli")
	require.NoError(t, err)
	found, err := b.TenantByName(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, again.ID, found.ID)
}
