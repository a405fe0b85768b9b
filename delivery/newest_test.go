package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
)

func scoreTo(user string) delivery.Request {
	r := toUser(user)
	r.CollapseKey = "score"
	return r
}

func (k *kit) dropped(r delivery.Receipt, by ids.ID) {
	k.t.Helper()
	v := k.ends(r, 0, delivery.Dropped, delivery.Superseded)
	require.Equal(k.t, by, v.SupersededBy)
}

// TestAnOlderOneIsNotRetriedAfterANewer: "1-0" fails, "2-0" is sent, and "1-0" does
// not come after it.
func TestAnOlderOneIsNotRetriedAfterANewer(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	fcm.answer(always(channels.Result{Outcome: channels.Retry, Code: "unavailable", NotBefore: time.Now().Add(time.Hour)}))
	first := k.post(scoreTo("alice"))
	k.until(first.Notification, first.Deliveries[0].Target, "to wait", func(v delivery.View) bool { return v.Spent == 1 })
	fcm.answer(nil)
	second := k.post(scoreTo("alice"))
	k.ends(second, 0, delivery.Sent, delivery.NoReason)
	k.dropped(first, second.Notification)
	var p *problem.Error
	require.ErrorAs(t, k.engine.Replay(k.ctx, k.tenant, first.Notification, first.Deliveries[0].Target, "key_test"), &p)
	require.Equal(t, problem.Conflict, p.Code)
	require.Len(t, fcm.attempts(), 2)
	k.sound()
}

// TestANewerOneWaitsForTheRequestOfAnOlder that has begun, and what it is answered
// brings it back in no case.
func TestANewerOneWaitsForTheRequestOfAnOlder(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]channels.Result{
		"fails":     {Outcome: channels.Retry, Code: "unavailable"},
		"throttled": {Outcome: channels.Throttled, Code: "quota", Scope: channels.ScopeTarget},
		"ambiguous": {Outcome: channels.Retry, Code: "timeout", Ambiguous: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := newKit(t, nil)
			k.credential(channels.FCM, "")
			k.device("alice", "token", channels.FCM, nil)
			fcm := k.channels[channels.FCM]
			release := blocked(fcm, "token", then)
			first := k.post(scoreTo("alice"))
			k.sends(fcm, 1)
			var newer []delivery.Receipt
			for range 20 {
				newer = append(newer, k.post(scoreTo("alice")))
			}
			other := toUser("alice") // without a key nothing waits
			other.CollapseKey = "another"
			k.post(other)
			k.sends(fcm, 2)
			for i, r := range newer[:19] { // each ends as soon as the next has come
				v := k.ends(r, 0, delivery.Dropped, delivery.Superseded)
				require.NotZero(t, v.SupersededBy, i)
				require.Empty(t, v.Attempts)
			}
			require.Len(t, fcm.attempts(), 2)
			fcm.answer(nil)
			release()
			k.ends(newer[19], 0, delivery.Sent, delivery.NoReason)
			v := k.ends(first, 0, delivery.Dropped, delivery.Superseded)
			require.Len(t, v.Attempts, 1)
			k.sound()
		})
	}
}

// TestWebhooksGetEveryEvent, whatever its collapse key.
func TestWebhooksGetEveryEvent(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.endpoint(nil)
	hook := k.channels[channels.Webhook]
	release := blocked(hook, "https://hooks.example.com/in", accepted())
	r := delivery.Request{Type: "score", Title: "1-0", CollapseKey: "score"}
	first, second := k.post(r), k.post(r)
	k.sends(hook, 2)
	release()
	k.ends(first, 0, delivery.Sent, delivery.NoReason)
	k.ends(second, 0, delivery.Sent, delivery.NoReason)
}

// TestScheduledTakesItsPlaceWhenItIsDue, however soon that is.
func TestScheduledTakesItsPlaceWhenItIsDue(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.device("alice", "token", channels.FCM, nil) // without a credential all is held
	soon := scoreTo("alice")
	soon.SendAt = time.Now().Add(1500 * time.Millisecond)
	scheduled := k.post(soon)
	require.True(t, scheduled.Scheduled)
	now := k.post(scoreTo("alice"))
	k.ends(now, 0, delivery.Held, delivery.CredentialMissing)
	k.dropped(now, scheduled.Notification)
	v := k.until(scheduled.Notification, now.Deliveries[0].Target, "to be held", func(v delivery.View) bool { return v.State == delivery.Held })
	require.Zero(t, v.SupersededBy)
	k.sound()
}

