package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/jobs"
)

// TestDevicesThatWereRetiredByMistakeComeBack: a device that a proven credential's
// verdict has retired is restored by a job, and gets what is sent afterwards.
func TestDevicesThatWereRetiredByMistakeComeBack(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	cred := k.credential(channels.FCM, "")
	d := k.device("alice", "token", channels.FCM, nil)
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	fcm := k.channels[channels.FCM]
	fcm.answer(always(channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered", Status: 404}))
	k.ends(k.post(toUser("alice")), 0, delivery.Dropped, delivery.Gone)
	fcm.answer(nil)
	got, err := k.store.Device(k.ctx, k.tenant, d.ID)
	require.NoError(t, err)
	require.Equal(t, devices.Retired, got.Status)

	o := delivery.DeviceRestoreOrder{Tenant: k.tenant, Filter: devices.RestoreFilter{Credential: cred.ID, Reason: "fcm.unregistered"}, Actor: "test"}
	n, exact, err := k.engine.CountRestorable(k.ctx, o)
	require.NoError(t, err)
	require.True(t, exact)
	require.Equal(t, 1, n)
	var made jobs.Job
	o.Render = func(j jobs.Job) (int, []byte, error) { made = j; return 202, []byte("{}"), nil }
	a, err := k.engine.RestoreDevices(k.ctx, o)
	require.NoError(t, err)
	require.Equal(t, 202, a.Status)
	require.Equal(t, 1, made.Total)
	eventually(t, "the job is done", func() bool {
		j, err := k.store.Job(k.ctx, k.tenant, made.ID)
		return err == nil && j.State == jobs.Done && j.Done == 1
	})
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)

	o.Filter = devices.RestoreFilter{}
	_, err = k.engine.RestoreDevices(k.ctx, o)
	require.ErrorContains(t, err, "filter")
	_, _, err = k.engine.CountRestorable(k.ctx, o)
	require.ErrorContains(t, err, "filter")
}

// TestSuspectsAreRetiredWhereSomebodyAsks: nothing but suspects, and these can be
// restored again.
func TestSuspectsAreRetiredWhereSomebodyAsks(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	cred := k.credential(channels.FCM, "")
	d := k.device("alice", "token", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	fcm.answer(always(channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered", Status: 404}))
	k.ends(k.post(toUser("alice")), 0, delivery.Held, delivery.InDoubt) // of a credential that is not proven
	order := func(o delivery.DeviceRestoreOrder, want devices.Status) {
		t.Helper()
		o.Tenant, o.Actor = k.tenant, "test"
		o.Filter.Credential = cred.ID
		o.Render = func(jobs.Job) (int, []byte, error) { return 202, []byte("{}"), nil }
		n, _, err := k.engine.CountRestorable(k.ctx, o)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, err = k.engine.RestoreDevices(k.ctx, o)
		require.NoError(t, err)
		eventually(t, "the device is "+want.String(), func() bool {
			got, err := k.store.Device(k.ctx, k.tenant, d.ID)
			return err == nil && got.Status == want
		})
	}
	order(delivery.DeviceRestoreOrder{Retire: true, Filter: devices.RestoreFilter{Status: devices.Suspect}}, devices.Retired)
	got, err := k.store.Device(k.ctx, k.tenant, d.ID)
	require.NoError(t, err)
	require.Equal(t, "fcm.unregistered", got.Reason)
	eventually(t, "the engine's clock is past it, which may not be the database's here", func() bool { return time.Now().After(got.StatusAt.Add(time.Millisecond)) })
	order(delivery.DeviceRestoreOrder{Filter: devices.RestoreFilter{Reason: got.Reason}}, devices.Active)
	_, err = k.engine.RestoreDevices(k.ctx, delivery.DeviceRestoreOrder{Tenant: k.tenant, Retire: true, Filter: devices.RestoreFilter{App: "default"}})
	require.ErrorContains(t, err, "filter.status")
}
