package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/webhooks"
)

func finishTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Finish/KeepsEveryAttempt":       keepsEveryAttempt,
		"Finish/LostClaimChangesNothing": lostClaimChangesNothing,
		"Finish/WithoutAttempt":          finishesWithoutAttempt,
		"Finish/AfterCancel":             finishesAfterCancel,
		"Finish/Proves":                  finishProves,
		"Finish/LearnsTheEnvironment":    learnsTheEnvironment,
		"Finish/DeviceEffects":           deviceEffects,
		"Finish/OldVersion":              oldVersion,
		"Finish/RegisteredSince":         registeredSince,
		"Finish/DisablesAnEndpoint":      disablesAnEndpoint,
		"Finish/ChangedSince":            changedSince,
	}
}

func keepsEveryAttempt(k *kit) {
	a := k.accepted(1)
	for i := range 4 {
		c := k.claim()[0]
		require.Equal(k, i, c.Attempts)
		require.Equal(k, i, c.Spent)
		require.Equal(k, channels.Renewal(i%2), c.Renewed)
		k.finish(delivery.Finish{Row: c.Row, Attempt: k.attempt(c.Row, channels.Retry, "busy"),
			Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now().Add(time.Second), Spent: i + 1, Renew: channels.Renewal((i + 1) % 2)}})
		v := k.is(c.Row, delivery.Pending, delivery.NoReason)
		require.Equal(k, k.Clock.Now().Add(time.Second), v.DueAt)
		k.Clock.Advance(time.Second)
	}
	k.sends(k.claim()[0])
	v := k.is(a.Rows[0], delivery.Sent, delivery.NoReason)
	require.Len(k, v.Attempts, 5)
	require.Equal(k, v.Last, v.Attempts[4])
	for i, x := range v.Attempts {
		require.Equal(k, i+1, x.Number)
		require.Equal(k, 200+i, x.Status)
		require.Equal(k, "p", x.ProviderID)
		require.Equal(k, 5*time.Millisecond, x.Duration)
	}
	require.Zero(k, v.DueAt)
}

func lostClaimChangesNothing(k *kit) {
	a := k.accepted(1)
	old := k.claim()[0]
	k.Clock.Advance(time.Minute)
	now := k.claim()[0]
	before := k.view(a.Rows[0])
	for _, t := range []delivery.Transition{
		{State: delivery.Sent, Spent: 1}, {State: delivery.Pending, DueAt: k.Clock.Now(), Spent: 1}, {State: delivery.Dead, Reason: delivery.Rejected, Spent: 1},
	} {
		require.True(k, k.finish(delivery.Finish{Row: old.Row, Transition: t, Attempt: k.attempt(old.Row, channels.Accepted, "late")}).Lost)
		require.True(k, k.finish(delivery.Finish{Row: old.Row, Transition: t}).Lost)
	}
	require.Equal(k, before, k.view(a.Rows[0]))
	k.sends(now)
	// Once finished, even the right claim changes nothing.
	before = k.view(a.Rows[0])
	require.True(k, k.finish(delivery.Finish{Row: now.Row, Transition: delivery.Transition{State: delivery.Dead, Reason: delivery.Rejected}}).Lost)
	require.Equal(k, before, k.view(a.Rows[0]))
}

func finishesWithoutAttempt(k *kit) {
	k.accepted(1)
	c := k.claim()[0]
	res := k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now(), Renew: channels.RenewToken}})
	require.Equal(k, delivery.Pending, res.Written.State)
	v := k.is(c.Row, delivery.Pending, delivery.NoReason)
	require.Empty(k, v.Attempts)
	c = k.claim()[0]
	require.Equal(k, channels.RenewToken, c.Renewed)
	k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Dropped, Reason: delivery.Expired}})
	k.is(c.Row, delivery.Dropped, delivery.Expired)
}

