package storetest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

func holdTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Refused/IsLookedAtAgain":           refusedIsLookedAtAgain,
		"Refused/LeavesWithItsCredential":   refusedLeavesWithItsCredential,
		"Refused/FindsTheCredentialsHold":   refusedFindsTheCredentialsHold,
		"Refused/TheTargetsThatHaveWorked":  targetsThatHaveWorked,
		"Hold/OpenedByAVerdict":             holdOpenedByVerdict,
		"Hold/JoinedByOthers":               holdJoined,
		"Hold/NotOpenedByDeferral":          holdNotOpenedByDeferral,
		"Hold/NotOpenedForAnOldVersion":     holdNotForOldVersion,
		"Hold/NotOpenedWhereCredentialIs":   holdNotWhereCredentialIs,
		"Hold/OfAnOriginPausesNothingElse":  holdOfAnOrigin,
		"Hold/ResumesInSeveralTransactions": holdResumes,
		"Hold/ConfirmDropsAndRetires":       holdConfirms,
		"Hold/ReverseSendsAndRevives":       holdReverses,
		"Hold/EndsOnce":                     holdEndsOnce,
		"Hold/KeepsAWebhooksBudget":         holdKeepsBudget,
		"Hold/LastsNoLongerThanAWebhookMay": holdLastsAsLongAsItMay,
		"Hold/ToSettle":                     holdsToSettle,
		"Restore/MakesSuspectAgain":         restores,
	}
}

// hold finishes a new delivery as held. With code it was by a verdict.
func (k *kit) hold(target ids.ID, h delivery.Hold, scope delivery.HoldScope, why delivery.Reason, code string, edit ...func(*delivery.Finish)) (delivery.Row, delivery.FinishResult) {
	k.Helper()
	a := k.notification(target)
	if scope == delivery.HoldEndpoint {
		onWebhook(&a)
	}
	k.accept(a)
	c := k.claim()[0]
	h.Reason, h.Detail = why, "said so"
	f := delivery.Finish{Row: c.Row, Hold: h, Credential: h.Subject, Version: max(h.Version, 1),
		Transition: delivery.Transition{State: delivery.Held, Reason: why, Hold: scope}}
	if code != "" {
		f.Attempt = k.attempt(c.Row, channels.Denied, code)
	}
	for _, e := range edit {
		e(&f)
	}
	return c.Row, k.finish(f)
}

func holdOpenedByVerdict(k *kit) {
	c := k.credential(channels.FCM, "")
	row, res := k.hold(1, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "fcm.denied")
	require.True(k, res.Opened)
	v := k.is(row, delivery.Held, delivery.CredentialDenied)
	list := k.holds()
	require.Equal(k, []delivery.Hold{{Tenant: k.tenant, ID: v.HoldID, Scope: delivery.HoldCredential, Subject: c.ID, Reason: delivery.CredentialDenied,
		Detail: "said so", Since: k.Clock.Now(), Held: 1}}, list)
	got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, tenants.CredentialPaused, got.Status)
	require.Equal(k, "said so", got.Reason)
	require.Empty(k, k.claim())
}

func holdJoined(k *kit) {
	c := k.credential(channels.FCM, "")
	first, _ := k.hold(1, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "fcm.denied")
	for _, code := range []string{"fcm.denied", ""} {
		next, res := k.hold(2, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, code)
		require.False(k, res.Opened)
		require.Equal(k, k.view(first).HoldID, k.view(next).HoldID)
	}
	require.Equal(k, 3, k.holds()[0].Held)
}

func holdNotOpenedByDeferral(k *kit) {
	c := k.credential(channels.FCM, "")
	row, res := k.hold(1, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialPaused, "")
	require.False(k, res.Opened)
	require.Equal(k, delivery.Pending, res.Written.State)
	v := k.is(row, delivery.Pending, delivery.NoReason)
	require.Zero(k, v.HoldID)
	require.Equal(k, k.Clock.Now(), v.DueAt, "there is nothing to wait for")
	require.Empty(k, k.holds())
}

