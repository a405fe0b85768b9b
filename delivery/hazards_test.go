package delivery_test

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// blocked makes sends to an address wait until release is called.
func blocked(c *fakeChannel, address string, then channels.Result) (release func()) {
	gate := make(chan struct{})
	c.answer(func(ctx context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		if t.Address != address {
			return accepted()
		}
		select {
		case <-gate:
			return then
		case <-ctx.Done():
			return channels.FromTransport(ctx, ctx.Err(), true)
		}
	})
	return sync.OnceFunc(func() { close(gate) })
}

func (k *kit) sends(c *fakeChannel, n int) {
	k.t.Helper()
	require.Eventually(k.t, func() bool { return len(c.attempts()) >= n }, 20*time.Second, time.Millisecond)
}

func TestAHangingEndpointDoesNotStopALane(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.LaneSize = 400; o.Beat = 20 * time.Millisecond })
	k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	bad := k.endpoint(nil)
	release := blocked(k.channels[channels.Webhook], bad.URL, channels.Result{Outcome: channels.Retry, Code: "transport.timeout"})
	defer release()
	for i := range 600 { // more than the lane holds
		k.post(delivery.Request{To: delivery.To{Endpoints: []ids.ID{bad.ID}}, Title: strconv.Itoa(i)})
	}
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
}

func TestCancelStopsWhatIsQueued(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers = 1 })
	k.credential(channels.FCM, "")
	k.device("alice", "first", channels.FCM, nil)
	k.device("bob", "second", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "first", accepted())
	k.post(toUser("alice"))
	k.sends(fcm, 1)
	r := k.post(toUser("bob"))
	_, err := k.engine.Cancel(k.ctx, k.tenant, r.Notification)
	require.NoError(t, err)
	release()
	k.ends(r, 0, delivery.Dropped, delivery.Canceled)
	require.Len(t, fcm.attempts(), 1)
}

func TestAPanicInAChannelEndsNothingElse(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		panic("a nil somewhere")
	})
	v := k.ends(k.post(toUser("alice")), 0, delivery.Dead, delivery.Rejected)
	require.Equal(t, "engine.panic", v.Last.Code)
	require.NotContains(t, v.Last.Detail, "nil somewhere", "what a panic says is not for callers")
}

func TestAMarkerThatIsUnfoldedLateKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	k := newKit(t, func(o *delivery.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	k.credential(channels.FCM, "")
	d := k.device("alice", "phone", channels.FCM, nil)
	req := toUser("alice")
	ttl := int64(60)
	req.TTL, req.SendAt = &ttl, time.Now().Add(2*time.Minute)
	r := k.post(req)
	require.True(t, r.Scheduled)
	ahead.Store(int64(3 * time.Hour)) // the server was down meanwhile
	v := k.until(r.Notification, d.ID, "to end", func(v delivery.View) bool { return !v.State.Unfinished() })
	require.Equal(t, delivery.Expired, v.Reason)
	require.Empty(t, k.channels[channels.FCM].attempts())
}

func TestAPersonsPauseIsNotUndoneByAProbe(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.ProbeEvery = time.Millisecond })
	c := k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	fcm.probe = channels.Result{Outcome: channels.Denied}
	fcm.answer(always(channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.denied"}))
	r := k.post(toUser("alice"))
	k.ends(r, 0, delivery.Held, delivery.CredentialDenied)
	_, err := k.store.PauseCredential(k.ctx, k.tenant, c.ID, "not now", tenants.Change{Actor: "bob", Action: "credential.pause"})
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	holds, err := k.store.HoldsEndingOrDenied(k.ctx)
	require.NoError(t, err)
	require.Empty(t, holds, "it is a person's hold now, which nothing probes")
	holds, err = k.store.StandingHolds(k.ctx, k.tenant)
	require.NoError(t, err)
	require.Equal(t, delivery.CredentialPaused, holds[0].Reason)
}

func TestARefusedCredentialResumesWhenAProbeSucceeds(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.ProbeEvery = time.Millisecond })
	k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	var refuse atomic.Bool
	refuse.Store(true)
	fcm.answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		if refuse.Load() {
			return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.denied"}
		}
		return accepted()
	})
	r := k.post(toUser("alice"))
	k.sends(fcm, 1)
	refuse.Store(false)
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	k.sound()
}

func TestATokenReplacedDuringASendIsNotRetired(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("bob", "other", channels.FCM, nil)
	phone := func(d *devices.Device) { d.InstallationID = "phone" }
	d := k.device("alice", "old", channels.FCM, phone)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "old", channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered", Status: 404})
	k.ends(k.post(toUser("bob")), 0, delivery.Sent, delivery.NoReason) // the credential is proven
	r := k.post(toUser("alice"))
	k.sends(fcm, 2)
	began := time.Now().UnixMilli() // times are kept in milliseconds
	require.Eventually(t, func() bool { return time.Now().UnixMilli() > began }, time.Second, time.Millisecond)
	k.device("alice", "new", channels.FCM, phone)
	release()
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	now, err := k.store.Device(k.ctx, k.tenant, d.ID)
	require.NoError(t, err)
	require.Equal(t, devices.Active, now.Status)
	sends := fcm.attempts()
	require.Equal(t, "new", sends[len(sends)-1].Address)
}

