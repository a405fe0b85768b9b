package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func appDeletionTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"AppDeletion/TakesAllOfTheApp":        deletesAnApp,
		"AppDeletion/OfNoneIsNotFound":        deletesNoApp,
		"AppDeletion/OfOneThatDevicesName":    deletesAnAppOfDevices,
		"AppDeletion/LeavesWhatCameLater":     appDeletionLeavesLater,
		"AppDeletion/EndsWhatIsHeld":          appDeletionEndsHolds,
		"AppDeletion/GoesOnWindowByWindow":    appDeletionWindows,
		"AppDeletion/RefusesWhatItCannotRead": appDeletionUnreadable,
	}
}

func ofApp(name string) func(*devices.Device) { return func(d *devices.Device) { d.App = name } }

func onAPNs(d *devices.Device) {
	d.Channel, d.Target.Kind, d.Target.Environment = channels.APNs, channels.APNsToken, channels.Production
}

// shop gives the tenant an app with a credential.
func (k *kit) shop() tenants.Credential {
	k.Helper()
	c, err := k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "shop", Channel: channels.FCM},
		channels.Credential{Settings: []byte(`{}`), Secret: []byte("of-the-shop")}, tenants.PutOptions{}, change("credential.put"))
	k.ok(err)
	return c
}

func (k *kit) deleteApp(name string) ids.ID {
	k.Helper()
	job, err := k.Store.DeleteApp(k.ctx, k.tenant, name, tenants.Change{Actor: "key_test", Action: "app.delete"})
	k.ok(err)
	return job
}

// finishDeletion takes the steps of the job that deletes an app, and counts them.
func (k *kit) finishDeletion(id ids.ID) (j jobs.Job, steps int) {
	k.Helper()
	for {
		c, next := k.claimJob(jobs.DeleteApp)
		switch {
		case c.ID != 0:
			steps++
			_, err := k.Store.DeleteAppStep(k.ctx, c)
			k.ok(err)
		case next.IsZero():
			j, err := k.Store.Job(k.ctx, k.tenant, id)
			k.ok(err)
			return j, steps
		default:
			k.Clock.Advance(max(next.Sub(k.Clock.Now()), time.Millisecond))
		}
	}
}

func (k *kit) noDevice(d devices.Device) {
	k.Helper()
	_, err := k.Store.Device(k.ctx, k.tenant, d.ID)
	k.code(problem.NotFound, err)
}

