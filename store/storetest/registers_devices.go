package storetest

import (
	"bytes"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func deviceTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Device/IsReadBack":               deviceIsReadBack,
		"Device/AgainIsTheSame":           deviceAgain,
		"Device/ChangesHands":             deviceChangesHands,
		"Device/InstallationIsReplaced":   installationReplaced,
		"Device/AddressAndInstallation":   addressAndInstallation,
		"Device/IsRevived":                deviceRevived,
		"Device/KeepsALearnedEnvironment": keepsLearnedEnvironment,
		"Device/Lists":                    listsDevices,
		"Device/IsDeletedByItsOwner":      deletesDevices,
	}
}

func deviceIsReadBack(k *kit) {
	now := k.Clock.Now()
	d := devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: "alice", App: "web", Channel: channels.WebPush, VAPIDKey: "vapid",
		InstallationID: "i-1", AppVersion: "1.2", Locale: "de-CH", TimeZone: "Europe/Zurich", Tags: map[string]string{"plan": "pro"},
		Target: channels.Target{Kind: channels.Subscription, Address: "https://push.example.com/x", P256dh: bytes.Repeat([]byte{4}, 65),
			Auth: bytes.Repeat([]byte{9}, 16), OS: "web", RegisteredAt: now.Add(-time.Hour)},
		LastSeenAt: now.Add(-time.Minute), ExpiresAt: now.Add(time.Hour)}
	r, err := k.Store.UpsertDevice(k.ctx, d, devices.Caller{Actor: "key_test"})
	k.ok(err)
	require.True(k, r.Created)
	require.False(k, r.Rebound || r.Replaced)
	got := r.Device
	require.NotZero(k, got.ID)
	require.NotZero(k, got.UserID)
	d.ID, d.UserID, d.Epoch, d.Status, d.StatusAt, d.CreatedAt, d.UpdatedAt = got.ID, got.UserID, 1, devices.Active, now, now, now
	require.Equal(k, d, got)
	read, err := k.Store.Device(k.ctx, k.tenant, got.ID)
	k.ok(err)
	require.Equal(k, got, read)
}

func deviceAgain(k *kit) {
	first := k.device("alice", "a")
	k.Clock.Advance(time.Second)
	r := k.register("alice", "a", func(d *devices.Device) { d.AppVersion = "2"; d.Tags = map[string]string{"a": "b"} })
	require.False(k, r.Created || r.Rebound || r.Replaced)
	want := first
	want.AppVersion, want.Tags, want.UpdatedAt, want.StatusAt = "2", map[string]string{"a": "b"}, k.Clock.Now(), k.Clock.Now()
	require.Equal(k, want, r.Device)
	for name, edit := range map[string]func(*devices.Device){
		"app":     func(d *devices.Device) { d.App = "other" },
		"channel": func(d *devices.Device) { d.Channel = channels.APNs },
	} {
		require.True(k, k.register("alice", "a", edit).Created, "another %s is another device", name)
	}
	k.tenant = k.newTenant("other")
	require.True(k, k.register("alice", "a").Created)
}

func deviceChangesHands(k *kit) {
	first := k.device("alice", "a")
	for i, user := range []string{"bob", "alice", "alice"} {
		r := k.register(user, "a")
		require.Equal(k, first.ID, r.Device.ID)
		require.Equal(k, user, r.Device.User)
		require.Equal(k, min(i+2, 3), r.Device.Epoch, "grows whenever the user changes, and only then")
		require.Equal(k, i < 2, r.Rebound)
	}
	list, err := k.Store.Devices(k.ctx, k.tenant, devices.Filter{Limit: 10})
	k.ok(err)
	require.Len(k, list, 1)
}

func installed(id string) func(*devices.Device) {
	return func(d *devices.Device) { d.InstallationID = id }
}

func installationReplaced(k *kit) {
	first := k.device("alice", "a", installed("i"))
	r := k.register("alice", "b", installed("i"))
	require.True(k, r.Replaced)
	require.False(k, r.Created || r.Rebound)
	require.Equal(k, first.ID, r.Device.ID)
	require.Equal(k, "b", r.Device.Target.Address)
	require.Equal(k, 1, r.Device.Epoch)
	r = k.register("bob", "c", installed("i"))
	require.True(k, r.Replaced && r.Rebound)
	require.Equal(k, 2, r.Device.Epoch)
	require.True(k, k.register("alice", "b").Created, "the old address is nobody's")
	require.True(k, k.register("bob", "d", installed("i"), func(d *devices.Device) { d.Channel = channels.APNs }).Created, "one per channel")
	require.True(k, k.register("bob", "e", installed("i"), func(d *devices.Device) { d.App = "other" }).Created, "and app")
}