// finishesAfterCancel: what was being sent when its notification was canceled is
// not tried again; what was sent is sent.
func finishesAfterCancel(k *kit) {
	a := k.accepted(3)
	list := k.claim()
	n, err := k.Store.Cancel(k.ctx, k.tenant, a.ID, k.Clock.Now())
	k.ok(err)
	require.Zero(k, n)
	res := k.finish(delivery.Finish{Row: list[0].Row, Attempt: k.attempt(list[0].Row, channels.Retry, "busy"),
		Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now(), Spent: 1}})
	require.Equal(k, delivery.Transition{State: delivery.Dropped, Reason: delivery.Canceled, Spent: 1}, res.Written)
	require.Len(k, k.is(list[0].Row, delivery.Dropped, delivery.Canceled).Attempts, 1)
	k.finish(delivery.Finish{Row: list[1].Row, Hold: delivery.Hold{App: "default", Channel: channels.FCM},
		Transition: delivery.Transition{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing}})
	require.Zero(k, k.is(list[1].Row, delivery.Dropped, delivery.Canceled).HoldID)
	k.sends(list[2])
	k.is(list[2].Row, delivery.Sent, delivery.NoReason)
}

func finishProves(k *kit) {
	c := k.credential(channels.FCM, "")
	k.accepted(1)
	row := k.claim()[0].Row
	k.finish(delivery.Finish{Row: row, Transition: delivery.Transition{State: delivery.Sent, Spent: 1}, Attempt: k.attempt(row, channels.Accepted, "ok"),
		Credential: c.ID, Version: 1, Prove: true})
	got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	first := k.Clock.Now()
	require.Equal(k, first, got.ProvenAt)
	require.Zero(k, k.credential(channels.FCM, "").ProvenAt, "a new version has yet to prove itself")
}

func learnsTheEnvironment(k *kit) {
	apns := func(env channels.Environment) func(*devices.Device) {
		return func(d *devices.Device) {
			d.Channel, d.Target.Kind, d.Target.Environment = channels.APNs, channels.APNsToken, env
		}
	}
	auto, known, rebound := k.device("a", "aa", apns(channels.Auto)), k.device("b", "bb", apns(channels.Production)), k.device("c", "cc", apns(channels.Auto))
	for _, d := range []devices.Device{auto, known, rebound} {
		a := k.notification(d.ID)
		a.Rows[0].Epoch, a.Rows[0].Channel = d.Epoch, channels.APNs
		k.accept(a)
	}
	k.device("someone-else", "cc", apns(channels.Auto))
	for _, c := range k.claim() {
		k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Sent, Spent: 1}, Learned: channels.Sandbox,
			Attempt: k.attempt(c.Row, channels.Accepted, "ok")})
	}
	for d, want := range map[*devices.Device]channels.Environment{&auto: channels.Sandbox, &known: channels.Production, &rebound: channels.Auto} {
		got, err := k.Store.Device(k.ctx, k.tenant, d.ID)
		k.ok(err)
		require.Equal(k, want, got.Target.Environment)
	}
}

// verdict finishes a delivery to a device with an effect on it.
func (k *kit) verdict(d devices.Device, effect delivery.DeviceEffect, edit ...func(*delivery.Finish)) delivery.View {
	k.Helper()
	a := k.notification(d.ID)
	a.Rows[0].Epoch, a.Rows[0].UserID = d.Epoch, d.UserID
	k.accept(a)
	c := k.claim()[0]
	f := delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Dropped, Reason: delivery.Gone, Spent: 1, Device: effect},
		Attempt: k.attempt(c.Row, channels.Gone, "fcm.unregistered"), Credential: 77, Version: 3}
	for _, e := range edit {
		e(&f)
	}
	k.finish(f)
	return k.view(c.Row)
}

func (k *kit) status(d devices.Device, want devices.Status) devices.Device {
	k.Helper()
	got, err := k.Store.Device(k.ctx, k.tenant, d.ID)
	k.ok(err)
	require.Equal(k, want, got.Status)
	return got
}

func deviceEffects(k *kit) {
	const untouched, retired, suspect, confirmed = delivery.DeviceUntouched, delivery.DeviceRetired, delivery.DeviceSuspect, delivery.DeviceConfirmed
	for _, x := range []struct {
		effects []delivery.DeviceEffect
		want    devices.Status
	}{
		{[]delivery.DeviceEffect{untouched}, devices.Active},
		{[]delivery.DeviceEffect{suspect}, devices.Suspect},
		{[]delivery.DeviceEffect{retired}, devices.Retired},
		{[]delivery.DeviceEffect{suspect, confirmed}, devices.Active},
		{[]delivery.DeviceEffect{suspect, retired}, devices.Retired},
		{[]delivery.DeviceEffect{retired, suspect}, devices.Retired},
		{[]delivery.DeviceEffect{retired, confirmed}, devices.Retired},
		{[]delivery.DeviceEffect{confirmed}, devices.Active},
	} {
		d := k.device("alice", k.IDs.Next().Format("x"))
		for _, e := range x.effects {
			k.Clock.Advance(time.Second)
			k.verdict(d, e)
		}
		got := k.status(d, x.want)
		if x.want == devices.Active {
			require.Empty(k, got.Reason)
		} else {
			require.Equal(k, "fcm.unregistered", got.Reason)
		}
	}
	// Another epoch: the verdict is about somebody else's registration.
	d := k.device("alice", "rebound")
	k.Clock.Advance(time.Second)
	k.verdict(d, retired, func(f *delivery.Finish) { k.device("bob", "rebound"); f.StartedAt = k.Clock.Now().Add(time.Second) })
	k.status(d, devices.Active)
}

