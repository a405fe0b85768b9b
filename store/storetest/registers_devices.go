package storetest

import (
	"bytes"
	"fmt"
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
		"Device/IsPatched":                patchesDevice,
		"Device/AgainIsTheSame":           deviceAgain,
		"Device/NewOnesNeedRoom":          newDevicesNeedRoom,
		"Device/ChangesHands":             deviceChangesHands,
		"Device/InstallationIsReplaced":   installationReplaced,
		"Device/PurposesAreApart":         purposesAreApart,
		"Device/PurposeChanges":           purposeChanges,
		"Device/ActivitiesAreBounded":     activitiesAreBounded,
		"Device/OwnInstallations":         ownInstallations,
		"Device/AddressAndInstallation":   addressAndInstallation,
		"Device/IsRevived":                deviceRevived,
		"Device/KeepsALearnedEnvironment": keepsLearnedEnvironment,
		"Device/Lists":                    listsDevices,
		"Device/IsDeletedByItsOwner":      deletesDevices,
		"Device/AreExportedInOrder":       exportsDevices,
	}
}

func deviceIsReadBack(k *kit) {
	now := k.Clock.Now()
	d := devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: "alice", App: "web", Channel: channels.WebPush, VAPIDKey: "vapid",
		InstallationID: "i-1", AppVersion: "1.2", Locale: "de-CH", TimeZone: "Europe/Zurich", Tags: map[string]string{"plan": "pro"},
		Target: channels.Target{Kind: channels.Subscription, Address: "https://push.example.com/x", P256dh: bytes.Repeat([]byte{4}, 65),
			Auth: bytes.Repeat([]byte{9}, 16), OS: "web", RegisteredAt: now.Add(-time.Hour)},
		LastSeenAt: now.Add(-time.Minute), ExpiresAt: now.Add(time.Hour), Purpose: channels.Alert}
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

