package delivery_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// waitKit is a kit with a clock of its own and no randomness.
func waitKit(t *testing.T) (*kit, *handClock, *lines) {
	t.Helper()
	clock, log := newHandClock(), &lines{}
	k := newKitAt(t, clock.now, func(o *delivery.Options) {
		o.Jitter = func() float64 { return 0 }
		o.Log = slog.New(slog.NewTextHandler(log, nil))
	})
	return k, clock, log
}

// troubles waits until the tenant has that many scopes in trouble.
func (k *kit) troubles(n int) []delivery.Wait {
	k.t.Helper()
	var list []delivery.Wait
	eventually(k.t, "scopes in trouble", func() bool {
		var err error
		list, err = k.store.Waits(k.ctx, k.tenant)
		return err == nil && len(list) == n
	})
	return list
}

func quota(until time.Time) channels.Result {
	return channels.Result{Outcome: channels.Throttled, Code: "fcm.project_quota", Detail: "The project's quota is used up.", Scope: channels.ScopeCredential, NotBefore: until}
}

func (k *kit) pending(r delivery.Receipt) delivery.View {
	k.t.Helper()
	began := k.clock()
	return k.until(r.Notification, r.Deliveries[0].Target, "to wait", func(v delivery.View) bool {
		return v.State == delivery.Pending && v.DueAt.After(began)
	})
}

