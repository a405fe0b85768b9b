package delivery_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/tenants"
)

func refusedBy(scope channels.Scope) channels.Result {
	return channels.Result{Outcome: channels.Denied, Scope: scope, Code: "denied", Status: 403, Detail: "Refused."}
}

// refusing answers with a refusal to addresses that have a word in them.
func refusing(word string, scope channels.Scope) func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
	return func(_ context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		if strings.Contains(t.Address, word) {
			return refusedBy(scope)
		}
		return accepted()
	}
}

// browsers registers subscriptions at one push service, each of a user of its own.
func (k *kit) browsers(word string, n int) (users []string, list []devices.Device) {
	k.t.Helper()
	for i := range n {
		user := fmt.Sprintf("%s-%d", word, i)
		users = append(users, user)
		list = append(list, k.device(user, "https://push.example/"+user, channels.WebPush, nil))
	}
	return users, list
}

func (k *kit) statusOf(d devices.Device) devices.Status {
	k.t.Helper()
	got, err := k.store.Device(k.ctx, k.tenant, d.ID)
	require.NoError(k.t, err)
	return got.Status
}

func (k *kit) holdsOf(scope delivery.HoldScope) (out []delivery.Hold) {
	k.t.Helper()
	list, err := k.store.StandingHolds(k.ctx, k.tenant)
	require.NoError(k.t, err)
	for _, h := range list {
		if h.Scope == scope {
			out = append(out, h)
		}
	}
	return out
}

// TestOneRefusedSubscriptionDoesNotHoldItsOrigin: some subscriptions are refused for
// reasons of their own, and all others go on.
func TestOneRefusedSubscriptionDoesNotHoldItsOrigin(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.WebPush, "")
	push := k.channels[channels.WebPush]
	push.answer(refusing("bad", channels.ScopeOrigin))
	_, bad := k.browsers("bad", 1)
	good, list := k.browsers("good", 20)
	first := k.post(toUser("bad-0"))
	v := k.ends(first, 0, delivery.Held, delivery.InDoubt)
	require.Zero(t, v.Spent, "it costs no attempt")
	require.Zero(t, push.asked(), "a push service cannot be asked")
	for _, u := range good {
		k.ends(k.post(toUser(u)), 0, delivery.Sent, delivery.NoReason)
	}
	k.ends(k.post(toUser("bad-0")), 0, delivery.Held, delivery.InDoubt)
	require.Empty(t, k.holdsOf(delivery.HoldCredential))
	require.Equal(t, devices.Suspect, k.statusOf(bad[0]))
	for _, d := range list {
		require.Equal(t, devices.Active, k.statusOf(d))
	}
	h := k.holdsOf(delivery.HoldRefusal)
	require.Len(t, h, 1)
	require.Equal(t, "https://push.example", h[0].Qualifier)
	k.sound()
}

// TestAUserTokenCannotHoldOthers: whoever registers what is refused has one voice.
func TestAUserTokenCannotHoldOthers(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.WebPush, "")
	k.channels[channels.WebPush].answer(refusing("bad", channels.ScopeOrigin))
	for i := range devices.MaxOwn {
		k.device("mallory", fmt.Sprint("https://push.example/bad", i), channels.WebPush, nil)
	}
	k.browsers("good", 1)
	r := k.post(toUser("mallory"))
	for i := range r.Deliveries {
		k.ends(r, i, delivery.Held, delivery.InDoubt)
	}
	k.ends(k.post(toUser("good-0")), 0, delivery.Sent, delivery.NoReason)
	require.Empty(t, k.holdsOf(delivery.HoldCredential))
	k.sound()
}