// TestStoppingGivesBackWhatWaitsForAnother: nothing stays in hand.
func TestStoppingGivesBackWhatWaitsForAnother(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "token", channels.Result{Outcome: channels.Retry, Code: "unavailable"})
	first := k.post(scoreTo("alice"))
	k.sends(fcm, 1)
	second := k.post(scoreTo("alice"))
	eventually(t, "the second to wait", func() bool { return k.engine.WaitsForOlder(k.tenant) }) // in a worker's hands it may be sent
	stopped := make(chan error, 1)
	go func() { stopped <- k.engine.Stop(k.ctx) }()
	eventually(t, "that nothing more begins", k.engine.Closed) // what ends before that lets the second begin
	release()
	require.NoError(t, <-stopped)
	k.dropped(first, second.Notification)
	k.ends(second, 0, delivery.Pending, delivery.NoReason)
	require.Len(t, fcm.attempts(), 1)
}

// olderWait is less than what is put back for an older one waits.
const olderWait = 400 * time.Millisecond

// TestNodesKeepTheOrderOfACollapseKey: what another node sends is waited for, behind
// others that were superseded since, and as long as its request lasts.
func TestNodesKeepTheOrderOfACollapseKey(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	if !k.store.Shared() {
		t.Skip("there is one node on SQLite")
	}
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "token", channels.Result{Outcome: channels.Retry, Code: "unavailable"})
	other, _ := k.second(nil)
	own := k.engine
	first := k.post(scoreTo("alice"))
	k.sends(fcm, 1)
	k.engine = other
	second := k.post(scoreTo("alice"))
	k.until(second.Notification, second.Deliveries[0].Target, "to be put back", func(v delivery.View) bool { return v.State == delivery.Pending })
	third := k.post(scoreTo("alice"))
	k.dropped(second, third.Notification)
	// It is put back until the node claims it that sends the first, and waits there.
	k.until(third.Notification, third.Deliveries[0].Target, "to have been looked at", func(v delivery.View) bool { return v.UpdatedAt.After(v.CreatedAt.Add(olderWait)) })
	require.Len(t, fcm.attempts(), 1)
	k.engine = own
	fcm.answer(nil)
	release()
	k.ends(third, 0, delivery.Sent, delivery.NoReason)
	k.dropped(first, third.Notification)
	require.Len(t, fcm.attempts(), 2)
	k.sound()
}

// looks counts the looks at the newest.
type looks struct {
	*store.Store
	mu     sync.Mutex
	newest int
	older  int
}

func (s *looks) Newest(ctx context.Context, r delivery.Row) (delivery.Newest, error) {
	s.mu.Lock()
	s.newest++
	s.mu.Unlock()
	return s.Store.Newest(ctx, r)
}

func (s *looks) OlderInHand(ctx context.Context, r delivery.Row) (bool, error) {
	s.mu.Lock()
	s.older++
	s.mu.Unlock()
	return s.Store.OlderInHand(ctx, r)
}

// TestWithoutACollapseKeyNothingIsAsked, and with one a single row, unless another was
// before it a moment ago.
func TestWithoutACollapseKeyNothingIsAsked(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.close()
	l := &looks{}
	k.wrap = func(s *store.Store) delivery.Store { l.Store = s; return l }
	k.open()
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	for i, x := range []struct {
		request       delivery.Request
		newest, older int
	}{{toUser("alice"), 0, 0}, {scoreTo("alice"), 1, 0}, {scoreTo("alice"), 2, 1}} {
		k.ends(k.post(x.request), 0, delivery.Sent, delivery.NoReason)
		l.mu.Lock()
		require.Equal(t, fmt.Sprint(x.newest, x.older), fmt.Sprint(l.newest, l.older), i)
		l.mu.Unlock()
	}
}