func holdNotForOldVersion(k *kit) {
	c := k.credential(channels.FCM, "")
	k.credential(channels.FCM, "")
	row, res := k.hold(1, delivery.Hold{Subject: c.ID, Version: 1}, delivery.HoldDoubt, delivery.InDoubt, "fcm.unregistered")
	require.False(k, res.Opened)
	k.is(row, delivery.Pending, delivery.NoReason)
	_, res = k.hold(2, delivery.Hold{Subject: c.ID, Version: 2}, delivery.HoldDoubt, delivery.InDoubt, "fcm.unregistered")
	require.False(k, res.Written.State == delivery.Held && !res.Opened)
}

func holdNotWhereCredentialIs(k *kit) {
	missing := func(kind channels.Kind, qualifier string) bool {
		_, res := k.hold(k.IDs.Next(), delivery.Hold{App: "default", Channel: kind, Qualifier: qualifier}, delivery.HoldMissing, delivery.CredentialMissing, "")
		return res.Written.State == delivery.Held
	}
	require.True(k, missing(channels.APNs, "production"))
	k.credential(channels.APNs, "sandbox")
	require.True(k, missing(channels.APNs, "production"), "another environment does not help")
	require.False(k, missing(channels.APNs, ""), "a device of unknown environment takes any")
	require.False(k, missing(channels.APNs, "sandbox"))
	require.True(k, missing(channels.FCM, ""))
	k.credential(channels.APNs, "")
	require.False(k, missing(channels.APNs, "production"), "one for both serves both")
}

func holdOfAnOrigin(k *kit) {
	c := k.credential(channels.WebPush, "vapid")
	_, res := k.hold(1, delivery.Hold{Subject: c.ID, Qualifier: "https://push.example.com"}, delivery.HoldCredential, delivery.CredentialDenied, "webpush.denied")
	require.True(k, res.Opened)
	got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, tenants.CredentialActive, got.Status, "other push services may take it")
	_, err = k.Store.ResumeCredential(k.ctx, k.tenant, c.ID, change("credential.resume"))
	k.ok(err)
	require.Equal(k, delivery.Resume, k.holds()[0].Ending)
}

// manyHeld makes n held deliveries of one doubt.
func (k *kit) manyHeld(n int) (tenants.Credential, []delivery.Row) {
	k.Helper()
	c := k.credential(channels.FCM, "")
	k.accepted(n)
	list := k.claim()
	require.Len(k, list, n)
	rows := make([]delivery.Row, n)
	done := make(chan delivery.FinishResult, n)
	for i, x := range list {
		rows[i] = x.Row
		k.Store.Finish(delivery.Finish{Row: x.Row, Credential: c.ID, Version: 1, Now: k.Clock.Now(), ExpiresAt: x.ExpiresAt,
			Hold:       delivery.Hold{Subject: c.ID, Version: 1, Reason: delivery.InDoubt},
			Transition: delivery.Transition{State: delivery.Held, Reason: delivery.InDoubt, Hold: delivery.HoldDoubt, Spent: 1},
			Attempt:    k.attempt(x.Row, channels.Gone, "fcm.unregistered")}, func(r delivery.FinishResult) { done <- r })
	}
	for range n {
		k.ok((<-done).Err)
	}
	require.Equal(k, n, k.holds()[0].Held)
	return c, rows
}

func holdResumes(k *kit) {
	const n = 2500
	c, rows := k.manyHeld(n)
	_, err := k.Store.ResumeCredential(k.ctx, k.tenant, c.ID, change("credential.resume"))
	k.ok(err)
	require.Equal(k, 3, k.ended(1000), "no transaction moves more than its share")
	require.Empty(k, k.holds())
	for _, r := range []delivery.Row{rows[0], rows[n-1]} {
		v := k.is(r, delivery.Pending, delivery.NoReason)
		require.Zero(k, v.HoldID)
		require.Equal(k, r.ExpiresAt.UTC(), v.ExpiresAt, "a push does not wait for us")
	}
	require.Len(k, k.claim(), n)
}

// doubt makes a device suspect and holds its delivery.
func (k *kit) doubt(d devices.Device, c tenants.Credential) delivery.Row {
	k.Helper()
	row, _ := k.hold(d.ID, delivery.Hold{Subject: c.ID, Version: c.Version}, delivery.HoldDoubt, delivery.InDoubt, "fcm.unregistered", func(f *delivery.Finish) {
		f.Transition.Device, f.Transition.Spent, f.Row.Epoch, f.Credential, f.Version = delivery.DeviceSuspect, 1, d.Epoch, c.ID, c.Version
	})
	k.is(row, delivery.Held, delivery.InDoubt)
	k.status(d, devices.Suspect)
	return row
}

