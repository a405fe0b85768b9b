package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

func TestWaitForGate(t *testing.T) {
	t.Parallel()
	d := Progress{Channel: channels.FCM, Spent: 1, ExpiresAt: in(time.Hour), Renewed: channels.RenewToken}
	wait := func(d Progress, opens time.Duration, jitter float64) Transition {
		return waitForGate(d, standing{opens: in(opens)}, at, jitter)
	}
	pending := func(due time.Duration) Transition {
		return Transition{State: Pending, DueAt: in(due), Spent: 1, Renew: channels.RenewToken}
	}
	require.Equal(t, pending(time.Minute), wait(d, time.Minute, 0))
	require.Equal(t, pending(90*time.Second), wait(d, time.Minute, 0.5), "over as long as it was closed")
	require.Equal(t, pending(time.Hour-time.Second), wait(d, 59*time.Minute, 1), "but within the deadline")
	require.Equal(t, pending(time.Hour), wait(d, 2*time.Hour, 1), "and no longer than that")
	d.Channel = channels.Webhook
	d.ExpiresAt = in(48 * time.Hour)
	require.Equal(t, pending(24*time.Hour+gateSpread), wait(d, 24*time.Hour, 1), "a long gate is not twice as long for some")

	shared := func(opens time.Duration, jitter float64) Transition {
		return waitForGate(d, standing{opens: in(opens), shared: true}, at, jitter)
	}
	require.Equal(t, pending(time.Minute), shared(time.Minute, 0))
	require.Equal(t, pending(gateLooked), shared(24*time.Hour, 0), "it may open early")
	require.Equal(t, pending(gateLooked+gateSpread), shared(24*time.Hour, 1))
	d.ExpiresAt = in(time.Minute)
	require.Equal(t, pending(time.Minute), shared(24*time.Hour, 0), "until the deadline")
	require.Equal(t, pending(59*time.Second), shared(59*time.Second, 1))
}

func TestCrowdOut(t *testing.T) {
	t.Parallel()
	d := Progress{Channel: channels.FCM, Spent: 1, ExpiresAt: in(time.Hour), Renewed: channels.RenewToken}
	pending := func(due time.Duration) Transition {
		return Transition{State: Pending, DueAt: in(due), Spent: 1, Renew: channels.RenewToken}
	}
	require.Equal(t, pending(crowdedLeast), crowdOut(d, at, at, 0))
	require.Equal(t, pending(time.Minute), crowdOut(d, in(-time.Minute), at, 0), "the longer it has waited, the longer")
	require.Equal(t, pending(90*time.Second), crowdOut(d, in(-time.Minute), at, 0.5))
	require.Equal(t, pending(crowdedMost), crowdOut(d, in(-time.Hour), at, 0), "but not for ever")
	d.ExpiresAt = in(time.Second)
	require.Equal(t, pending(time.Second), crowdOut(d, at, at, 1), "it is expired at its deadline")
}

func TestExpire(t *testing.T) {
	t.Parallel()
	for _, k := range channels.Kinds() {
		want := Transition{State: Dropped, Reason: Expired, Spent: 3}
		if k == channels.Webhook {
			want.State = Dead
		}
		require.Equal(t, want, expire(k, 3))
	}
}