// refuseMany has as many subscriptions refused as it takes, all of which have worked
// before.
func (k *kit) refuseMany(word string) (list []devices.Device) {
	k.t.Helper()
	push := k.channels[channels.WebPush]
	push.answer(nil)
	users, list := k.browsers(word, 5)
	for _, u := range users {
		k.ends(k.post(toUser(u)), 0, delivery.Sent, delivery.NoReason)
	}
	push.answer(refusing(word, channels.ScopeOrigin))
	for i, u := range users {
		want := delivery.InDoubt
		if i == len(users)-1 && !k.joins {
			want = delivery.CredentialDenied
		}
		k.ends(k.post(toUser(u)), 0, delivery.Held, want)
	}
	return list
}

func TestAWrongKeyHoldsItsOrigin(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.WebPush, "")
	list := k.refuseMany("all")
	h := k.holdsOf(delivery.HoldCredential)
	require.Len(t, h, 1)
	require.Equal(t, "https://push.example", h[0].Qualifier)
	for _, d := range list {
		require.NotEqual(t, devices.Retired, k.statusOf(d))
	}
	sends := len(k.channels[channels.WebPush].attempts())
	k.device("elsewhere", "https://other.example/x", channels.WebPush, nil)
	k.ends(k.post(toUser("elsewhere")), 0, delivery.Sent, delivery.NoReason)
	k.ends(k.post(toUser("all-0")), 0, delivery.Held, delivery.CredentialDenied)
	require.Len(t, k.channels[channels.WebPush].attempts(), sends+1, "nothing is tried at the origin")
	k.sound()
}

// TestWhoIsRefusedAmidABroadcastHoldsNobody: everything is asked at once, those that
// are refused are answered first, and those that are served after them.
func TestWhoIsRefusedAmidABroadcastHoldsNobody(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, nil)
	k.credential(channels.WebPush, "")
	clock.advance(time.Second)
	push, answer := k.channels[channels.WebPush], make(chan struct{})
	push.answer(func(ctx context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		if strings.Contains(t.Address, "bad") {
			return refusedBy(channels.ScopeOrigin)
		}
		select {
		case <-answer:
			return accepted()
		case <-ctx.Done():
			return channels.FromTransport(ctx, ctx.Err(), true)
		}
	})
	good, _ := k.browsers("good", 6)
	bad, _ := k.browsers("bad", 11)
	late, bad := bad[10], bad[:10]
	sent := k.post(toUser(good...))
	k.sends(push, len(good))
	refused := k.post(toUser(bad...))
	for i := range bad {
		k.ends(refused, i, delivery.Held, delivery.InDoubt)
	}
	clock.advance(time.Millisecond)
	close(answer)
	for i := range good {
		k.ends(sent, i, delivery.Sent, delivery.NoReason)
	}
	clock.advance(2 * time.Second)
	k.ends(k.post(toUser(late)), 0, delivery.Held, delivery.InDoubt)
	require.Empty(t, k.holdsOf(delivery.HoldCredential))

	// They are looked at again in a quiet moment, and newcomers are refused in one.
	looks := len(push.attempts())
	clock.advance(40 * time.Second)
	eventually(t, "all are looked at again", func() bool { return len(push.attempts()) == looks+len(bad)+1 })
	fresh, _ := k.browsers("bad-new", 20)
	refused = k.post(toUser(fresh...))
	for i := range fresh {
		k.ends(refused, i, delivery.Held, delivery.InDoubt)
	}
	clock.advance(2 * time.Second)
	k.ends(k.post(toUser(bad[0])), 0, delivery.Held, delivery.InDoubt)
	k.ends(k.post(toUser(good[0])), 0, delivery.Sent, delivery.NoReason)
	require.Empty(t, k.holdsOf(delivery.HoldCredential))
	k.sound()
}