func patchesDevice(k *kit) {
	d := k.device("alice", "a", func(d *devices.Device) { d.Locale, d.Tags = "de", map[string]string{"plan": "pro", "trial": "yes"} })
	k.Clock.Advance(time.Hour)
	p := devices.Patch{AppVersion: new("2"), Locale: new(""), Tags: map[string]*string{"trial": nil, "beta": new("1")}}
	got, err := k.Store.UpdateDevice(k.ctx, k.tenant, d.ID, p)
	k.ok(err)
	d.AppVersion, d.Locale, d.Tags = "2", "", map[string]string{"plan": "pro", "beta": "1"}
	require.Equal(k, d, got, "it is as old as before: nothing was heard of it")
	read, err := k.Store.Device(k.ctx, k.tenant, d.ID)
	k.ok(err)
	require.Equal(k, d, read)

	_, err = k.Store.UpdateDevice(k.ctx, k.newTenant("other"), d.ID, p)
	k.code(problem.NotFound, err)
	many := devices.Patch{Locale: new("fr"), Tags: map[string]*string{}}
	for n := range devices.MaxTags {
		many.Tags[fmt.Sprint("t", n)] = new("x")
	}
	_, err = k.Store.UpdateDevice(k.ctx, k.tenant, d.ID, many)
	k.code(problem.Invalid, err)
	read, err = k.Store.Device(k.ctx, k.tenant, d.ID)
	k.ok(err)
	require.Equal(k, d, read, "what is refused changes nothing")
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

// token makes a device an APNs token with a purpose.
func token(p channels.Purpose, activity string) func(*devices.Device) {
	return func(d *devices.Device) {
		d.Channel, d.Target.Kind, d.Target.Environment, d.Purpose, d.ActivityID = channels.APNs, channels.APNsToken, channels.Production, p, activity
	}
}

// purposesAreApart: tokens of one installation replace those of their own
// purpose, and activities those of their own activity.
func purposesAreApart(k *kit) {
	places := []func(*devices.Device){token(channels.Alert, ""), token(channels.VoIP, ""), token(channels.PushToStart, ""), token(channels.Widget, ""),
		token(channels.Activity, "one"), token(channels.Activity, "two")}
	var first []devices.Device
	for i, place := range places {
		r := k.register("alice", fmt.Sprint("old", i), place, installed("i"))
		require.True(k, r.Created)
		require.False(k, r.Replaced)
		first = append(first, r.Device)
	}
	for i, place := range places {
		r := k.register("alice", fmt.Sprint("new", i), place, installed("i"))
		require.True(k, r.Replaced)
		require.Equal(k, first[i].ID, r.Device.ID)
		require.Equal(k, first[i].Purpose, r.Device.Purpose)
		require.Equal(k, first[i].ActivityID, r.Device.ActivityID)
		read, err := k.Store.Device(k.ctx, k.tenant, r.Device.ID)
		k.ok(err)
		require.Equal(k, r.Device, read)
	}
	require.True(k, k.register("alice", "elsewhere", places[1], installed("another")).Created)
	k.tenant = k.newTenant("other")
	require.True(k, k.register("alice", "new1", places[1], installed("i")).Created, "another tenant's installations are its own")
}

// purposeChanges: an address is one device, whatever it is for.
func purposeChanges(k *kit) {
	call := k.device("alice", "a", token(channels.Alert, ""), installed("i")) // said wrongly
	old := k.device("alice", "b", token(channels.VoIP, ""), installed("i"))
	r := k.register("alice", "a", token(channels.VoIP, ""), installed("i"))
	require.True(k, r.Replaced)
	require.Equal(k, call.ID, r.Device.ID)
	require.Equal(k, channels.VoIP, r.Device.Purpose)
	require.Equal(k, call.Epoch+1, r.Device.Epoch, "what waits for it was meant for something else")
	require.Equal(k, call.Epoch+1, k.register("alice", "a", token(channels.VoIP, ""), installed("i")).Device.Epoch)
	live := k.device("alice", "live", token(channels.Activity, "one"))
	require.Equal(k, live.Epoch+1, k.register("alice", "live", token(channels.Activity, "two")).Device.Epoch)
	_, err := k.Store.Device(k.ctx, k.tenant, old.ID)
	k.code(problem.NotFound, err)
	require.True(k, k.register("alice", "c", token(channels.Alert, ""), installed("i")).Created, "the place is free")
}

// activitiesAreBounded: those that are over go before those that are not, and
// nobody's but the user's own.
func activitiesAreBounded(k *kit) {
	live := func(user string, i int, ends time.Duration) devices.Device {
		k.Clock.Advance(time.Second)
		return k.device(user, fmt.Sprint(user, i), token(channels.Activity, fmt.Sprint(i)), installed("i"),
			func(d *devices.Device) { d.ExpiresAt = k.Clock.Now().Add(ends) })
	}
	bobs := live("bob", 99, 12*time.Hour)
	var all []devices.Device
	for i := range devices.MaxActivities {
		ends := 12 * time.Hour
		if i == 3 {
			ends = time.Millisecond
		}
		all = append(all, live("alice", i, ends))
	}
	alert := k.device("alice", "alert", token(channels.Alert, ""), installed("i"))
	newest := live("alice", 100, 12*time.Hour)
	gone := func(d devices.Device) {
		_, err := k.Store.Device(k.ctx, k.tenant, d.ID)
		k.code(problem.NotFound, err)
		require.Equal(k, "deleted  too_many_devices  key_test", k.history(d)[1])
	}
	gone(all[3])
	live("alice", 0, 12*time.Hour) // again: all stay, and this one is heard of
	newer := live("alice", 101, 12*time.Hour)
	gone(all[1])
	for _, d := range append(all[4:], bobs, alert, newest, newer, all[0], all[2]) {
		k.status(d, devices.Active)
	}
}

// ownInstallations: a user's token may register so many installations, whatever
// each of them has; the one that was not heard of for longest goes with all it has.
func ownInstallations(k *kit) {
	own := func(user, address string, edit ...func(*devices.Device)) devices.Device {
		k.Clock.Advance(time.Second)
		d := devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: user, App: "default"}
		d.Target.Address = address
		for _, e := range edit {
			e(&d)
		}
		r, err := k.Store.UpsertDevice(k.ctx, d, devices.Caller{Actor: "usk_test", Own: true})
		k.ok(err)
		return r.Device
	}
	alert, call := token(channels.Alert, ""), token(channels.VoIP, "")
	others := own("bob", "bob", alert, installed("0"))
	var all [][2]devices.Device
	for i := range devices.MaxOwn {
		all = append(all, [2]devices.Device{
			own("alice", fmt.Sprint("alert", i), alert, installed(fmt.Sprint(i))),
			own("alice", fmt.Sprint("call", i), call, installed(fmt.Sprint(i))),
		})
	}
	count := func() int {
		list, err := k.Store.Devices(k.ctx, k.tenant, devices.Filter{User: "alice", Limit: 100})
		k.ok(err)
		return len(list)
	}
	require.Equal(k, 2*devices.MaxOwn, count(), "two addresses of an installation are one")
	own("alice", "alert0", alert, installed("0")) // heard of again
	k.verdict(all[2][0], delivery.DeviceRetired)
	single := own("alice", "single", alert)
	for _, d := range all[1] {
		_, err := k.Store.Device(k.ctx, k.tenant, d.ID)
		k.code(problem.NotFound, err)
	}
	require.Equal(k, 2*devices.MaxOwn-1, count())
	k.verdict(all[2][1], delivery.DeviceRetired)
	own("alice", "start", token(channels.PushToStart, ""), installed("3"))
	require.Equal(k, 2*devices.MaxOwn, count(), "of one that is known already")
	own("alice", "alert4", alert, installed("moved")) // by which it is one more
	require.Equal(k, 2*devices.MaxOwn-2, count(), "where all is retired goes first")
	for _, d := range []devices.Device{others, single, all[0][0], all[0][1], all[3][0], all[3][1], all[4][0], all[4][1]} {
		k.status(d, devices.Active)
	}
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
		"to":      {devices.Filter{To: b.ID}, []ids.ID{a.ID, b.ID}},
	} {
		if x.f.Limit == 0 {
			x.f.Limit = 10
		}
		list, err := k.Store.Devices(k.ctx, k.tenant, x.f)
		k.ok(err)
		require.Equal(k, x.want, idsOf(list, func(d devices.Device) ids.ID { return d.ID }), name)
		end, err := k.Store.DeviceWindow(k.ctx, k.tenant, x.f)
		k.ok(err)
		require.Zero(k, end, "there are fewer than a page looks at")
	}
}

// newDevicesNeedRoom: what is known may be registered again in a tenant that is full.
func newDevicesNeedRoom(k *kit) {
	d := k.device("alice", "a")
	full := problem.New(problem.Throttled, "full")
	again := d
	again.ID = k.IDs.Next()
	_, err := k.Store.UpsertDevice(k.ctx, again, devices.Caller{Actor: "key_test", Full: full})
	k.ok(err)
	other := again
	other.ID, other.Target.Address = k.IDs.Next(), "b"
	_, err = k.Store.UpsertDevice(k.ctx, other, devices.Caller{Actor: "key_test", Full: full})
	k.code(problem.Throttled, err)
	n, err := k.Store.CountDevices(k.ctx)
	k.ok(err)
	require.Equal(k, 1, n[k.tenant])
	k.endpoint()
	n, err = k.Store.CountEndpoints(k.ctx)
	k.ok(err)
	require.Equal(k, 1, n[k.tenant])
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
