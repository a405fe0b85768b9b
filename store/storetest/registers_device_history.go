package storetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func deviceHistoryTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"DeviceHistory/TellsWhatHasHappened": historyTells,
		"DeviceHistory/TellsOfDoubts":        historyOfDoubts,
		"DeviceHistory/TellsWhatWentForGood": historyOfDeletions,
		"DeviceHistory/OfAUserGoesWithIt":    aUserLeavesNothing,
		"DeviceHistory/HasNoMoreThanItsMost": historyIsBounded,
		"DeviceHistory/GoesAfterItsTime":     historyGoes,
	}
}

// history is that of a device in words, the oldest first.
func (k *kit) history(d devices.Device) []string {
	k.Helper()
	list, err := k.Store.DeviceHistory(k.ctx, k.tenant, d.ID)
	k.ok(err)
	out := make([]string, len(list))
	for i, e := range list {
		require.Equal(k, d.ID, e.Device)
		require.False(k, e.At.IsZero())
		words := []string{e.Kind.String(), e.User, e.Reason, "", e.Actor}
		if e.Credential != 0 {
			words[3] = fmt.Sprintf("%d/%d", e.Credential, e.Version)
		}
		out[len(list)-1-i] = strings.Join(words, " ")
	}
	return out
}

func historyTells(k *kit) {
	start := k.Clock.Now()
	d := k.device("alice", "a", installed("i"))
	k.Clock.Advance(time.Second)
	k.device("alice", "a", installed("i")) // nothing that matters
	k.Clock.Advance(time.Second)
	k.verdict(d, delivery.DeviceSuspect)
	k.Clock.Advance(time.Second)
	k.verdict(d, delivery.DeviceSuspect) // it is already
	k.verdict(d, delivery.DeviceConfirmed)
	k.verdict(d, delivery.DeviceConfirmed)
	k.Clock.Advance(time.Second)
	k.verdict(d, delivery.DeviceRetired)
	k.Clock.Advance(time.Second)
	d = k.device("bob", "b", installed("i"))
	k.Clock.Advance(time.Second)
	k.verdict(d, delivery.DeviceRetired, func(f *delivery.Finish) { f.Version = 4 })
	k.runs(k.restoreJob(devices.RestoreFilter{Since: start}).ID)
	k.Clock.Advance(90 * day)
	require.Equal(k, 1, k.retireStale(60*day))
	require.Equal(k, []string{
		"registered alice   key_test",
		"suspected  fcm.unregistered 77/3 engine",
		"restored  sent 77/3 engine",
		"retired  fcm.unregistered 77/3 engine",
		"address_changed    key_test",
		"rebound bob   key_test",
		"restored  registered_again  key_test",
		"retired  fcm.unregistered 77/4 engine",
		"restored  asked_for  key_test",
		"retired  stale  engine",
	}, k.history(d))
	require.Len(k, k.history(k.device("carol", "c")), 1, "each has its own")
}

func historyOfDoubts(k *kit) {
	c := k.credential(channels.FCM, "")
	end := func(e delivery.Ending) {
		_, err := k.Store.EndHold(k.ctx, k.holds()[0].ID, e)
		k.ok(err)
		k.ended(1000)
	}
	d := k.device("alice", "a")
	k.Clock.Advance(time.Second)
	k.doubt(d, c)
	end(delivery.Reverse)
	k.Clock.Advance(time.Second)
	k.doubt(d, c)
	end(delivery.Confirm)
	n, err := k.Store.UnretireDevices(k.ctx, c.ID, c.Version, time.Time{}, k.Clock.Now())
	k.ok(err)
	require.Equal(k, 1, n)
	its := fmt.Sprintf("%d/%d engine", c.ID, c.Version)
	require.Equal(k, []string{
		"registered alice   key_test",
		"suspected  fcm.unregistered " + its,
		"restored  doubt_reversed " + its,
		"suspected  fcm.unregistered " + its,
		"retired  doubt_confirmed " + its,
		"suspected  credential_doubt " + its,
	}, k.history(d))
}

func historyOfDeletions(k *kit) {
	d := k.device("alice", "a")
	k.ok(k.Store.DeleteDevice(k.ctx, k.tenant, d.ID, "", "key_else"))
	require.Equal(k, []string{"registered alice   key_test", "deleted  asked_for  key_else"}, k.history(d))

	k.device("bob", "b", installed("old"))
	replaced := k.device("bob", "c", installed("new"))
	k.device("bob", "b", installed("new"))
	require.Equal(k, "deleted  replaced  key_test", k.history(replaced)[1])

	var oldest, newest devices.Device
	for i := range devices.MaxOwn + 1 {
		k.Clock.Advance(time.Second)
		r, err := k.Store.UpsertDevice(k.ctx, devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: "carol", App: "default", Channel: channels.FCM,
			Target: channels.Target{Kind: channels.FCMToken, Address: fmt.Sprint("own", i)}}, devices.Caller{Actor: "usk_test", Own: true})
		k.ok(err)
		if i == 0 {
			oldest = r.Device
		}
		newest = r.Device
	}
	k.ok(k.Store.DeleteDevice(k.ctx, k.tenant, newest.ID, "carol", "usk_test"))
	for _, id := range []ids.ID{oldest.ID, newest.ID, k.IDs.Next()} {
		_, err := k.Store.DeviceHistory(k.ctx, k.tenant, id)
		k.code(problem.NotFound, err)
	}
}

// aUserLeavesNothing takes the writes of somebody who wants to fill the disk.
func aUserLeavesNothing(k *kit) {
	own := devices.Caller{Actor: "usk_test", Own: true}
	for i := range 20 * devices.MaxOwn {
		r, err := k.Store.UpsertDevice(k.ctx, devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: "carol", App: "default", Channel: channels.FCM,
			InstallationID: []string{"", "i", "j"}[i%3], Target: channels.Target{Kind: channels.FCMToken, Address: fmt.Sprint("own", i-i%3%2)}}, own)
		k.ok(err)
		if i%5 == 0 {
			k.ok(k.Store.DeleteDevice(k.ctx, k.tenant, r.Device.ID, "carol", "usk_test"))
		}
	}
	there := map[any]bool{}
	for _, row := range k.Dump(k.T)["devices"].Rows {
		there[row["id"]] = true
	}
	for _, row := range k.Dump(k.T)["device_events"].Rows {
		require.True(k, there[row["device_id"]], "of a device that is there")
	}
}

func historyIsBounded(k *kit) {
	d := k.device("alice", "a")
	other := k.device("carol", "other")
	for i := range devices.MaxHistory + 5 {
		k.device([]string{"bob", "alice"}[i%2], "a")
	}
	list := k.history(d)
	require.Len(k, list, devices.MaxHistory)
	require.Equal(k, "rebound bob   key_test", list[len(list)-1], "the newest stay")
	require.Len(k, k.history(other), 1)
	require.Len(k, k.Dump(k.T)["device_events"].Rows, devices.MaxHistory+1)
}

func historyGoes(k *kit) {
	old := k.device("alice", "a")
	k.Clock.Advance(devices.KeepHistory / 2)
	newer := k.device("bob", "b")
	k.purge()
	require.Len(k, k.history(old), 1)
	k.Clock.Advance(devices.KeepHistory/2 + time.Millisecond)
	k.purge()
	require.Empty(k, k.history(old), "the device is still there")
	require.Len(k, k.history(newer), 1)
}
