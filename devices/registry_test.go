package devices_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// memory is a Store that remembers what it was given.
type memory struct {
	upserted []devices.Device
	deleted  []string
	filter   devices.Filter
	pair     string // the app and its VAPID key
	by       devices.Caller
	parts    []int // sizes of the lists
	err      error // of those after the first
	asked    int   // for pairs
	exports  []string
}

var _ devices.Store = (*memory)(nil)

func (s *memory) UpsertDevice(_ context.Context, d devices.Device, by devices.Caller) (devices.Registered, error) {
	s.by = by
	s.upserted = append(s.upserted, d)
	return devices.Registered{Device: d, Created: true}, nil
}

func (s *memory) UpsertDevices(ctx context.Context, tenant ids.ID, list []devices.Device, by devices.Caller) ([]devices.Registered, error) {
	if s.err != nil && len(s.parts) > 0 {
		return nil, s.err
	}
	s.parts = append(s.parts, len(list))
	out := make([]devices.Registered, len(list))
	for i, d := range list {
		out[i], _ = s.UpsertDevice(ctx, d, by)
	}
	return out, nil
}

func (s *memory) Device(_ context.Context, _, id ids.ID) (devices.Device, error) {
	for _, d := range s.upserted {
		if d.ID == id {
			return d, nil
		}
	}
	return devices.Device{}, problem.New(problem.NotFound, "There is none.")
}

func (s *memory) DeviceWindow(context.Context, ids.ID, devices.Filter) (ids.ID, error) { return 0, nil }

func (s *memory) Devices(_ context.Context, _ ids.ID, f devices.Filter) ([]devices.Device, error) {
	s.filter = f
	return s.upserted, nil
}

func (s *memory) DeleteDevice(_ context.Context, tenant, id ids.ID, user, actor string) error {
	s.deleted = append(s.deleted, fmt.Sprintf("%d %d %s %s", tenant, id, user, actor))
	return nil
}

func (s *memory) DeleteAddress(_ context.Context, tenant ids.ID, k devices.AddressKey, user, actor string) error {
	s.deleted = append(s.deleted, fmt.Sprintf("%d %s %s %s %s %s", tenant, k.App, k.Channel, k.Address, user, actor))
	return nil
}

func (s *memory) HasPair(_ context.Context, _ ids.ID, app, key string) (bool, error) {
	s.asked++
	return app+" "+key == s.pair, nil
}

func (s *memory) DeviceHistory(_ context.Context, tenant, id ids.ID) ([]devices.Event, error) {
	return []devices.Event{{Tenant: tenant, Device: id}}, nil
}

// lower is a channel whose addresses have upper and lower case alike, and whose
// subscriptions need a key of 3 bytes.
type lower struct{ channels.Channel }

func (lower) CheckTarget(t channels.Target) (channels.Target, error) {
	var faults problem.Fields
	if strings.Contains(t.Address, " ") {
		faults.Add("address", "has a space")
	}
	if t.Kind == channels.Subscription && len(t.Auth) != 3 {
		faults.Add("keys.auth", "has another length")
	}
	t.Address = strings.ToLower(t.Address)
	return t, faults.Err()
}

func registry() (*devices.Registry, *memory) {
	s := &memory{}
	clock := func() time.Time { return now }
	return devices.NewRegistry(devices.Options{Store: s, Quota: &fakeQuota{}, IDs: ids.NewGenerator(1, clock), Now: clock, Channels: map[channels.Kind]channels.Channel{
		channels.APNs: lower{}, channels.WebPush: lower{},
	}}), s
}

func TestADeviceIsStoredInCanonicalForm(t *testing.T) {
	t.Parallel()
	r, s := registry()
	got, err := r.Register(t.Context(), 7, devices.Registration{
		User: "u1", Channel: channels.APNs, Address: " ABC\n", Environment: "sandbox", InstallationID: "i", OS: "ios", AppVersion: "1.2",
		Locale: "de_ch", TimeZone: "Europe/Zurich", Tags: map[string]string{"plan": "pro"},
		RegisteredAt: now.Add(5 * time.Minute), LastSeenAt: now.Add(-time.Hour),
	})
	require.NoError(t, err)
	d := s.upserted[0]
	require.Equal(t, d, got.Device)
	require.NotZero(t, d.ID)
	d.ID = 0
	require.Equal(t, devices.Device{
		Tenant: 7, User: "u1", App: "default", Channel: channels.APNs,
		Target:  channels.Target{Kind: channels.APNsToken, Address: "abc", Environment: channels.Sandbox, OS: "ios", RegisteredAt: now.Add(5 * time.Minute)},
		Purpose: channels.Alert,

		InstallationID: "i", AppVersion: "1.2", Locale: "de-CH", TimeZone: "Europe/Zurich", Tags: map[string]string{"plan": "pro"},
		LastSeenAt: now.Add(-time.Hour),
		Status:     devices.Active, StatusAt: now, CreatedAt: now, UpdatedAt: now,
	}, d)
}