func holdConfirms(k *kit) {
	c := k.credential(channels.FCM, "")
	alice, bob := k.device("alice", "a"), k.device("bob", "b")
	row := k.doubt(alice, c)
	k.doubt(bob, c)
	k.device("bob", "b") // came back meanwhile
	ended, err := k.Store.EndHold(k.ctx, k.holds()[0].ID, delivery.Confirm)
	k.ok(err)
	require.True(k, ended)
	k.ended(1000)
	k.is(row, delivery.Dropped, delivery.Gone)
	k.status(alice, devices.Retired)
	k.status(bob, devices.Active)
	require.Empty(k, k.holds())
}

func holdReverses(k *kit) {
	c := k.credential(channels.FCM, "")
	d := k.device("alice", "a")
	row := k.doubt(d, c)
	require.Equal(k, 1, k.view(row).Spent)
	k.Clock.Advance(time.Second)
	next := k.credential(channels.FCM, "")
	require.Equal(k, 2, next.Version)
	k.ended(1000)
	v := k.is(row, delivery.Pending, delivery.NoReason)
	require.Zero(k, v.Spent, "the credential was at fault, so the attempt was free")
	require.Equal(k, k.Clock.Now(), v.DueAt)
	got := k.status(d, devices.Active)
	require.Empty(k, got.Reason)
}

func holdEndsOnce(k *kit) {
	c := k.credential(channels.FCM, "")
	k.hold(1, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "fcm.denied")
	id := k.holds()[0].ID
	for i, want := range []bool{true, false} {
		ended, err := k.Store.EndHold(k.ctx, id, delivery.Ending(i+1))
		k.ok(err)
		require.Equal(k, want, ended)
	}
	require.Equal(k, delivery.Resume, k.holds()[0].Ending)
	// What is put off now does not join a hold that ends.
	row, _ := k.hold(2, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "")
	k.is(row, delivery.Pending, delivery.NoReason)
	// A verdict opens another.
	_, res := k.hold(3, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "fcm.denied")
	require.True(k, res.Opened)
	require.Len(k, k.holds(), 2)
	k.ended(1000)
	require.Len(k, k.holds(), 1)
}

func (k *kit) paused(e webhooks.Endpoint) webhooks.Endpoint {
	k.Helper()
	return k.setStatus(e, webhooks.Paused)
}

func (k *kit) setStatus(e webhooks.Endpoint, s webhooks.Status) webhooks.Endpoint {
	k.Helper()
	was := e.UpdatedAt
	k.Clock.Advance(time.Millisecond)
	e.Status, e.UpdatedAt = s, k.Clock.Now()
	k.ok(k.Store.UpdateEndpoint(k.ctx, e, was, webhooks.Edit{Actor: "test"}))
	return e
}

func holdKeepsBudget(k *kit) {
	e := k.paused(k.endpoint())
	row, _ := k.hold(e.ID, delivery.Hold{Subject: e.ID, Channel: channels.Webhook}, delivery.HoldEndpoint, delivery.EndpointPaused, "")
	k.is(row, delivery.Held, delivery.EndpointPaused)
	k.Clock.Advance(100 * time.Hour) // far beyond its own deadline of an hour
	require.Empty(k, k.claim())
	k.setStatus(e, webhooks.Active)
	k.ended(1000)
	v := k.is(row, delivery.Pending, delivery.NoReason)
	require.Equal(k, k.Clock.Now().Add(time.Hour), v.ExpiresAt)
	require.Len(k, k.claim(), 1)
}

func holdLastsAsLongAsItMay(k *kit) {
	e := k.paused(k.endpoint())
	row, _ := k.hold(e.ID, delivery.Hold{Subject: e.ID, Channel: channels.Webhook}, delivery.HoldEndpoint, delivery.EndpointPaused, "")
	k.Clock.Advance(tenants.MaxWebhookTTL - time.Millisecond)
	require.Empty(k, k.claim())
	k.Clock.Advance(time.Millisecond)
	list := k.claim()
	require.Len(k, list, 1)
	require.Equal(k, row.Notification, list[0].Notification)
	require.True(k, list[0].ExpiresAt.Before(k.Clock.Now()), "so it expires now")
}