// TestObstacle is what keeps a delivery from being attempted, as one table. The
// first obstacle counts.
func TestObstacle(t *testing.T) {
	t.Parallel()
	const spent = 3
	cred := tenants.Credential{ID: 7, App: "a", Channel: channels.FCM, Version: 1}
	push := tenants.Credential{ID: 8, App: "a", Channel: channels.WebPush, Qualifier: "key", Version: 1}
	device := TargetNow{Exists: true, UserID: 5, Epoch: 2, Device: devices.Active, App: "a", Channel: channels.FCM}
	browser := device
	browser.Channel, browser.VAPIDKey, browser.Target.Address = channels.WebPush, "key", "https://push.example/1"
	hook := TargetNow{Exists: true, Channel: channels.Webhook}
	with := func(t TargetNow, change func(*TargetNow)) TargetNow { change(&t); return t }
	on := func(s HoldScope, subject ids.ID, origin string, why Reason) Hold {
		return Hold{ID: 1, Scope: s, Subject: subject, Qualifier: origin, Reason: why}
	}
	for name, x := range map[string]struct {
		target   TargetNow
		holds    []Hold
		deleting bool
		reason   Reason // 0: it may be attempted
		hold     HoldScope
	}{
		"none":             {target: device},
		"none, a browser":  {target: browser},
		"none, a webhook":  {target: hook},
		"a suspect":        {target: with(device, func(t *TargetNow) { t.Device = devices.Suspect })},
		"a tenant's end":   {target: device, deleting: true, reason: Erased},
		"a webhook's too":  {target: hook, deleting: true, reason: Erased},
		"not there":        {target: with(device, func(t *TargetNow) { t.Exists = false }), reason: Gone},
		"no such endpoint": {target: with(hook, func(t *TargetNow) { t.Exists = false }), reason: Gone},
		"another user's":   {target: with(device, func(t *TargetNow) { t.UserID = 6 }), reason: Rebound},
		"another's before": {target: with(device, func(t *TargetNow) { t.Epoch = 1 }), reason: Rebound},
		"retired":          {target: with(device, func(t *TargetNow) { t.Device = devices.Retired }), reason: Gone},
		"run out":          {target: with(browser, func(t *TargetNow) { t.ExpiresAt = at }), reason: Gone},
		"not yet run out":  {target: with(browser, func(t *TargetNow) { t.ExpiresAt = in(1) })},
		"no credential":    {target: with(device, func(t *TargetNow) { t.App = "b" }), reason: CredentialMissing, hold: HoldMissing},

		"paused credential":     {target: device, holds: []Hold{on(HoldCredential, 7, "", CredentialPaused)}, reason: CredentialPaused, hold: HoldCredential},
		"refused credential":    {target: device, holds: []Hold{on(HoldCredential, 7, "", CredentialDenied)}, reason: CredentialDenied, hold: HoldCredential},
		"another credential":    {target: device, holds: []Hold{on(HoldCredential, 8, "", CredentialPaused)}},
		"refused at its origin": {target: browser, holds: []Hold{on(HoldCredential, 8, "https://push.example", CredentialDenied)}, reason: CredentialDenied, hold: HoldCredential},
		"refused at another":    {target: browser, holds: []Hold{on(HoldCredential, 8, "https://other.example", CredentialDenied)}},
		"paused endpoint":       {target: hook, holds: []Hold{on(HoldEndpoint, 9, "", EndpointPaused)}, reason: EndpointPaused, hold: HoldEndpoint},
		"another endpoint":      {target: hook, holds: []Hold{on(HoldEndpoint, 10, "", EndpointPaused)}},
		"a doubt":               {target: device, holds: []Hold{{ID: 1, Scope: HoldDoubt, Subject: 7, Version: 1, Reason: InDoubt}}},
	} {
		r := &Row{Target: 9, Channel: x.target.Channel, UserID: 5, Epoch: 2, Spent: spent}
		s := newSnapshot(tenants.Tenant{}, []tenants.Credential{cred, push}, x.holds, nil, at)
		s.deleting = x.deleting
		got, hold, ok := obstacle(r, &x.target, s, s.credential(&x.target, lastAttempt{}), at)
		require.Equal(t, x.reason != NoReason, ok, name)
		want := Transition{State: Dropped, Reason: x.reason, Spent: spent, Hold: x.hold}
		switch {
		case !ok:
			want.State, want.Spent = 0, 0
		case x.hold != 0:
			want.State = Held
		}
		require.Equal(t, want, got, name)
		require.Equal(t, x.hold, hold.Scope, name)
	}
}

// TestAHoldSaysWhichCredentialIsMissing: the app may have others, and who looks there
// would take the hold for a mistake.
func TestAHoldSaysWhichCredentialIsMissing(t *testing.T) {
	t.Parallel()
	require.Contains(t, missing(&TargetNow{Channel: channels.APNs, Target: channels.Target{Environment: channels.Sandbox}}), "(sandbox)")
	for _, k := range []channels.Kind{channels.FCM, channels.WebPush} {
		require.Equal(t, "There is no credential for this app and channel.", missing(&TargetNow{Channel: k}))
	}
}