// oldVersion: what an older version of a credential said of a device does not
// count any more.
func oldVersion(k *kit) {
	c := k.credential(channels.FCM, "")
	d := k.device("alice", "a")
	k.credential(channels.FCM, "")
	k.Clock.Advance(time.Second)
	for version, want := range map[int]devices.Status{1: devices.Active, 2: devices.Retired} {
		x := d
		if version == 2 {
			x = k.device("bob", "b")
			k.Clock.Advance(time.Second)
		}
		k.verdict(x, delivery.DeviceRetired, func(f *delivery.Finish) { f.Credential, f.Version = c.ID, version })
		k.status(x, want)
	}
}

func registeredSince(k *kit) {
	d := k.device("alice", "a")
	started := k.Clock.Now()
	k.Clock.Advance(time.Second)
	k.device("alice", "a") // the app registers again while the request is under way
	for _, effect := range []delivery.DeviceEffect{delivery.DeviceRetired, delivery.DeviceSuspect} {
		v := k.verdict(d, effect, func(f *delivery.Finish) { f.StartedAt = started })
		k.status(d, devices.Active)
		require.Equal(k, delivery.Pending, v.State, "it goes to the address that was registered since")
		require.Zero(k, v.Spent)
		for _, c := range k.claim() {
			k.sends(c)
		}
	}
	k.verdict(d, delivery.DeviceRetired)
	k.status(d, devices.Retired)
	// The app's own time of registration counts as well.
	d = k.device("bob", "b", func(d *devices.Device) { d.Target.RegisteredAt = k.Clock.Now().Add(time.Minute) })
	k.verdict(d, delivery.DeviceRetired)
	k.status(d, devices.Active)
}

// goneEndpoint finishes a delivery to an endpoint that said it is gone.
func (k *kit) goneEndpoint(e webhooks.Endpoint, started time.Time) {
	k.Helper()
	a := k.notification(e.ID)
	onWebhook(&a)
	k.accept(a)
	c := k.claim()[0]
	k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Dropped, Reason: delivery.Gone, Spent: 1, Device: delivery.DeviceRetired},
		Attempt: k.attempt(c.Row, channels.Gone, "webhook.gone"), StartedAt: started})
}

func disablesAnEndpoint(k *kit) {
	e := k.endpoint()
	k.goneEndpoint(e, k.Clock.Now())
	got, err := k.Store.Endpoint(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.Equal(k, webhooks.Disabled, got.Status)
	require.Equal(k, "webhook.gone", got.StatusReason)
	require.True(k, got.UpdatedAt.After(e.UpdatedAt), "also within a millisecond")
	holds := k.holds()
	require.Len(k, holds, 1)
	require.Equal(k, delivery.HoldEndpoint, holds[0].Scope)
	require.Equal(k, e.ID, holds[0].Subject)
	k.goneEndpoint(e, k.Clock.Now().Add(time.Minute))
	require.Len(k, k.holds(), 1)
}

func changedSince(k *kit) {
	e := k.endpoint()
	started := k.Clock.Now()
	k.Clock.Advance(time.Second)
	was := e.UpdatedAt
	e.URL, e.UpdatedAt = "https://hooks.example.com/new", k.Clock.Now()
	k.ok(k.Store.UpdateEndpoint(k.ctx, e, was, webhooks.Edit{Actor: "test"}))
	k.goneEndpoint(e, started)
	got, err := k.Store.Endpoint(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.Equal(k, webhooks.Active, got.Status, "it was the old address that is gone")
	require.Empty(k, k.holds())
}