func TestAfterAResumeItTakesEvidenceAnew(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.WebPush, "")
	k.refuseMany("all")
	require.Len(t, k.holdsOf(delivery.HoldCredential), 1)
	_, err := k.store.ResumeCredential(k.ctx, k.tenant, c.ID, tenants.Change{Actor: "bob", Action: "credential.resume"})
	require.NoError(t, err)
	k.channels[channels.WebPush].answer(refusing("all-0", channels.ScopeOrigin))
	k.engine.CredentialsChanged(k.tenant)
	for i := range 4 {
		eventually(t, "what was held is sent", func() bool { return k.statusOf(k.byUser(fmt.Sprint("all-", i+1))) == devices.Active })
	}
	k.ends(k.post(toUser("all-0")), 0, delivery.Held, delivery.InDoubt)
	require.Empty(t, k.holdsOf(delivery.HoldCredential))
	k.sound()
}

func (k *kit) byUser(user string) devices.Device {
	k.t.Helper()
	list, err := k.store.Devices(k.ctx, k.tenant, devices.Filter{User: user, Limit: 1})
	require.NoError(k.t, err)
	require.Len(k.t, list, 1)
	return list[0]
}

func TestANewVersionIsJudgedAnew(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.WebPush, "")
	k.refuseMany("all")
	k.channels[channels.WebPush].answer(refusing("all-0", channels.ScopeOrigin))
	k.credential(channels.WebPush, "")
	k.browsers("other", 1)
	k.ends(k.post(toUser("all-0")), 0, delivery.Held, delivery.InDoubt)
	k.ends(k.post(toUser("other-0")), 0, delivery.Sent, delivery.NoReason)
	require.Empty(t, k.holdsOf(delivery.HoldCredential))
}

// TestARestartForgetsOnTheLenientSide: four and one are five only where the four are
// remembered.
func TestARestartForgetsOnTheLenientSide(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.WebPush, "")
	users, _ := k.browsers("all", 5)
	for _, u := range users {
		k.ends(k.post(toUser(u)), 0, delivery.Sent, delivery.NoReason)
	}
	k.channels[channels.WebPush].answer(refusing("all", channels.ScopeOrigin))
	for _, u := range users[:4] {
		k.ends(k.post(toUser(u)), 0, delivery.Held, delivery.InDoubt)
	}
	k.close()
	k.open()
	k.ends(k.post(toUser(users[4])), 0, delivery.Held, delivery.InDoubt)
	require.Empty(t, k.holdsOf(delivery.HoldCredential))
}

// TestOneOddAnswerDoesNotHoldFCM: the provider is asked, and takes the credential.
func TestOneOddAnswerDoesNotHoldFCM(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	fcm := k.channels[channels.FCM]
	fcm.answer(refusing("odd", channels.ScopeCredential))
	odd := k.device("odd", "odd", channels.FCM, nil)
	k.device("alice", "fine", channels.FCM, nil)
	first := k.post(toUser("odd"))
	k.ends(first, 0, delivery.Held, delivery.InDoubt)
	eventually(t, "FCM is asked", func() bool { return fcm.asked() == 1 })
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, devices.Suspect, k.statusOf(odd))
	require.Empty(t, k.holdsOf(delivery.HoldCredential))

	// A person may let it try at once, and a success settles it.
	fcm.answer(nil)
	k.ends(k.post(toUser("odd")), 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, devices.Active, k.statusOf(odd))
	k.sound()
}

// TestTheProviderIsAskedOnce: however many are refused at a time, and its word is
// enough for all.
func TestTheProviderIsAskedOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.APNs, "")
	apns, answer := k.channels[channels.APNs], make(chan struct{})
	apns.says(channels.Result{Outcome: channels.Denied, Code: "apns.invalid_provider_token", Detail: "The key is revoked."})
	apns.hangs(answer)
	apns.answer(always(refusedBy(channels.ScopeCredential)))
	var list []delivery.Receipt
	for i := range 20 {
		u := fmt.Sprint("u", i)
		k.device(u, "aa"+u, channels.APNs, nil)
		r := k.post(toUser(u))
		k.ends(r, 0, delivery.Held, delivery.InDoubt)
		list = append(list, r)
	}
	close(answer)
	for _, r := range list {
		k.ends(r, 0, delivery.Held, delivery.CredentialDenied)
	}
	require.Equal(t, 1, apns.asked())
	got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
	require.NoError(t, err)
	require.Equal(t, tenants.CredentialPaused, got.Status)
	require.Contains(t, got.Reason, "revoked")
	k.sound()
}