// TestWhatATokenIsFor: an alert, unless the app says otherwise.
func TestWhatATokenIsFor(t *testing.T) {
	t.Parallel()
	r, s := registry()
	for said, want := range map[string]channels.Purpose{"": channels.Alert, "alert": channels.Alert, "voip": channels.VoIP,
		"push_to_start": channels.PushToStart, "widget": channels.Widget} {
		_, err := r.Register(t.Context(), 7, devices.Registration{User: "u", Channel: channels.APNs, Address: "a", Purpose: said})
		require.NoError(t, err)
		d := s.upserted[len(s.upserted)-1]
		require.Equal(t, want, d.Purpose)
		require.Zero(t, d.ExpiresAt)
	}
}

// TestATokenOfALiveActivityEndsWithIt: after as long as one can be seen, or when
// the app says.
func TestATokenOfALiveActivityEndsWithIt(t *testing.T) {
	t.Parallel()
	r, s := registry()
	for _, ends := range []time.Time{{}, now.Add(time.Minute), now.Add(24 * time.Hour)} {
		_, err := r.Register(t.Context(), 7, devices.Registration{User: "u", Channel: channels.APNs, Address: "a",
			Purpose: "activity", ActivityID: "order-7", ExpiresAt: ends})
		require.NoError(t, err)
		d := s.upserted[len(s.upserted)-1]
		require.Equal(t, channels.Activity, d.Purpose)
		require.Equal(t, "order-7", d.ActivityID)
		if ends.IsZero() {
			ends = now.Add(12 * time.Hour)
		}
		require.Equal(t, ends, d.ExpiresAt)
	}
}

func TestKeysAreReadInEveryBase64(t *testing.T) {
	t.Parallel()
	r, s := registry()
	for _, auth := range []string{"-_-_", "+/+/", "+_-/"} {
		_, err := r.Register(t.Context(), 7, devices.Registration{User: "u", Channel: channels.WebPush, Address: "https://p", P256dh: "AQ==", Auth: auth})
		require.NoError(t, err, auth)
	}
	for _, d := range s.upserted {
		require.Equal(t, []byte{0xfb, 0xff, 0xbf}, d.Target.Auth)
		require.Equal(t, []byte{1}, d.Target.P256dh)
		require.Equal(t, channels.Subscription, d.Target.Kind)
	}
}

func TestAVAPIDKeyIsStoredAsCredentialsShowIt(t *testing.T) {
	t.Parallel()
	r, s := registry()
	point := append([]byte{4}, bytes.Repeat([]byte{0xff}, 64)...)
	s.pair = "default " + base64.RawURLEncoding.EncodeToString(point)
	_, err := r.Register(t.Context(), 7, devices.Registration{User: "u", Channel: channels.WebPush, Address: "https://p", Auth: "AAAA",
		VAPIDKey: base64.StdEncoding.EncodeToString(point)})
	require.NoError(t, err)
	require.Equal(t, base64.RawURLEncoding.EncodeToString(point), s.upserted[0].VAPIDKey)
}

// TestAVAPIDKeyIsOfThePairsOfTheApp: whoever holds a user's token cannot have
// deliveries wait for a key that there will never be.
func TestAVAPIDKeyIsOfThePairsOfTheApp(t *testing.T) {
	t.Parallel()
	point := bytes.Repeat([]byte{4}, 65)
	key := base64.RawURLEncoding.EncodeToString(point)
	for pair, known := range map[string]bool{"shop " + key: true, "default " + key: false, "": false} {
		r, s := registry()
		s.pair = pair
		_, err := r.Register(t.Context(), 7, devices.Registration{User: "u", App: "shop", Channel: channels.WebPush, Address: "https://p", Auth: "AAAA", VAPIDKey: key})
		if known {
			require.NoError(t, err)
			continue
		}
		var e *problem.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, problem.Invalid, e.Code)
		require.Equal(t, "vapid_key", e.Fields[0].Path)
		require.Empty(t, s.upserted)
	}
}