func TestWhatWasOnlyQueuedSurvivesACrashThoughItMustNotBeSentTwice(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers = 1 })
	k.credential(channels.FCM, "")
	k.device("alice", "first", channels.FCM, nil)
	k.device("bob", "second", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "first", accepted())
	k.post(toUser("alice"))
	k.sends(fcm, 1)
	code := toUser("bob")
	code.OnAmbiguous = delivery.OnAmbiguousStop
	r := k.post(code) // waits behind alice's
	_, err := k.store.LapseLeases(k.ctx)
	require.NoError(t, err)
	k.until(r.Notification, r.Deliveries[0].Target, "to be taken over", func(v delivery.View) bool { return v.Takeovers == 1 })
	release()
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
}

func TestAWebhookIsTheSameOnEveryAttempt(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	e := k.endpoint(func(e *webhooks.Endpoint) { e.EventTypes = []string{"order.shipped"} })
	hook := k.channels[channels.Webhook]
	var (
		mu    sync.Mutex
		times []time.Time
	)
	hook.prepared = func(m channels.Message) {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, m.CreatedAt)
	}
	hook.answer(func(_ context.Context, _ channels.Credential, _ channels.Target, l channels.Life) channels.Result {
		if l.Attempt == 1 {
			return channels.Result{Outcome: channels.Retry, Code: "webhook.status", Status: 500}
		}
		return accepted()
	})
	r := k.post(delivery.Request{Type: "order.shipped", Data: json.RawMessage(`{}`)})
	require.Equal(t, e.ID, r.Deliveries[0].Target)
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, times, 2, "once when accepted, once when claimed again")
	require.True(t, times[0].Equal(times[1]), "%v %v", times[0], times[1])
}

func TestAnEndpointThatIsGoneIsDisabled(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	e := k.endpoint(nil)
	k.channels[channels.Webhook].answer(always(channels.Result{Outcome: channels.Gone, Code: "webhook.gone", Status: 410}))
	r := k.post(delivery.Request{To: delivery.To{Endpoints: []ids.ID{e.ID}}, Title: "x"})
	k.ends(r, 0, delivery.Dropped, delivery.Gone)
	got, err := k.store.Endpoint(k.ctx, k.tenant, e.ID)
	require.NoError(t, err)
	require.Equal(t, webhooks.Disabled, got.Status)
	require.Eventually(t, func() bool {
		r := k.post(delivery.Request{To: delivery.To{Endpoints: []ids.ID{e.ID}}, Title: "x"})
		v := k.until(r.Notification, e.ID, "to end or wait", func(v delivery.View) bool { return v.State != delivery.Sending && v.State != delivery.Pending })
		return v.State == delivery.Held
	}, 10*time.Second, 10*time.Millisecond)
	k.sound()
}

func TestDryRunStoresNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.device("alice", "token", channels.FCM, nil)
	p, err := k.engine.DryRun(k.ctx, k.tenant, toUser("alice", "ghost"))
	require.NoError(t, err)
	require.Len(t, p.Deliveries, 1)
	require.Len(t, p.Skips, 1)
	require.Len(t, p.Payloads, 1)
	require.Contains(t, string(p.Payloads[0].Payload), "dlv_")
	list, err := k.store.Deliveries(k.ctx, k.tenant, delivery.Query{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, list)
}

func TestBatchMembersStandAlone(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	bad := toUser("alice")
	bad.Overrides = map[channels.Kind]json.RawMessage{channels.FCM: json.RawMessage(`{"unknown":1}`)}
	var got []delivery.Receipt
	_, err := k.engine.Accept(k.ctx, delivery.Submission{Tenant: k.tenant, Requests: []delivery.Request{toUser("alice"), bad, {}, toUser("nobody")}, Refused: make([]error, 4),
		Render: func(r []delivery.Receipt) (int, []byte, error) { got = r; return 202, nil, nil }})
	require.NoError(t, err)
	require.NoError(t, got[0].Err)
	require.ErrorContains(t, got[1].Err, "overrides.fcm.unknown")
	require.ErrorContains(t, got[2].Err, "to")
	require.NoError(t, got[3].Err)
	require.Equal(t, delivery.SkipUnknownUser, got[3].Skips[0].Reason)
	k.ends(got[0], 0, delivery.Sent, delivery.NoReason)
	list, err := k.store.UserNotifications(k.ctx, k.tenant, "nobody", 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 1, "a skip is found under its user")
}

func TestAGateDropsNothingThatCanStillBeSent(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Jitter = func() float64 { return 0.9 } })
	k.credential(channels.FCM, "")
	k.device("alice", "first", channels.FCM, nil)
	k.device("bob", "second", channels.FCM, nil)
	var refused atomic.Bool
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		if refused.CompareAndSwap(false, true) {
			return channels.Result{Outcome: channels.Throttled, Scope: channels.ScopeCredential, Code: "fcm.quota", NotBefore: time.Now().Add(3 * time.Second)}
		}
		return accepted()
	})
	k.post(toUser("alice"))
	require.Eventually(t, refused.Load, 10*time.Second, time.Millisecond)
	code := toUser("bob")
	ttl := int64(5) // the gate opens in 3 s; spread over as much again it would come too late
	code.TTL = &ttl
	k.ends(k.post(code), 0, delivery.Sent, delivery.NoReason)
}

func TestAPauseDuringAProbeStands(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	k.channels[channels.FCM].answer(always(channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.denied"}))
	k.ends(k.post(toUser("alice")), 0, delivery.Held, delivery.CredentialDenied)
	_, err := k.store.PauseCredential(k.ctx, k.tenant, c.ID, "not now", tenants.Change{Actor: "bob", Action: "credential.pause"})
	require.NoError(t, err)
	require.NoError(t, k.store.RecoverCredential(k.ctx, k.tenant, c.ID)) // what a probe that was under way does
	got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
	require.NoError(t, err)
	require.Equal(t, tenants.CredentialPaused, got.Status)
}