func addressAndInstallation(k *kit) {
	byAddress := k.device("alice", "a", installed("old"))
	byInstallation := k.device("bob", "b", installed("new"))
	r := k.register("bob", "a", installed("new"))
	require.True(k, r.Replaced && r.Rebound)
	require.Equal(k, byAddress.ID, r.Device.ID, "the address's row stays")
	require.Equal(k, "new", r.Device.InstallationID)
	require.Equal(k, 2, r.Device.Epoch)
	_, err := k.Store.Device(k.ctx, k.tenant, byInstallation.ID)
	k.code(problem.NotFound, err)
}

func deviceRevived(k *kit) {
	for _, effect := range []delivery.DeviceEffect{delivery.DeviceSuspect, delivery.DeviceRetired} {
		d := k.device("alice", "a")
		k.Clock.Advance(time.Second)
		k.verdict(d, effect)
		k.Clock.Advance(time.Second)
		got := k.device("alice", "a")
		require.Equal(k, devices.Active, got.Status)
		require.Empty(k, got.Reason)
		require.Equal(k, k.Clock.Now(), got.StatusAt)
		n, err := k.Store.UnretireDevices(k.ctx, 77, 3, time.Time{}, k.Clock.Now())
		k.ok(err)
		require.Zero(k, n, "what the version said of it is forgotten")
	}
}

func keepsLearnedEnvironment(k *kit) {
	apns := func(env channels.Environment) func(*devices.Device) {
		return func(d *devices.Device) {
			d.Channel, d.Target.Kind, d.Target.Environment = channels.APNs, channels.APNsToken, env
		}
	}
	k.device("alice", "aa", apns(channels.Sandbox), installed("i"))
	require.Equal(k, channels.Sandbox, k.device("alice", "aa", apns(channels.Auto), installed("i")).Target.Environment)
	require.Equal(k, channels.Production, k.device("alice", "aa", apns(channels.Production), installed("i")).Target.Environment, "who knows is believed")
	require.Equal(k, channels.Auto, k.device("alice", "bb", apns(channels.Auto), installed("i")).Target.Environment, "it belonged to the other address")
}

func listsDevices(k *kit) {
	a, b := k.device("alice", "a"), k.device("bob", "b")
	c := k.device("alice", "c", func(d *devices.Device) { d.Channel, d.App = channels.APNs, "ipad" })
	k.Clock.Advance(time.Second)
	k.verdict(b, delivery.DeviceRetired)
	for name, x := range map[string]struct {
		f    devices.Filter
		want []ids.ID
	}{
		"all":     {devices.Filter{}, []ids.ID{a.ID, b.ID, c.ID}},
		"user":    {devices.Filter{User: "alice"}, []ids.ID{a.ID, c.ID}},
		"channel": {devices.Filter{Channel: channels.APNs}, []ids.ID{c.ID}},
		"status":  {devices.Filter{Status: devices.Retired}, []ids.ID{b.ID}},
		"app":     {devices.Filter{App: "ipad"}, []ids.ID{c.ID}},
		"page":    {devices.Filter{After: a.ID, Limit: 1}, []ids.ID{b.ID}},
		"nobody":  {devices.Filter{User: "nobody"}, []ids.ID{}},
	} {
		if x.f.Limit == 0 {
			x.f.Limit = 10
		}
		list, err := k.Store.Devices(k.ctx, k.tenant, x.f)
		k.ok(err)
		require.Equal(k, x.want, idsOf(list, func(d devices.Device) ids.ID { return d.ID }), name)
	}
}

func deletesDevices(k *kit) {
	d := k.device("alice", "a")
	key := devices.AddressKey{App: "default", Channel: channels.FCM, Address: "a"}
	k.code(problem.NotFound, k.Store.DeleteDevice(k.ctx, k.tenant, d.ID, "bob", "key_test"))
	k.code(problem.NotFound, k.Store.DeleteAddress(k.ctx, k.tenant, key, "bob", "key_test"))
	k.status(d, devices.Active)
	k.ok(k.Store.DeleteDevice(k.ctx, k.tenant, d.ID, "alice", "key_test"))
	k.code(problem.NotFound, k.Store.DeleteDevice(k.ctx, k.tenant, d.ID, "alice", "key_test"))
	for _, user := range []string{"alice", ""} {
		k.device("alice", "a")
		k.ok(k.Store.DeleteAddress(k.ctx, k.tenant, key, user, "key_test"))
		k.code(problem.NotFound, k.Store.DeleteAddress(k.ctx, k.tenant, key, user, "key_test"))
	}
	next := k.device("alice", "a")
	require.NotEqual(k, d.ID, next.ID, "an id is never used again")
}
