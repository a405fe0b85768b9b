package storetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
)

func deviceListTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"DeviceList/IsAsOneAfterTheOther": listIsAsOneByOne,
		"DeviceList/TheLastWins":          lastOfAListWins,
		"DeviceList/RoomIsForNewOnes":     roomOfAList,
		"DeviceList/OfManyAtOnce":         listsAtOnce,
	}
}

// drawnDevice is one of few addresses, installations and users, so that they meet.
func drawnDevice(t *rapid.T) devices.Device {
	d := devices.Device{App: "default", Channel: channels.FCM, User: rapid.SampledFrom([]string{"alice", "bob", "carol"}).Draw(t, "user"),
		InstallationID: rapid.SampledFrom([]string{"", "i", "j", "k"}).Draw(t, "installation"), AppVersion: rapid.StringN(0, 3, 9).Draw(t, "version"),
		Target: channels.Target{Kind: channels.FCMToken, Address: rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "address")}}
	if rapid.Bool().Draw(t, "app") {
		d.App = "other"
	}
	if rapid.Bool().Draw(t, "apns") {
		d.Channel, d.Target.Kind = channels.APNs, channels.APNsToken
		d.Target.Environment = rapid.SampledFrom([]channels.Environment{channels.Production, "auto"}).Draw(t, "environment")
		d.Purpose = rapid.SampledFrom([]channels.Purpose{channels.Alert, channels.VoIP, channels.Activity}).Draw(t, "purpose")
		if d.Purpose == channels.Activity {
			d.ActivityID = rapid.SampledFrom([]string{"one", "two"}).Draw(t, "activity")
		}
	}
	if rapid.Bool().Draw(t, "tagged") {
		d.Tags = map[string]string{"plan": d.User}
	}
	return d
}

// listIsAsOneByOne registers the same in two tenants: in lists in one, and device by
// device in the other.
func listIsAsOneByOne(k *kit) {
	rapid.Check(k.T, func(t *rapid.T) {
		at := func(name string) *kit {
			return &kit{T: k.T, Opened: k.Opened, ctx: k.ctx, tenant: k.newTenant(name + k.IDs.Next().Format(""))}
		}
		lists, singles := at("l"), at("s")
		drawn := map[ids.ID]int{} // by id, in both tenants: which of those that were drawn it is
		for range rapid.IntRange(1, 4).Draw(t, "lists") {
			by := devices.Caller{Actor: "key_test", Own: rapid.IntRange(0, 3).Draw(t, "own") == 0}
			if rapid.IntRange(0, 2).Draw(t, "bounded") == 0 {
				by.Room, by.Full = rapid.IntRange(0, 3).Draw(t, "room"), errors.New("full")
			}
			given := rapid.SliceOfN(rapid.Custom(drawnDevice), 1, 12).Draw(t, "list")
			all := make([]devices.Device, len(given))
			for i, d := range given {
				all[i] = d
				all[i].Tenant, all[i].ID = lists.tenant, k.IDs.Next()
				drawn[all[i].ID] = len(drawn)
			}
			got, err := k.Store.UpsertDevices(k.ctx, lists.tenant, all, by)
			k.ok(err)
			require.Len(t, got, len(given))
			for i, d := range given {
				d.Tenant, d.ID = singles.tenant, k.IDs.Next()
				drawn[d.ID] = drawn[all[i].ID]
				one, err := k.Store.UpsertDevice(k.ctx, d, by)
				require.Equal(t, got[i].Err, err)
				require.Equal(t, []bool{one.Created, one.Rebound, one.Replaced}, []bool{got[i].Created, got[i].Rebound, got[i].Replaced})
				if one.Created && by.Full != nil {
					by.Room--
				}
			}
			require.Equal(t, singles.registered(t, drawn), lists.registered(t, drawn))
			if rapid.Bool().Draw(t, "retired") {
				for _, x := range []*kit{lists, singles} {
					k.Exec(k.T, "UPDATE devices SET status=3, reason='gone' WHERE tenant_id=? AND address IN ('a','b')", int64(x.tenant))
				}
			}
			k.Clock.Advance(time.Second)
		}
	})
}

