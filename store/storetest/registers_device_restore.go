package storetest

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
)

func deviceRestoreTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"DeviceRestore/SelectsByEveryMember":    restoreSelects,
		"DeviceRestore/LeavesWhatCameLater":     restoreLeavesLater,
		"DeviceRestore/OutlivesAnOldVerdict":    restoreOutlivesVerdict,
		"DeviceRestore/GoesOnWindowByWindow":    restoreWindows,
		"DeviceRestore/DoesNothingIfCanceled":   restoreCanceled,
		"DeviceRestore/RefusesWhatItCannotRead": restoreUnreadable,
	}
}

// restoreJob makes a job, as the engine does.
func (k *kit) restoreJob(f devices.RestoreFilter) jobs.Job {
	k.Helper()
	spec, err := json.Marshal(f)
	k.ok(err)
	now := k.Clock.Now()
	j := jobs.Job{ID: k.IDs.Next(), Tenant: k.tenant, Kind: jobs.RestoreDevices, Spec: spec, Actor: "key_test", CreatedAt: now}
	_, err = k.Store.CreateJob(k.ctx, j, nil, delivery.Answer{}, time.Time{})
	k.ok(err)
	return j
}

// runs takes the steps of a job to its end, and counts them.
func (k *kit) runs(id ids.ID) (j jobs.Job, steps int) {
	k.Helper()
	for {
		c, _ := k.claimJob(jobs.RestoreDevices)
		if c.ID == 0 {
			j, err := k.Store.Job(k.ctx, k.tenant, id)
			k.ok(err)
			return j, steps
		}
		steps++
		_, err := k.Store.RestoreDevicesStep(k.ctx, c)
		k.ok(err)
	}
}

func (k *kit) restorable(f devices.RestoreFilter) (n int) {
	k.Helper()
	n, next, err := k.Store.CountRestorable(k.ctx, k.tenant, f, 0)
	k.ok(err)
	require.Zero(k, next)
	return n
}

func restoreSelects(k *kit) {
	start := k.Clock.Now()
	retired := k.device("alice", "retired")
	suspect := k.device("alice", "suspect")
	active := k.device("alice", "active")
	other := k.device("bob", "other", func(d *devices.Device) { d.App = "shop" })
	k.Clock.Advance(time.Minute)
	k.verdict(retired, delivery.DeviceRetired)
	k.verdict(suspect, delivery.DeviceSuspect)
	k.Clock.Advance(time.Minute)
	k.verdict(other, delivery.DeviceRetired, func(f *delivery.Finish) { f.Version, f.Attempt.Code = 4, "fcm.not_found" })
	all := devices.RestoreFilter{Until: start.Add(time.Hour)}
	for _, x := range []struct {
		name string
		edit func(*devices.RestoreFilter)
		want int
	}{
		{"all", func(*devices.RestoreFilter) {}, 2},
		{"suspect", func(f *devices.RestoreFilter) { f.Status = devices.Suspect }, 1},
		{"reason", func(f *devices.RestoreFilter) { f.Reason = "fcm.unregistered" }, 1},
		{"credential", func(f *devices.RestoreFilter) { f.Credential = 77 }, 2},
		{"version", func(f *devices.RestoreFilter) { f.Credential, f.Version = 77, 3 }, 1},
		{"another credential", func(f *devices.RestoreFilter) { f.Credential = 78 }, 0},
		{"app", func(f *devices.RestoreFilter) { f.App = "shop" }, 1},
		{"user", func(f *devices.RestoreFilter) { f.User = "bob" }, 1},
		{"unknown user", func(f *devices.RestoreFilter) { f.User = "carol" }, 0},
		{"channel", func(f *devices.RestoreFilter) { f.Channel = channels.FCM }, 2},
		{"another channel", func(f *devices.RestoreFilter) { f.Channel = channels.APNs }, 0},
		{"since", func(f *devices.RestoreFilter) { f.Since = start.Add(90 * time.Second) }, 1},
		{"until", func(f *devices.RestoreFilter) { f.Until = start.Add(90 * time.Second) }, 1},
	} {
		f := all
		x.edit(&f)
		require.Equal(k, x.want, k.restorable(f), x.name)
	}
	j := k.restoreJob(devices.RestoreFilter{Reason: "fcm.unregistered"})
	done, _ := k.runs(j.ID)
	require.Equal(k, jobs.Done, done.State)
	require.Equal(k, 1, done.Done)
	back := k.status(retired, devices.Active)
	require.Empty(k, back.Reason)
	require.Equal(k, k.Clock.Now(), back.StatusAt)
	require.Equal(k, retired.Epoch, back.Epoch)
	k.status(suspect, devices.Suspect)
	k.status(active, devices.Active)
	k.status(other, devices.Retired)

	there := *k
	there.tenant = k.newTenant("other")
	require.Zero(k, there.restorable(all), "of another tenant")
}