// holdsToSettle: those that end, and those that a probe may end.
func holdsToSettle(k *kit) {
	c := k.credential(channels.FCM, "")
	k.hold(1, delivery.Hold{App: "ipad", Channel: channels.APNs}, delivery.HoldMissing, delivery.CredentialMissing, "")
	k.hold(2, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "denied")
	settle := func() (out []delivery.HoldScope) {
		list, err := k.Store.HoldsEndingOrDenied(k.ctx)
		k.ok(err)
		for _, h := range list {
			out = append(out, h.Scope)
		}
		return out
	}
	standing := func() int {
		list, err := k.Store.StandingHolds(k.ctx, k.tenant)
		k.ok(err)
		return len(list)
	}
	require.Equal(k, []delivery.HoldScope{delivery.HoldCredential}, settle())
	require.Equal(k, 2, standing())
	ended, err := k.Store.EndHold(k.ctx, k.holds()[0].ID, delivery.Resume)
	k.ok(err)
	require.True(k, ended)
	require.Equal(k, []delivery.HoldScope{delivery.HoldMissing, delivery.HoldCredential}, settle())
	require.Equal(k, 1, standing())
	// What a person pauses is not probed, even if the provider's refusal came first.
	_, err = k.Store.PauseCredential(k.ctx, k.tenant, c.ID, "mine", change("credential.pause"))
	k.ok(err)
	require.Equal(k, []delivery.HoldScope{delivery.HoldMissing}, settle())
	require.Equal(k, "mine", k.holds()[1].Detail)
}

func restores(k *kit) {
	old, lately, other := k.device("a", "a"), k.device("b", "b"), k.device("c", "c")
	k.Clock.Advance(time.Second)
	k.verdict(old, delivery.DeviceRetired)
	k.Clock.Advance(time.Second)
	since := k.Clock.Now()
	k.verdict(lately, delivery.DeviceRetired)
	k.verdict(other, delivery.DeviceRetired, func(f *delivery.Finish) { f.Version = 2 })
	n, err := k.Store.UnretireDevices(k.ctx, 77, 3, since, k.Clock.Now())
	k.ok(err)
	require.Equal(k, 1, n)
	k.status(old, devices.Retired)
	k.status(lately, devices.Suspect)
	k.status(other, devices.Retired)
}

// refusal holds the delivery of a device that was refused, until a time.
func (k *kit) refusal(d devices.Device, c tenants.Credential, until time.Time) (delivery.Row, delivery.FinishResult) {
	k.Helper()
	return k.hold(d.ID, delivery.Hold{Subject: c.ID, Version: c.Version, Qualifier: "https://push.example"}, delivery.HoldRefusal, delivery.InDoubt, "webpush.denied", func(f *delivery.Finish) {
		f.Transition.Device, f.Transition.DueAt, f.Row.Epoch, f.Credential, f.Version = delivery.DeviceRefused, until, d.Epoch, c.ID, c.Version
	})
}

func refusedIsLookedAtAgain(k *kit) {
	c := k.credential(channels.WebPush, "key")
	d := k.device("alice", "a")
	row, _ := k.refusal(d, c, k.Clock.Now().Add(30*time.Second))
	k.is(row, delivery.Held, delivery.InDoubt)
	require.Equal(k, "webpush.denied", k.status(d, devices.Suspect).Reason)
	require.Empty(k, k.claim())
	k.Clock.Advance(30 * time.Second)
	got := k.claim()
	require.Len(k, got, 1)
	require.Equal(k, delivery.Held, got[0].Was)
	require.Equal(k, delivery.InDoubt, got[0].Reason)
	require.Equal(k, 30*time.Second, k.Clock.Now().Sub(got[0].UpdatedAt), "it tells how long it has waited")
	got[0].Row.Epoch = d.Epoch
	k.finish(delivery.Finish{Row: got[0].Row, Transition: delivery.Transition{State: delivery.Sent, Spent: 1, Device: delivery.DeviceConfirmed},
		Attempt: k.attempt(got[0].Row, channels.Accepted, "ok"), Credential: c.ID, Version: c.Version})
	k.status(d, devices.Active)
	require.Len(k, k.holds(), 1, "for whoever is refused next")
	k.Clock.Advance(2 * time.Hour)
	k.purge()
	require.Empty(k, k.holds())
	require.Equal(k, []string{"registered alice   key_test", fmt.Sprintf("suspected  webpush.denied %d/1 engine", c.ID), fmt.Sprintf("restored  sent %d/1 engine", c.ID)}, k.history(d))
}