// registered is what a tenant has, with the history of each.
func (k *kit) registered(t *rapid.T, drawn map[ids.ID]int) (out []string) {
	list, err := k.Store.Devices(k.ctx, k.tenant, devices.Filter{Limit: 500})
	require.NoError(t, err)
	for _, d := range list {
		history := k.history(d)
		place := drawn[d.ID]
		d.Tenant, d.ID, d.UserID = 0, 0, 0
		out = append(out, fmt.Sprintf("%d: %+v %q", place, d, history))
	}
	return out
}

// lastOfAListWins: whatever the list says of an address, and in one transaction.
func lastOfAListWins(k *kit) {
	list := make([]devices.Device, 40)
	for i := range list {
		list[i] = devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: fmt.Sprint("u", i), App: "default", Channel: channels.FCM,
			Target: channels.Target{Kind: channels.FCMToken, Address: fmt.Sprint("a", i%2)}}
	}
	got, err := k.Store.UpsertDevices(k.ctx, k.tenant, list, devices.Caller{Actor: "key_test"})
	k.ok(err)
	for i, r := range got {
		k.ok(r.Err)
		require.Equal(k, list[i].User, r.Device.User)
		require.Equal(k, list[i%2].ID, r.Device.ID)
		require.Equal(k, i < 2, r.Created)
		require.Equal(k, i >= 2, r.Rebound)
	}
	all, err := k.Store.Devices(k.ctx, k.tenant, devices.Filter{Limit: 10})
	k.ok(err)
	require.Len(k, all, 2)
	last := len(list) - 2
	for i, d := range all {
		require.Equal(k, got[last+i].Device, d)
		require.Equal(k, len(list)/2, d.Epoch, "each of the others had it for a while")
	}
	again, err := k.Store.UpsertDevices(k.ctx, k.tenant, list[last:], devices.Caller{Actor: "key_test"})
	k.ok(err)
	require.Equal(k, []devices.Registered{{Device: all[0]}, {Device: all[1]}}, again, "once more changes nothing")
}

// roomOfAList: what is there already needs none, and who is refused leaves nothing.
func roomOfAList(k *kit) {
	old := k.device("alice", "old")
	full := errors.New("full")
	list := make([]devices.Device, 6)
	for i, address := range []string{"b", "old", "c", "d", "b", "e"} {
		list[i] = devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: fmt.Sprint("u", i), App: "default", Channel: channels.FCM,
			Target: channels.Target{Kind: channels.FCMToken, Address: address}}
	}
	got, err := k.Store.UpsertDevices(k.ctx, k.tenant, list, devices.Caller{Actor: "key_test", Full: full, Room: 2})
	k.ok(err)
	for i, refused := range []bool{false, false, false, true, false, true} {
		require.Equal(k, refused, errors.Is(got[i].Err, full), i)
		if refused {
			require.Equal(k, devices.Registered{Err: full}, got[i])
		}
	}
	require.Equal(k, old.ID, got[1].Device.ID)
	for _, row := range k.Dump(k.T)["users"].Rows {
		require.NotContains(k, []any{"u3", "u5"}, row["external_id"], "nobody is made for a device that is not")
	}
}

// listsAtOnce: those who register the same at the same time make one device of each.
func listsAtOnce(k *kit) {
	const callers, size = 4, 50
	var running sync.WaitGroup
	for c := range callers {
		running.Go(func() {
			list := make([]devices.Device, size)
			for i := range list {
				n := (i*7 + c*13) % size // each in an order of its own
				list[i] = devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: fmt.Sprint("u", n), App: "default", Channel: channels.FCM,
					InstallationID: fmt.Sprint("i", n), Target: channels.Target{Kind: channels.FCMToken, Address: fmt.Sprint("a", n)}}
			}
			if c == 0 { // as those who register one by one
				for _, d := range list {
					_, err := k.Store.UpsertDevice(k.ctx, d, devices.Caller{Actor: "key_test"})
					if err != nil {
						k.Error(err)
					}
				}
				return
			}
			if _, err := k.Store.UpsertDevices(k.ctx, k.tenant, list, devices.Caller{Actor: "key_test"}); err != nil {
				k.Error(err)
			}
		})
	}
	running.Wait()
	all, err := k.Store.Devices(k.ctx, k.tenant, devices.Filter{Limit: 500})
	k.ok(err)
	require.Len(k, all, size)
}