// TestWhereTheProviderCannotBeAskedRefusalsCount: its silence says nothing.
func TestWhereTheProviderCannotBeAskedRefusalsCount(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	fcm := k.channels[channels.FCM]
	fcm.says(channels.Result{Outcome: channels.Retry, Code: "transport.timeout"})
	fcm.answer(always(refusedBy(channels.ScopeCredential)))
	for i := range 10 { // none of them has ever worked
		u := fmt.Sprint("u", i)
		k.device(u, u, channels.FCM, nil)
		r := k.post(toUser(u))
		if i < 9 {
			k.ends(r, 0, delivery.Held, delivery.InDoubt)
			continue
		}
		k.ends(r, 0, delivery.Held, delivery.CredentialDenied)
	}
	require.Len(t, k.holdsOf(delivery.HoldCredential), 1)
	k.sound()
}

// TestAProviderThatHangsWhenItIsAsked: what it refused meanwhile is judged when it is
// known that it does not answer, though nothing more is refused.
func TestAProviderThatHangsWhenItIsAsked(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	fcm, answer := k.channels[channels.FCM], make(chan struct{})
	fcm.says(channels.Result{Outcome: channels.Retry, Code: "transport.timeout"})
	fcm.hangs(answer)
	fcm.answer(always(refusedBy(channels.ScopeCredential)))
	for i := range 10 {
		u := fmt.Sprint("u", i)
		k.device(u, u, channels.FCM, nil)
		k.ends(k.post(toUser(u)), 0, delivery.Held, delivery.InDoubt)
	}
	require.Empty(t, k.holdsOf(delivery.HoldCredential))
	close(answer)
	eventually(t, "the credential is held", func() bool { return len(k.holdsOf(delivery.HoldCredential)) == 1 })
	require.Equal(t, 1, fcm.asked())
	k.sound()
}

// TestATenantHasAFewProvidersAskedAtATime: the others of its credentials are judged as
// where a provider cannot be asked.
func TestATenantHasAFewProvidersAskedAtATime(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	fcm, apns, answer := k.channels[channels.FCM], k.channels[channels.APNs], make(chan struct{})
	defer close(answer)
	fcm.hangs(answer)
	fcm.answer(always(refusedBy(channels.ScopeCredential)))
	for i := range 10 {
		app := fmt.Sprint("app", i)
		k.inApp(app, channels.FCM)
		k.device(app, app, channels.FCM, func(d *devices.Device) { d.App = app })
		k.ends(k.post(toUser(app)), 0, delivery.Held, delivery.InDoubt)
	}
	eventually(t, "a few are asked", func() bool { now, _ := fcm.beingAsked(); return now >= 4 })
	k.tenant = k.newTenant("other")
	k.inApp("default", channels.APNs)
	apns.says(channels.Result{Outcome: channels.Denied, Code: "apns.invalid_provider_token"})
	apns.answer(always(refusedBy(channels.ScopeCredential)))
	k.device("bob", "phone", channels.APNs, nil)
	k.ends(k.post(toUser("bob")), 0, delivery.Held, delivery.CredentialDenied)
	_, most := fcm.beingAsked()
	require.Equal(t, 4, most)
}