func TestEveryFaultIsNamed(t *testing.T) {
	t.Parallel()
	tags := map[string]string{}
	for i := range 33 {
		tags[fmt.Sprint(i)] = ""
	}
	good := func(change func(*devices.Registration)) devices.Registration {
		in := devices.Registration{User: "u", Channel: channels.APNs, Address: "a"}
		change(&in)
		return in
	}
	for name, x := range map[string]struct {
		in   devices.Registration
		want []string
	}{
		"nothing": {devices.Registration{}, []string{"channel", "user"}},
		"everything": {devices.Registration{
			User: "u\n", App: "No App", Channel: channels.APNs, Kind: channels.FCMToken, InstallationID: strings.Repeat("i", 256),
			OS: strings.Repeat("o", 33), AppVersion: "1\x00", Locale: "not a locale", TimeZone: "Mars/Olympus",
			Tags:         map[string]string{"a b": "x", "ok": strings.Repeat("v", 257)},
			RegisteredAt: now.Add(5*time.Minute + 1), LastSeenAt: now.Add(time.Hour), ExpiresAt: now,
		}, []string{"kind", "address", "user", "app", "installation_id", "os", "app_version", "tags.ok", "tags", "time_zone", "locale",
			"registered_at", "last_seen_at", "expires_at"}},
		"webhook":      {good(func(d *devices.Registration) { d.Channel = channels.Webhook }), []string{"channel"}},
		"switched off": {good(func(d *devices.Registration) { d.Channel = channels.FCM }), []string{"channel"}},
		"by channel":   {good(func(d *devices.Registration) { d.Address = "a b" }), []string{"address"}},
		"bad keys": {good(func(d *devices.Registration) { d.Channel, d.P256dh, d.Auth = channels.WebPush, "?", "AA\nA" }),
			[]string{"keys.p256dh", "keys.auth"}},
		"short key":         {good(func(d *devices.Registration) { d.Channel, d.Auth = channels.WebPush, "AA" }), []string{"keys.auth"}},
		"vapid key of apns": {good(func(d *devices.Registration) { d.VAPIDKey = "AA" }), []string{"vapid_key"}},
		"short vapid key": {good(func(d *devices.Registration) { d.Channel, d.Auth, d.VAPIDKey = channels.WebPush, "AAAA", "BA" }),
			[]string{"vapid_key"}},
		"purpose": {good(func(d *devices.Registration) { d.Purpose = "pushkit" }), []string{"purpose"}},
		"purpose of another channel": {good(func(d *devices.Registration) {
			d.Channel, d.Auth, d.Purpose, d.ActivityID = channels.WebPush, "AAAA", "alert", "a"
		}), []string{"purpose", "activity_id"}},
		"no activity id":        {good(func(d *devices.Registration) { d.Purpose = "activity" }), []string{"activity_id"}},
		"long activity id":      {good(func(d *devices.Registration) { d.Purpose, d.ActivityID = "activity", strings.Repeat("a", 129) }), []string{"activity_id"}},
		"activity id of a call": {good(func(d *devices.Registration) { d.Purpose, d.ActivityID = "voip", "a" }), []string{"activity_id"}},
		"end of an alert":       {good(func(d *devices.Registration) { d.ExpiresAt = now.Add(time.Hour) }), []string{"expires_at"}},
		"ended activity": {good(func(d *devices.Registration) { d.Purpose, d.ActivityID, d.ExpiresAt = "activity", "a", now }),
			[]string{"expires_at"}},
		"33 tags":    {good(func(d *devices.Registration) { d.Tags = tags }), []string{"tags"}},
		"own zone":   {good(func(d *devices.Registration) { d.TimeZone = "Local" }), []string{"time_zone"}},
		"zone path":  {good(func(d *devices.Registration) { d.TimeZone = "../etc/passwd" }), []string{"time_zone"}},
		"long tag":   {good(func(d *devices.Registration) { d.Tags = map[string]string{strings.Repeat("k", 65): ""} }), []string{"tags"}},
		"long place": {good(func(d *devices.Registration) { d.Locale = strings.Repeat("en-", 30) + "x" }), []string{"locale"}},
	} {
		r, s := registry()
		_, err := r.Register(t.Context(), 7, x.in)
		var e *problem.Error
		require.ErrorAs(t, err, &e, name)
		require.Equal(t, problem.Invalid, e.Code)
		var got []string
		for _, f := range e.Fields {
			got = append(got, f.Path)
		}
		require.Equal(t, x.want, got, name)
		require.Empty(t, s.upserted, name)
	}
}