func deletesAnApp(k *kit) {
	kept, c := k.credential(channels.FCM, ""), k.shop()
	a, b := k.device("alice", "a", ofApp("shop")), k.device("bob", "b", ofApp("shop"), onAPNs)
	other := k.device("alice", "a")
	mine := k.tenant
	k.tenant = k.newTenant("other")
	k.shop()
	others := k.device("alice", "a", ofApp("shop"))
	k.tenant = mine
	k.Clock.Advance(time.Second)
	k.verdict(b, delivery.DeviceRetired)
	k.queue(a)
	k.affected(delivery.AffectedBy{App: "shop"}, delivery.Affected{Devices: 1, Waiting: 1})
	k.affected(delivery.AffectedBy{App: "default"}, delivery.Affected{Devices: 1})

	job := k.deleteApp("shop")
	_, err := k.Store.OpenCredential(k.ctx, k.tenant, c.ID)
	k.code(problem.NotFound, err)
	_, err = k.Store.Credential(k.ctx, k.tenant, kept.ID)
	k.ok(err)
	list, err := k.Store.Apps(k.ctx, k.tenant)
	k.ok(err)
	require.Len(k, list, 1, "with the call")
	for _, row := range k.Dump(k.T)["credential_versions"].Rows {
		require.NotEqual(k, int64(c.ID), row["credential_id"], "nor are its secrets left")
	}

	j, _ := k.finishDeletion(job)
	require.Equal(k, jobs.Done, j.State)
	require.Equal(k, 2, j.Done)
	require.Equal(k, "key_test", j.Actor)
	k.noDevice(a)
	k.noDevice(b)
	k.status(other, devices.Active)
	history, err := k.Store.DeviceHistory(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.Equal(k, devices.EventDeleted, history[0].Kind)
	require.Equal(k, devices.ByApp, history[0].Reason)
	require.Equal(k, "key_test", history[0].Actor)
	require.False(k, k.claim()[0].Now.Exists, "what waits finds no device, and is dropped as gone")

	k.tenant = others.Tenant
	k.status(others, devices.Active)
	list, err = k.Store.Apps(k.ctx, k.tenant)
	k.ok(err)
	require.Len(k, list, 2)
}

func deletesNoApp(k *kit) {
	k.shop()
	mine := k.tenant
	k.tenant = k.newTenant("other")
	_, err := k.Store.DeleteApp(k.ctx, k.tenant, "shop", change("app.delete"))
	k.code(problem.NotFound, err)
	_, err = k.Store.Affected(k.ctx, k.tenant, delivery.AffectedBy{App: "shop"})
	k.code(problem.NotFound, err)
	k.tenant = mine
	k.deleteApp("shop")
	_, err = k.Store.DeleteApp(k.ctx, k.tenant, "shop", change("app.delete"))
	k.code(problem.NotFound, err)
}

// deletesAnAppOfDevices: an app that nobody has made, and that has no credential, is
// one as soon as a device names it.
func deletesAnAppOfDevices(k *kit) {
	mine := k.tenant
	k.tenant = k.newTenant("other")
	k.device("alice", "a", ofApp("others"))
	k.tenant = mine
	k.device("alice", "a")
	names := func() (out []string) {
		list, err := k.Store.Apps(k.ctx, k.tenant)
		k.ok(err)
		for _, a := range list {
			out = append(out, a.Name)
		}
		return out
	}
	require.Equal(k, []string{"default"}, names())
	a := k.device("alice", "b", ofApp("tablet"))
	k.device("bob", "c", ofApp("tablet"), onAPNs)
	k.device("bob", "d", ofApp("a-game"), onAPNs)
	require.Equal(k, []string{"a-game", "default", "tablet"}, names())
	k.affected(delivery.AffectedBy{App: "tablet"}, delivery.Affected{Devices: 2})
	_, err := k.Store.DeleteApp(k.ctx, k.tenant, "others", change("app.delete"))
	k.code(problem.NotFound, err)

	k.Clock.Advance(time.Second)
	job := k.deleteApp("tablet")
	require.Equal(k, []string{"a-game", "default"}, names(), "with the call")
	_, err = k.Store.DeleteApp(k.ctx, k.tenant, "tablet", change("app.delete"))
	k.code(problem.NotFound, err)
	j, _ := k.finishDeletion(job)
	require.Equal(k, 2, j.Done)
	k.noDevice(a)
	require.Equal(k, []string{"a-game", "default"}, names())
}

// appDeletionLeavesLater: an app of the same name may be made again at once, and what
// is registered with it is not taken away. What a verdict says meanwhile of a device
// of the deleted app does not keep it.
func appDeletionLeavesLater(k *kit) {
	k.shop()
	again, stays := k.device("alice", "again", ofApp("shop")), k.device("bob", "suspected", ofApp("shop"))
	a := k.queue(stays)
	inHand := k.claim()[0]
	require.Equal(k, a.ID, inHand.Notification)
	k.Clock.Advance(time.Second)
	job := k.deleteApp("shop")
	k.Clock.Advance(time.Second)
	k.finish(delivery.Finish{Row: inHand.Row, StartedAt: k.Clock.Now(), Transition: delivery.Transition{State: delivery.Dropped, Reason: delivery.Gone, Device: delivery.DeviceSuspect},
		Attempt: k.attempt(inHand.Row, channels.Gone, "fcm.unregistered")})
	k.status(stays, devices.Suspect)
	require.Equal(k, again.ID, k.device("alice", "again", ofApp("shop")).ID)
	added, c := k.device("carol", "new", ofApp("shop")), k.shop()
	j, _ := k.finishDeletion(job)
	require.Equal(k, 1, j.Done)
	k.noDevice(stays)
	k.status(again, devices.Active)
	k.status(added, devices.Active)
	_, err := k.Store.OpenCredential(k.ctx, k.tenant, c.ID)
	k.ok(err)
}

// appDeletionEndsHolds: nothing waits for a credential that there will not be.
func appDeletionEndsHolds(k *kit) {
	c := k.shop()
	d, doubted := k.device("alice", "a", ofApp("shop")), k.device("bob", "b", ofApp("shop"))
	denied, _ := k.hold(d.ID, delivery.Hold{Subject: c.ID, Version: 1}, delivery.HoldCredential, delivery.CredentialDenied, "fcm.denied",
		func(f *delivery.Finish) { f.Hold.Version = 0 })
	gone, _ := k.hold(doubted.ID, delivery.Hold{Subject: c.ID, Version: 1}, delivery.HoldDoubt, delivery.InDoubt, "fcm.unregistered")
	job := k.deleteApp("shop")
	k.ended(10)
	k.is(denied, delivery.Pending, delivery.NoReason)
	k.is(gone, delivery.Dropped, delivery.Gone)
	// A node looks at one before its device is gone.
	late := k.claim()[0]
	missing := delivery.Finish{Row: late.Row, Hold: delivery.Hold{App: "shop", Channel: channels.FCM},
		Transition: delivery.Transition{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing}}
	require.True(k, k.finish(missing).Opened)
	k.is(denied, delivery.Held, delivery.CredentialMissing)
	k.finishDeletion(job)
	k.ended(10)
	k.is(denied, delivery.Pending, delivery.NoReason)
	require.Empty(k, k.holds())
	require.False(k, k.claim()[0].Now.Exists)
}

func appDeletionWindows(k *kit) {
	k.shop()
	const n = 1005 // more than a step looks at
	k.manyDevices(n, ofApp("shop"))
	k.Clock.Advance(time.Second)
	job := k.deleteApp("shop")
	j, steps := k.finishDeletion(job)
	require.Equal(k, n, j.Done)
	require.Equal(k, 4+3, steps, "a thousand in a step, one at least for each channel, and a second look two minutes later")
	k.affectedGone("shop")
}

// affectedGone makes the app anew and finds nothing in it.
func (k *kit) affectedGone(app string) {
	k.Helper()
	k.ok(k.Store.PutApp(k.ctx, tenants.App{Tenant: k.tenant, Name: app, CreatedAt: k.Clock.Now()}, change("app.put")))
	k.affected(delivery.AffectedBy{App: app}, delivery.Affected{})
}

func appDeletionUnreadable(k *kit) {
	k.shop()
	k.deleteApp("shop")
	k.Exec(k.T, "UPDATE jobs SET cursor=? WHERE kind=?", `{"channel":9}`, int(jobs.DeleteApp))
	c, _ := k.claimJob(jobs.DeleteApp)
	_, err := k.Store.DeleteAppStep(k.ctx, c)
	k.code(problem.Invalid, err)
}