// TestSuspectsByRefusalAreNotRetiredWithOthers: that a credential's word about others
// is confirmed says nothing of a device that was refused.
func TestSuspectsByRefusalAreNotRetiredWithOthers(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	fcm := k.channels[channels.FCM]
	fcm.answer(func(_ context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		switch t.Address {
		case "refused":
			return refusedBy(channels.ScopeCredential)
		case "gone":
			return channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered", Status: 404}
		}
		return accepted()
	})
	refused, gone := k.device("bob", "refused", channels.FCM, nil), k.device("carol", "gone", channels.FCM, nil)
	k.device("alice", "fine", channels.FCM, nil)
	k.ends(k.post(toUser("bob")), 0, delivery.Held, delivery.InDoubt)
	doubted := k.post(toUser("carol"))
	k.ends(doubted, 0, delivery.Held, delivery.InDoubt) // of a version without a success
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	k.ends(doubted, 0, delivery.Dropped, delivery.Gone)
	eventually(t, "what was called gone is", func() bool { return k.statusOf(gone) == devices.Retired })
	require.Equal(t, devices.Suspect, k.statusOf(refused))
	k.sound()
}

// TestARefusedDeliveryIsLookedAtAgain: after a while, and it keeps its deadline.
func TestARefusedDeliveryIsLookedAtAgain(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, nil)
	k.credential(channels.WebPush, "")
	push := k.channels[channels.WebPush]
	push.answer(refusing("bad", channels.ScopeOrigin))
	k.browsers("bad", 1)
	req, ttl := toUser("bad-0"), int64(600)
	req.TTL = &ttl
	r := k.post(req)
	k.ends(r, 0, delivery.Held, delivery.InDoubt)
	for i, wait := range []time.Duration{34 * time.Second, 80 * time.Second, 180 * time.Second} { // 30 s, and twice as long each time
		tries := i + 1
		require.Len(t, push.attempts(), tries)
		clock.advance(wait)
		eventually(t, "it is tried again", func() bool { return len(push.attempts()) == tries+1 })
		k.ends(r, 0, delivery.Held, delivery.InDoubt)
	}
	clock.advance(10 * time.Minute)
	v := k.ends(r, 0, delivery.Dropped, delivery.Expired)
	require.Len(t, v.Attempts, 4, "and tells what was tried")
	k.sound()
}

func TestRefusalsOfAllNodesHoldAnOrigin(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, nil)
	a.credential(channels.WebPush, "")
	b.engine.CredentialsChanged(b.tenant)
	users, _ := a.browsers("all", 6)
	for _, u := range users {
		a.ends(a.post(toUser(u)), 0, delivery.Sent, delivery.NoReason)
	}
	for _, k := range []*kit{a, b} {
		k.channels[channels.WebPush].answer(refusing("all", channels.ScopeOrigin))
	}
	for i, u := range users { // neither node alone hears enough
		k := []*kit{a, b}[i%2]
		r := k.post(toUser(u))
		k.until(r.Notification, r.Deliveries[0].Target, "to be held", func(v delivery.View) bool { return v.State == delivery.Held })
	}
	require.Eventually(t, func() bool { return len(a.holdsOf(delivery.HoldCredential)) == 1 }, soon, 5*time.Millisecond)
	require.Equal(t, "https://push.example", a.holdsOf(delivery.HoldCredential)[0].Qualifier)
	a.sound()
}

// TestASuccessOfAnotherNodeCounts: one node hears only refusals, the other serves.
func TestASuccessOfAnotherNodeCounts(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, nil)
	c := a.credential(channels.WebPush, "")
	b.engine.CredentialsChanged(b.tenant)
	users, _ := a.browsers("all", 8)
	b.browsers("good", 1)
	for _, u := range users {
		a.ends(a.post(toUser(u)), 0, delivery.Sent, delivery.NoReason)
	}
	a.channels[channels.WebPush].answer(refusing("all", channels.ScopeOrigin))
	for _, u := range users {
		r := a.post(toUser(u))
		a.until(r.Notification, r.Deliveries[0].Target, "to be held", func(v delivery.View) bool { return v.State == delivery.Held })
		b.ends(b.post(toUser("good-0")), 0, delivery.Sent, delivery.NoReason)
	}
	eventually(t, "the other node's success takes the refusals back", func() bool { return a.engine.Refused(c.ID, 1, "https://push.example") == 0 })
	require.Empty(t, a.holdsOf(delivery.HoldCredential))
	a.sound()
}