func TestLocalesAndZones(t *testing.T) {
	t.Parallel()
	r, s := registry()
	for in, want := range map[string]string{"EN": "en", "en_US": "en-US", "zh-hant-tw": "zh-Hant-TW", "": "", "iw": "he"} {
		for _, zone := range []string{"UTC", "America/Argentina/Ushuaia", "America/Argentina/Ushuaia", ""} {
			_, err := r.Register(t.Context(), 7, devices.Registration{User: "u", Channel: channels.APNs, Address: "a", Locale: in, TimeZone: zone})
			require.NoError(t, err)
			last := s.upserted[len(s.upserted)-1]
			require.Equal(t, want, last.Locale)
			require.Equal(t, zone, last.TimeZone)
		}
	}
}

func TestAnAddressIsForgottenInEveryForm(t *testing.T) {
	t.Parallel()
	r, s := registry()
	require.NoError(t, r.DeleteAddress(t.Context(), 7, devices.AddressKey{Channel: channels.APNs, Address: "ABC"}, "u", "usk_1"))
	// A subscription without its keys cannot be checked.
	require.NoError(t, r.DeleteAddress(t.Context(), 7, devices.AddressKey{App: "web", Channel: channels.WebPush, Address: "https://P \n"}, "", "key_1"))
	require.NoError(t, r.Delete(t.Context(), 7, 5, "u", "usk_1"))
	require.Equal(t, []string{"7 default apns abc u usk_1", "7 web webpush https://P  key_1", "7 5 u usk_1"}, s.deleted)

	err := r.DeleteAddress(t.Context(), 7, devices.AddressKey{Channel: channels.Webhook}, "", "key_1")
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	require.Len(t, e.Fields, 2)
	require.Len(t, s.deleted, 3)
}

func TestReads(t *testing.T) {
	t.Parallel()
	r, s := registry()
	got, err := r.Register(t.Context(), 7, devices.Registration{User: "u", Channel: channels.APNs, Address: "a"})
	require.NoError(t, err)
	d, err := r.Device(t.Context(), 7, got.Device.ID)
	require.NoError(t, err)
	require.Equal(t, got.Device, d)
	for limit, want := range map[int]int{0: 1, 50: 50, 501: 500} {
		_, err = r.Devices(t.Context(), 7, devices.Filter{User: "u", Limit: limit})
		require.NoError(t, err)
		require.Equal(t, devices.Filter{User: "u", Limit: want}, s.filter)
	}
}

func TestAStoreThatFailsIsPassedOn(t *testing.T) {
	t.Parallel()
	down := errors.New("database is down")
	clock := func() time.Time { return now }
	r := devices.NewRegistry(devices.Options{Store: broken{&memory{}, down}, Quota: &fakeQuota{}, IDs: ids.NewGenerator(1, clock), Now: clock,
		Channels: map[channels.Kind]channels.Channel{channels.APNs: lower{}}})
	_, err := r.Register(t.Context(), 7, devices.Registration{User: "u", Channel: channels.APNs, Address: "a"})
	require.ErrorIs(t, err, down)
}

type broken struct {
	*memory
	err error
}

func (b broken) UpsertDevice(context.Context, devices.Device, devices.Caller) (devices.Registered, error) {
	return devices.Registered{}, b.err
}

// TestANewDeviceNeedsRoom: the store is told what it answers where the device would be new.
func TestANewDeviceNeedsRoom(t *testing.T) {
	t.Parallel()
	s, q, clock := &memory{}, &fakeQuota{}, func() time.Time { return now }
	r := devices.NewRegistry(devices.Options{Store: s, Quota: q, IDs: ids.NewGenerator(1, clock), Now: clock, Channels: map[channels.Kind]channels.Channel{channels.APNs: lower{}}})
	in := devices.Registration{User: "u1", Channel: channels.APNs, Address: "abc"}
	done, err := r.Register(t.Context(), 7, in)
	require.NoError(t, err)
	require.NoError(t, s.by.Full)
	require.Equal(t, 1, q.added)
	q.full = errors.New("full")
	_, err = r.Register(t.Context(), 7, in)
	require.NoError(t, err, "the store knows whether it is new")
	require.Equal(t, q.full, s.by.Full)
	require.NoError(t, r.Delete(t.Context(), 7, done.Device.ID, "", "key_test"))
	require.Equal(t, 1, q.added, "two were made, one is gone")
}

// fakeQuota is a quota that says what a test wants.
type fakeQuota struct {
	left  int
	full  error
	added int
}

func (q *fakeQuota) Room(ids.ID) (int, error) { return q.left - q.added, q.full }
func (q *fakeQuota) Add(_ ids.ID, n int)      { q.added += n }