// TestWhatACredentialWaitsForIsTold and outlives a restart; a person ends it.
func TestWhatACredentialWaitsForIsTold(t *testing.T) {
	t.Parallel()
	k, clock, log := waitKit(t)
	c := k.credential(channels.FCM, "")
	k.device("alice", "a", channels.FCM, nil)
	began := clock.now()
	k.channels[channels.FCM].answer(always(quota(began.Add(23 * time.Hour))))
	asked := k.post(toUser("alice"))
	k.pending(asked)
	w := k.troubles(1)[0]
	require.Equal(t, delivery.WaitThrottled, w.Cause)
	require.Equal(t, c.ID, w.Subject)
	require.Equal(t, "The project's quota is used up.", w.Detail)
	require.True(t, w.Until.Equal(began.Add(23*time.Hour)))
	eventually(t, "a line in the log", func() bool { return log.count("a scope waits") > 0 })

	behind := k.post(toUser("alice"))
	v := k.pending(behind)
	require.Empty(t, v.Attempts)
	require.Equal(t, delivery.WaitThrottled, v.Waited.Cause)
	require.Equal(t, c.ID, v.Waited.Subject)
	require.True(t, v.Waited.Until.Equal(w.Until))
	require.Equal(t, w.Detail, v.Waited.Detail)

	short := int64(60)
	request := toUser("alice")
	request.TTL = &short
	expires := k.post(request)
	k.pending(expires)
	k.close()
	k.open()
	again := k.post(toUser("alice"))
	require.Empty(t, k.pending(again).Attempts, "a restart forgets nothing")
	clock.advance(time.Minute)
	gone := k.ends(expires, 0, delivery.Dropped, delivery.Expired)
	require.Equal(t, delivery.WaitThrottled, gone.Waited.Cause, "it says what it has waited for")
	require.Len(t, k.channels[channels.FCM].attempts(), 1)

	k.channels[channels.FCM].answer(always(accepted()))
	_, err := k.store.ResumeCredential(k.ctx, k.tenant, c.ID, tenants.Change{Actor: "test", Action: "credential.resume"})
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	require.Empty(t, k.troubles(0))
	for _, r := range []delivery.Receipt{behind, again, asked} {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	k.sound()
}

// TestALyingQuotaIsLookedThrough: one delivery is let through now and then, and its
// success ends the wait for all.
func TestALyingQuotaIsLookedThrough(t *testing.T) {
	t.Parallel()
	k, clock, log := waitKit(t)
	k.credential(channels.FCM, "")
	for _, user := range []string{"alice", "bob"} {
		k.device(user, user, channels.FCM, nil)
	}
	k.channels[channels.FCM].answer(always(quota(clock.now().Add(23 * time.Hour))))
	first := k.post(toUser("alice"))
	k.pending(first)
	k.troubles(1)
	behind := []delivery.Receipt{k.post(toUser("bob")), k.post(toUser("bob"))}
	for _, r := range behind {
		require.Empty(t, k.pending(r).Attempts)
	}
	clock.advance(10 * time.Minute)
	k.until(first.Notification, first.Deliveries[0].Target, "to look", func(v delivery.View) bool { return len(v.Attempts) == 2 })
	require.Empty(t, k.pending(k.post(toUser("bob"))).Attempts, "one is enough")
	k.channels[channels.FCM].answer(always(accepted()))
	clock.advance(10 * time.Minute)
	k.ends(first, 0, delivery.Sent, delivery.NoReason)
	k.troubles(0)
	for _, r := range behind {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	eventually(t, "a line in the log", func() bool { return log.count("a scope waits no more") > 0 })
}

func (k *kit) toEndpoint() delivery.Receipt {
	k.t.Helper()
	return k.post(delivery.Request{Type: "order.shipped", Title: "hello", Channels: []channels.Kind{channels.Webhook}})
}

// TestAWaitBelongsToItsURL: another one, or a person, ends it, and all that waits is due.
func TestAWaitBelongsToItsURL(t *testing.T) {
	t.Parallel()
	for name, release := range map[string]func(*webhooks.Registry, *kit, ids.ID) error{
		"another URL": func(r *webhooks.Registry, k *kit, id ids.ID) error {
			url := "https://new.example.com"
			_, err := r.Update(k.ctx, k.tenant, id, webhooks.Patch{URL: &url}, "test")
			return err
		},
		"resume": func(r *webhooks.Registry, k *kit, id ids.ID) error {
			_, err := r.Resume(k.ctx, k.tenant, id, "test")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k, clock, _ := waitKit(t)
			e := k.endpoint(nil)
			registry := webhooks.NewRegistry(webhooks.Options{Store: k.store, CheckURL: func(string) error { return nil }, IDs: k.ids, Now: clock.now})
			k.channels[channels.Webhook].answer(always(channels.Result{Outcome: channels.Throttled, Code: "webhook.throttled", NotBefore: clock.now().Add(24 * time.Hour)}))
			first := k.toEndpoint()
			require.Len(t, k.pending(first).Attempts, 1)
			k.troubles(1)
			behind := k.toEndpoint()
			require.Empty(t, k.pending(behind).Attempts)
			k.channels[channels.Webhook].answer(always(accepted()))
			clock.advance(30 * time.Minute)
			behindToo := k.toEndpoint()
			require.Empty(t, k.pending(behindToo).Attempts, "what a receiver asks for is kept")

			description := "other"
			_, err := registry.Update(k.ctx, k.tenant, e.ID, webhooks.Patch{Description: &description}, "test")
			require.NoError(t, err)
			k.troubles(1)
			require.NoError(t, release(registry, k, e.ID))
			k.engine.EndpointsChanged(k.tenant, e.ID)
			clock.advance(time.Second)
			for _, r := range []delivery.Receipt{first, behind, behindToo, k.toEndpoint()} {
				k.ends(r, 0, delivery.Sent, delivery.NoReason)
			}
			k.troubles(0)
			k.sound()
		})
	}
}

// TestSendNow passes what all wait for; its success ends that.
func TestSendNow(t *testing.T) {
	t.Parallel()
	k, clock, _ := waitKit(t)
	k.endpoint(nil)
	throttled := channels.Result{Outcome: channels.Throttled, Code: "webhook.throttled", NotBefore: clock.now().Add(24 * time.Hour)}
	k.channels[channels.Webhook].answer(always(throttled))
	k.pending(k.toEndpoint())
	k.troubles(1)
	list := []delivery.Receipt{k.toEndpoint(), k.toEndpoint()}
	for _, r := range list {
		require.Empty(t, k.pending(r).Attempts)
	}
	clock.advance(time.Second)
	now := list[0].Deliveries[0].Target
	require.NoError(t, k.engine.SendNow(k.ctx, k.tenant, list[0].Notification, now, "test"))
	v := k.until(list[0].Notification, now, "to be sent and to wait again", func(v delivery.View) bool { return len(v.Attempts) == 1 && v.State == delivery.Pending })
	require.Zero(t, v.Spent)
	require.True(t, v.DueAt.After(clock.now().Add(time.Hour)))
	k.troubles(1)

	k.channels[channels.Webhook].answer(always(accepted()))
	clock.advance(time.Second)
	require.NoError(t, k.engine.SendNow(k.ctx, k.tenant, list[0].Notification, now, "test"))
	for _, r := range list {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	k.troubles(0)
	k.sound()
}

// TestTheFirstSuccessBringsForward what failed before.
func TestTheFirstSuccessBringsForward(t *testing.T) {
	t.Parallel()
	k, clock, log := waitKit(t)
	k.endpoint(nil)
	fails := channels.Result{Outcome: channels.Retry, Code: "webhook.server_error", Detail: "The receiver answered 500.", NotBefore: clock.now().Add(5 * time.Hour)}
	k.channels[channels.Webhook].answer(always(fails))
	first := k.toEndpoint()
	require.Len(t, k.pending(first).Attempts, 1)
	require.Empty(t, k.troubles(0), "one failure is no trouble")
	clock.advance(10 * time.Second)
	second := k.toEndpoint()
	require.Len(t, k.pending(second).Attempts, 1)
	w := k.troubles(1)[0]
	require.Equal(t, delivery.WaitFailing, w.Cause)
	require.Zero(t, w.Until)
	require.Equal(t, "The receiver answered 500.", w.Detail)
	eventually(t, "a line in the log", func() bool { return log.count("a scope fails") == 1 })
	require.Zero(t, log.count("a scope waits"), "nothing but its own schedule keeps any back")

	k.channels[channels.Webhook].answer(always(accepted()))
	eventually(t, "what is new to be sent, and what is old after it", func() bool {
		clock.advance(time.Second)
		k.ends(k.toEndpoint(), 0, delivery.Sent, delivery.NoReason)
		list, err := k.store.Waits(k.ctx, k.tenant)
		return err == nil && len(list) == 0
	})
	for _, r := range []delivery.Receipt{first, second} {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	eventually(t, "a line in the log", func() bool { return log.count("a scope works again") == 1 })
	k.sound()
}

// TestWhatReachedNobodySpendsNothing, is told, and goes on with the first success.
func TestWhatReachedNobodySpendsNothing(t *testing.T) {
	t.Parallel()
	k, clock, _ := waitKit(t)
	k.credential(channels.FCM, "")
	k.device("alice", "a", channels.FCM, nil)
	k.channels[channels.FCM].answer(always(channels.Result{Outcome: channels.Retry, Unreached: true, Code: "transport.refused", Detail: "The host refused the connection."}))
	r := k.post(toUser("alice"))
	eventually(t, "more attempts than its schedule has", func() bool {
		clock.advance(5 * time.Second)
		v, err := k.store.Delivery(k.ctx, k.tenant, r.Notification, r.Deliveries[0].Target)
		return err == nil && v.State == delivery.Pending && v.Spent == 0 && len(v.Attempts) > 5
	})
	require.Equal(t, delivery.WaitUnreachable, k.troubles(1)[0].Cause)
	k.channels[channels.FCM].answer(always(accepted()))
	clock.advance(5 * time.Minute)
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	k.troubles(0)
	k.sound()
}

// TestAReleaseIsHeardByAllNodes: a person says it to one.
func TestAReleaseIsHeardByAllNodes(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, nil)
	c := a.credential(channels.FCM, "")
	b.engine.CredentialsChanged(b.tenant)
	a.device("alice", "a", channels.FCM, nil)
	until := time.Now().Add(23 * time.Hour)
	fails := always(quota(until))
	a.channels[channels.FCM].answer(fails)
	b.channels[channels.FCM].answer(fails)
	waits := func(v delivery.View) bool {
		return v.State == delivery.Pending && v.DueAt.After(time.Now().Add(time.Minute))
	}
	var all []delivery.Receipt
	for _, k := range []*kit{a, b} {
		r := k.post(toUser("alice"))
		k.until(r.Notification, r.Deliveries[0].Target, "to wait", waits)
		all = append(all, r)
	}
	a.troubles(1)
	for _, k := range []*kit{a, b} {
		k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
			return accepted()
		})
	}
	_, err := a.store.ResumeCredential(a.ctx, a.tenant, c.ID, tenants.Change{Actor: "test", Action: "credential.resume"})
	require.NoError(t, err)
	a.engine.CredentialsChanged(a.tenant)
	for _, r := range all {
		a.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	for give := time.Now().Add(soon); ; {
		require.True(t, time.Now().Before(give), "the other node does not hear of it")
		r := b.post(toUser("alice"))
		v := b.until(r.Notification, r.Deliveries[0].Target, "to be sent or to wait", func(v delivery.View) bool { return v.State == delivery.Sent || waits(v) })
		if v.State == delivery.Sent {
			break
		}
	}
}

// slowEnd is a store on which the end of a wait is committed, and nobody hears of it
// until it is released.
type slowEnd struct {
	*store.Store
	ended, release chan struct{}
}

func (s *slowEnd) EndWait(ctx context.Context, w delivery.Wait, began time.Time, look bool) (bool, error) {
	is, err := s.Store.EndWait(ctx, w, began, look)
	if is {
		close(s.ended)
		<-s.release
	}
	return is, err
}

// TestWhatIsPutOffByAWaitThatIsOver is not forgotten: the job that brings forward what
// waits may have passed it.
func TestWhatIsPutOffByAWaitThatIsOver(t *testing.T) {
	t.Parallel()
	k, clock, _ := waitKit(t)
	k.close()
	slow := &slowEnd{ended: make(chan struct{}), release: make(chan struct{})}
	k.wrap = func(s *store.Store) delivery.Store { slow.Store = s; return slow }
	k.open()
	k.endpoint(nil)
	hook := k.channels[channels.Webhook]
	hook.answer(always(channels.Result{Outcome: channels.Throttled, Code: "webhook.throttled", NotBefore: clock.now().Add(24 * time.Hour)}))
	first := k.toEndpoint()
	k.pending(first)
	k.troubles(1)
	require.True(t, k.pending(k.toEndpoint()).DueAt.After(clock.now().Add(time.Minute)))
	hook.answer(always(accepted()))
	clock.advance(time.Second)
	require.NoError(t, k.engine.SendNow(k.ctx, k.tenant, first.Notification, first.Deliveries[0].Target, "test"))
	select {
	case <-slow.ended:
	case <-t.Context().Done():
	}
	late := k.toEndpoint()
	v := k.pending(late)
	require.Empty(t, v.Attempts, "this node has not heard of it")
	require.False(t, v.DueAt.After(clock.now().Add(2*time.Second)), v.DueAt)
	close(slow.release)
	clock.advance(2 * time.Second)
	k.ends(late, 0, delivery.Sent, delivery.NoReason)
	k.sound()
}

// crowdedWaits is a store on which many scopes are in trouble that come before those of
// the test, and one note of trouble is lost.
type crowdedWaits struct {
	*store.Store
	lost atomic.Bool
}

func (s *crowdedWaits) FirstWaits(_ context.Context, tenant ids.ID, most int) ([]delivery.Wait, error) {
	list := make([]delivery.Wait, most)
	for i := range list {
		list[i] = delivery.Wait{ID: ids.ID(i + 1), Tenant: tenant, Subject: ids.ID(i + 1), Channel: channels.Webhook, Cause: delivery.WaitFailing}
	}
	return list, nil
}

func (s *crowdedWaits) PutWait(ctx context.Context, w delivery.NoteWait) (began, current bool, err error) {
	if !s.lost.Swap(true) {
		return false, false, errors.New("the database is away")
	}
	return s.Store.PutWait(ctx, w)
}

// TestAWaitAmongManyIsKept, told though it could not be at first, and ended by its success.
func TestAWaitAmongManyIsKept(t *testing.T) {
	t.Parallel()
	k, clock, _ := waitKit(t)
	k.close()
	k.wrap = func(s *store.Store) delivery.Store { return &crowdedWaits{Store: s} }
	k.open()
	k.endpoint(nil)
	hook := k.channels[channels.Webhook]
	hook.answer(always(channels.Result{Outcome: channels.Throttled, Code: "webhook.throttled", NotBefore: clock.now().Add(24 * time.Hour)}))
	list := []delivery.Receipt{k.toEndpoint()}
	k.pending(list[0])
	eventually(t, "a delivery that waits to tell", func() bool {
		list = append(list, k.toEndpoint())
		require.Empty(t, k.pending(list[len(list)-1]).Attempts)
		told, err := k.store.Waits(k.ctx, k.tenant)
		return err == nil && len(told) == 1
	})
	k.close()
	k.open()
	list = append(list, k.toEndpoint())
	require.Empty(t, k.pending(list[len(list)-1]).Attempts, "it goes by its row")
	clock.advance(2 * time.Second)
	require.Len(t, hook.attempts(), 1)

	hook.answer(always(accepted()))
	require.NoError(t, k.engine.SendNow(k.ctx, k.tenant, list[0].Notification, list[0].Deliveries[0].Target, "test"))
	k.troubles(0)
	for _, r := range list {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	k.sound()
}