// restoreLeavesLater: what comes to the status after the call is not meant by it.
func restoreLeavesLater(k *kit) {
	before, after := k.device("alice", "before"), k.device("alice", "after")
	k.Clock.Advance(time.Second)
	k.verdict(before, delivery.DeviceRetired)
	j := k.restoreJob(devices.RestoreFilter{Reason: "fcm.unregistered"})
	k.Clock.Advance(time.Second)
	k.verdict(after, delivery.DeviceRetired)
	k.runs(j.ID)
	k.status(before, devices.Active)
	k.status(after, devices.Retired)
}

// restoreOutlivesVerdict: a send that began before says nothing of the device after.
func restoreOutlivesVerdict(k *kit) {
	d := k.device("alice", "a")
	k.Clock.Advance(time.Second)
	k.verdict(d, delivery.DeviceRetired)
	began := k.Clock.Now()
	k.Clock.Advance(time.Second)
	j := k.restoreJob(devices.RestoreFilter{Credential: 77})
	k.runs(j.ID)
	k.verdict(d, delivery.DeviceRetired, func(f *delivery.Finish) { f.StartedAt = began })
	k.status(d, devices.Active)
	k.Clock.Advance(time.Second)
	k.verdict(d, delivery.DeviceRetired, func(f *delivery.Finish) { f.StartedAt = k.Clock.Now() })
	k.status(d, devices.Retired)
}

// manyDevices registers devices of one user.
func (k *kit) manyDevices(n int, edit ...func(*devices.Device)) {
	k.Helper()
	var (
		running sync.WaitGroup
		faults  = make(chan error, n)
	)
	for i := range n {
		running.Go(func() {
			d := devices.Device{Tenant: k.tenant, ID: k.IDs.Next(), User: "alice", App: "default", Channel: channels.FCM,
				Target: channels.Target{Kind: channels.FCMToken, Address: fmt.Sprint("token-", i)}}
			for _, e := range edit {
				e(&d)
			}
			_, err := k.Store.UpsertDevice(k.ctx, d, devices.Caller{Actor: "key_test"})
			faults <- err
		})
	}
	running.Wait()
	for range n {
		k.ok(<-faults)
	}
}

func restoreWindows(k *kit) {
	const many = 1005 // more than a step looks at
	k.manyDevices(many)
	k.Exec(k.T, "UPDATE devices SET status=3, reason='x', status_at=status_at WHERE tenant_id=?", int64(k.tenant))
	f := devices.RestoreFilter{Reason: "x"}
	n, next, err := k.Store.CountRestorable(k.ctx, k.tenant, f, 0)
	k.ok(err)
	require.Equal(k, 1000, n)
	require.NotZero(k, next)
	n, next, err = k.Store.CountRestorable(k.ctx, k.tenant, f, next)
	k.ok(err)
	require.Equal(k, 5, n)
	require.Zero(k, next)
	j := k.restoreJob(f)
	done, steps := k.runs(j.ID)
	require.Equal(k, jobs.Done, done.State)
	require.Equal(k, many, done.Done)
	require.Equal(k, 2, steps)
}

func restoreCanceled(k *kit) {
	d := k.device("alice", "a")
	k.Clock.Advance(time.Second)
	k.verdict(d, delivery.DeviceRetired)
	j := k.restoreJob(devices.RestoreFilter{Credential: 77})
	c, _ := k.claimJob(jobs.RestoreDevices)
	_, err := k.Store.CancelJob(k.ctx, k.tenant, j.ID, "test")
	k.ok(err)
	_, err = k.Store.RestoreDevicesStep(k.ctx, c)
	require.ErrorIs(k, err, jobs.ErrLost)
	k.status(d, devices.Retired)
}

func restoreUnreadable(k *kit) {
	for _, spec := range []string{`{"status":"active?"}`, `{"status":"retired","channel":"pigeon"}`, `{"status":"retired","credential":"dev_1"}`, `[]`} {
		_, err := k.Store.RestoreDevicesStep(k.ctx, jobs.Job{ID: 1, Tenant: k.tenant, Kind: jobs.RestoreDevices, Spec: json.RawMessage(spec)})
		require.ErrorContains(k, err, "make a new one", spec)
	}
}