// refusedLeavesWithItsCredential: a new version gives its own verdicts at once.
func refusedLeavesWithItsCredential(k *kit) {
	c := k.credential(channels.WebPush, "key")
	row, _ := k.refusal(k.device("alice", "a"), c, k.Clock.Now().Add(time.Hour))
	k.credential(channels.WebPush, "key")
	k.ended(1000)
	k.is(row, delivery.Pending, delivery.NoReason)
	row, res := k.refusal(k.device("bob", "b"), c, k.Clock.Now().Add(time.Hour))
	require.False(k, res.Opened, "of a version that counts no more")
	k.is(row, delivery.Pending, delivery.NoReason)
}

func refusedFindsTheCredentialsHold(k *kit) {
	c := k.credential(channels.WebPush, "key")
	row, _ := k.refusal(k.device("alice", "a"), c, k.Clock.Now().Add(time.Hour))
	refuse := func(version int, origin string) bool {
		opened, err := k.Store.RefuseCredential(k.ctx, delivery.Hold{Tenant: k.tenant, Scope: delivery.HoldCredential, Subject: c.ID, Version: version,
			Qualifier: origin, Reason: delivery.CredentialDenied, Detail: "No.", Since: k.Clock.Now()})
		k.ok(err)
		return opened
	}
	require.False(k, refuse(7, ""), "of another version")
	require.True(k, refuse(1, "https://other.example"))
	require.True(k, refuse(1, "https://push.example"))
	require.False(k, refuse(1, "https://push.example"), "it stands")
	got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, tenants.CredentialActive, got.Status, "other push services take it")
	k.ended(1000)
	k.is(row, delivery.Pending, delivery.NoReason)
	row, _ = k.refusal(k.device("bob", "b"), c, k.Clock.Now().Add(time.Hour))
	k.is(row, delivery.Pending, delivery.NoReason) // it finds the hold of the credential
	require.True(k, refuse(1, ""))
	got, err = k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, tenants.CredentialPaused, got.Status)
	mine := k.tenant
	k.tenant = k.newTenant("other")
	require.False(k, refuse(1, "x"))
	k.tenant = mine
}

func targetsThatHaveWorked(k *kit) {
	a, b := k.device("alice", "a"), k.device("alice", "b")
	has := func(d devices.Device) bool {
		got, err := k.Store.HasWorked(k.ctx, k.tenant, d.UserID, d.ID)
		k.ok(err)
		return got
	}
	require.False(k, has(a))
	k.verdict(a, delivery.DeviceRetired)
	require.False(k, has(a))
	k.verdict(a, delivery.DeviceConfirmed, func(f *delivery.Finish) { f.Transition.State, f.Transition.Reason = delivery.Sent, delivery.NoReason })
	require.True(k, has(a))
	require.False(k, has(b))

	c := k.device("carol", "c", func(d *devices.Device) { d.InstallationID = "phone" })
	works := func(d devices.Device) {
		k.verdict(d, delivery.DeviceConfirmed, func(f *delivery.Finish) { f.Transition.State, f.Transition.Reason = delivery.Sent, delivery.NoReason })
	}
	works(c)
	require.True(k, has(c))
	k.Clock.Advance(time.Second)
	c = k.device("carol", "c2", func(d *devices.Device) { d.InstallationID = "phone" })
	require.False(k, has(c), "another address starts anew")
	k.Clock.Advance(time.Second)
	works(c)
	require.True(k, has(c))
	k.device("carol", "c2", func(d *devices.Device) { d.InstallationID = "phone" })
	require.True(k, has(c), "the same one does not")
}
