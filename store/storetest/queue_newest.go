package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
)

func newestTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Newest/DropsWhatWaits":             newestDropsWhatWaits,
		"Newest/LeavesOthersAlone":          newestLeavesOthersAlone,
		"Newest/InOneBatch":                 newestInOneBatch,
		"Newest/OfWhatIsInHand":             newestOfWhatIsInHand,
		"Newest/IsFinal":                    newestIsFinal,
		"Newest/ScheduledCountsWhenDue":     newestOfScheduled,
		"Newest/ReplaysNoOlderOne":          newestReplaysNoOlderOne,
		"Newest/GoesWithItsDelivery":        newestIsPurged,
		"Newest/FollowsTheOrderOfCommits":   newestFollowsCommits,
		"Newest/OlderInTheHandsOfOthers":    newestOlderInHand,
		"Newest/KeysAreHashedPerTenant":     orderKeysAreHashed,
		"Newest/WithoutAKeyNothingIsStored": newestWithoutKey,
	}
}

func (k *kit) orderKey(collapseKey string) int64 {
	k.Helper()
	n, err := k.Store.OrderKey(k.tenant, collapseKey)
	k.ok(err)
	return n
}

// keyed makes a notification with a collapse key.
func (k *kit) keyed(key string, targets ...ids.ID) delivery.Accepted {
	k.Helper()
	a := k.notification(targets...)
	for i := range a.Rows {
		a.Rows[i].OrderKey = k.orderKey(key)
	}
	return a
}

// acceptKeyed stores one with a collapse key to a target.
func (k *kit) acceptKeyed(key string, target ids.ID) delivery.Row {
	k.Helper()
	a := k.keyed(key, target)
	k.accept(a)
	return a.Rows[0]
}

// newest is what the store says of a delivery.
func (k *kit) newest(r delivery.Row) ids.ID {
	k.Helper()
	n, err := k.Store.Newest(k.ctx, r)
	k.ok(err)
	return n.Notification
}

func (k *kit) superseded(r, by delivery.Row) {
	k.Helper()
	v := k.is(r, delivery.Dropped, delivery.Superseded)
	require.Equal(k, by.Notification, v.SupersededBy)
	require.Zero(k, v.HoldID)
}

func (k *kit) retries(c delivery.Claimed) delivery.FinishResult {
	k.Helper()
	return k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now(), Spent: c.Spent + 1},
		Attempt: k.attempt(c.Row, channels.Retry, "busy")})
}

func newestDropsWhatWaits(k *kit) {
	c := k.credential(channels.FCM, "")
	pending := k.acceptKeyed("score", 7)
	held := k.acceptKeyed("score", 8)
	for _, x := range k.claim() {
		f := delivery.Finish{Row: x.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now()}}
		if x.Target == 8 {
			f.Hold = delivery.Hold{Subject: c.ID}
			f.Credential, f.Version = c.ID, c.Version
			f.Transition = delivery.Transition{State: delivery.Held, Reason: delivery.CredentialDenied, Hold: delivery.HoldCredential}
			f.Attempt = k.attempt(x.Row, channels.Denied, "no")
		}
		k.finish(f)
	}
	k.is(held, delivery.Held, delivery.CredentialDenied)
	k.Clock.Advance(time.Minute)
	a := k.keyed("score", 7, 8, 9)
	k.accept(a)
	k.superseded(pending, a.Rows[0])
	k.superseded(held, a.Rows[1])
	require.Equal(k, k.Clock.Now().UTC(), k.view(held).UpdatedAt)
	for _, r := range a.Rows {
		k.is(r, delivery.Pending, delivery.NoReason)
		require.Equal(k, a.ID, k.newest(r))
	}
	claimed := k.claim()
	require.Len(k, claimed, 3)
	for _, c := range claimed {
		require.Equal(k, a.Rows[0].OrderKey, c.OrderKey)
		require.Equal(k, map[ids.ID]ids.ID{7: pending.Notification, 8: held.Notification}[c.Target], c.Replaces)
	}
}

func newestLeavesOthersAlone(k *kit) {
	key := k.acceptKeyed("score", 7)
	other := k.acceptKeyed("news", 7)
	device := k.acceptKeyed("score", 8)
	k.accepted(1, func(a *delivery.Accepted) { a.Rows[0].Target = 7 })
	mine := k.tenant
	k.tenant = k.newTenant("other")
	theirs := k.acceptKeyed("score", 7)
	k.is(theirs, delivery.Pending, delivery.NoReason)
	k.tenant = mine
	for _, r := range []delivery.Row{key, other, device} {
		k.is(r, delivery.Pending, delivery.NoReason)
		require.Equal(k, r.Notification, k.newest(r))
	}
	sent := k.acceptKeyed("done", 7)
	for _, c := range k.claim() {
		if c.Notification == sent.Notification {
			k.sends(c)
		}
	}
	k.acceptKeyed("done", 7)
	k.is(sent, delivery.Sent, delivery.NoReason)
}

// newestInOneBatch: the later supersedes the earlier, also when both are born leased.
func newestInOneBatch(k *kit) {
	before := k.acceptKeyed("score", 7)
	first, second, third := k.keyed("score", 7), k.keyed("score", 7, 8), k.keyed("score", 7)
	third.Skips = []delivery.Skip{{User: "bob", Channel: channels.APNs, Reason: delivery.SkipNoDevice}} // takes the long way
	k.accept(first, second)
	k.superseded(before, first.Rows[0])
	k.superseded(first.Rows[0], second.Rows[0])
	k.accept(third)
	k.superseded(second.Rows[0], third.Rows[0])
	k.is(second.Rows[1], delivery.Pending, delivery.NoReason)

	leased := func() delivery.Accepted {
		a := k.keyed("leased", 7)
		a.Rows[0].State, a.Rows[0].Claim, a.Rows[0].DueAt = delivery.Sending, int64(k.IDs.Next()), k.Clock.Now().Add(time.Minute)
		return a
	}
	older, newer := leased(), leased()
	k.accept(older, newer)
	require.Equal(k, newer.ID, k.newest(older.Rows[0]))
	require.Equal(k, newer.ID, k.newest(newer.Rows[0]))
	k.is(older.Rows[0], delivery.Sending, delivery.NoReason)
}

// newestOfWhatIsInHand: what is being sent is superseded when it fails, whatever it
// would have become.
func newestOfWhatIsInHand(k *kit) {
	c := k.credential(channels.FCM, "")
	for name, t := range map[string]delivery.Transition{
		"retry": {State: delivery.Pending, DueAt: k.Clock.Now(), Spent: 1},
		"back":  {State: delivery.Pending, DueAt: k.Clock.Now()},
		"held":  {State: delivery.Held, Reason: delivery.CredentialDenied, Hold: delivery.HoldCredential},
	} {
		older := k.acceptKeyed(name, 7)
		claimed := k.claim()[0]
		newer := k.acceptKeyed(name, 7)
		k.is(older, delivery.Sending, delivery.NoReason)
		f := delivery.Finish{Row: claimed.Row, Transition: t, Credential: c.ID, Version: c.Version, Hold: delivery.Hold{Subject: c.ID}}
		if name != "back" {
			f.Attempt = k.attempt(claimed.Row, channels.Retry, "busy")
		}
		res := k.finish(f)
		require.Equal(k, delivery.Superseded, res.Written.Reason)
		require.Equal(k, newer.Notification, res.Written.By)
		k.superseded(older, newer)
		for _, c := range k.claim() {
			require.Equal(k, newer.Notification, c.Notification)
			k.sends(c)
		}
	}
	older := k.acceptKeyed("sent", 7)
	claimed := k.claim()[0]
	k.acceptKeyed("sent", 7)
	k.sends(claimed)
	k.is(older, delivery.Sent, delivery.NoReason)
}

// newestIsFinal: what becomes of the newer one does not bring the older one back.
func newestIsFinal(k *kit) {
	older := k.acceptKeyed("score", 7)
	newer := k.acceptKeyed("score", 7)
	n, err := k.Store.Cancel(k.ctx, k.tenant, newer.Notification, k.Clock.Now())
	k.ok(err)
	require.Equal(k, 1, n)
	k.superseded(older, newer)
	require.Empty(k, k.claim())
	require.Equal(k, newer.Notification, k.newest(older))
}

func newestOfScheduled(k *kit) {
	today := k.acceptKeyed("score", 7)
	tomorrow := k.scheduled(k.Clock.Now().Add(24 * time.Hour))
	k.is(today, delivery.Pending, delivery.NoReason)
	k.Clock.Advance(24 * time.Hour)
	meanwhile := k.acceptKeyed("score", 7)
	k.superseded(today, meanwhile)
	due := k.keyed("score", 7)
	due.ID, due.Rows[0].Notification = tomorrow.ID, tomorrow.ID
	done, err := k.Store.ResolveScheduled(k.ctx, delivery.Part{Accepted: due})
	k.ok(err)
	require.True(k, done)
	k.superseded(meanwhile, due.Rows[0])
	require.Equal(k, tomorrow.ID, k.newest(meanwhile))
}

func newestReplaysNoOlderOne(k *kit) {
	older := k.acceptKeyed("score", 7)
	k.dies(k.claim()[0])
	k.ok(k.replay(older))
	k.dies(k.claim()[0])
	newer := k.acceptKeyed("score", 7)
	k.is(older, delivery.Dead, delivery.Rejected)
	err := k.replay(older)
	k.code(problem.Conflict, err)
	require.ErrorContains(k, err, newer.Notification.Format(ids.Notification))
	k.dies(k.claim()[0])
	k.newJob(k.tenant)
	j, _ := k.claimJob()
	c, err := k.replays(j, jobs.Progress{}, older, newer)
	k.ok(err)
	require.Equal(k, delivery.ReplayCounts{Replayed: 1, Newer: 1}, c)
	k.is(older, delivery.Dead, delivery.Rejected)
	k.is(newer, delivery.Pending, delivery.NoReason)
}

func newestIsPurged(k *kit) {
	older := k.acceptKeyed("score", 7)
	k.dies(k.claim()[0])
	k.Clock.Advance(day)
	k.acceptKeyed("score", 7)
	k.sends(k.claim()[0])
	other := k.acceptKeyed("other", 7)
	k.Clock.Advance(29*day + time.Millisecond)
	k.purge()
	_, err := k.Store.Delivery(k.ctx, k.tenant, older.Notification, older.Target)
	k.code(problem.NotFound, err)
	require.Len(k, k.Dump(k.T)["newest"].Rows, 2, "its delivery is there")
	k.Clock.Advance(day)
	k.purge()
	require.Len(k, k.Dump(k.T)["newest"].Rows, 1)
	require.Equal(k, other.Notification, k.newest(other))
	k.Clock.Advance(400 * day)
	k.purge()
	require.Len(k, k.Dump(k.T)["newest"].Rows, 1, "of what is unfinished nothing goes")
}

// newestFollowsCommits: whoever accepts at the same time, in whichever order targets
// are named, one is the newest of each in the end, and nothing older waits.
func newestFollowsCommits(k *kit) {
	var (
		all  = make([]delivery.Accepted, 120)
		work sync.WaitGroup
		mu   sync.Mutex
	)
	for i := range all {
		to := []ids.ID{1, 2, 3, 4, 5}
		rand.Shuffle(len(to), func(a, b int) { to[a], to[b] = to[b], to[a] })
		all[i] = k.keyed(fmt.Sprint("key ", i%2), to...)
		if i%7 == 0 {
			all[i].Skips = []delivery.Skip{{Target: 99, Reason: delivery.SkipUnknownTarget}}
		}
	}
	for part := range 12 {
		work.Go(func() {
			for i := part; i < len(all); i += 12 {
				_, err := k.Store.Accept(k.ctx, delivery.Batch{Tenant: k.tenant, Accepted: []delivery.Accepted{all[i]}})
				mu.Lock()
				k.ok(err)
				mu.Unlock()
				for _, c := range k.claim() { // beside those who finish
					k.retries(c)
				}
			}
		})
	}
	work.Wait()
	newest, replaced := map[string]bool{}, map[string]ids.ID{}
	for i := range all {
		for _, r := range all[i].Rows {
			at := fmt.Sprint(r.Target, r.OrderKey)
			if v := k.view(r); v.State == delivery.Pending {
				require.Equal(k, r.Notification, k.newest(r))
				require.False(k, newest[at], "one of each")
				newest[at] = true
			} else {
				k.is(r, delivery.Dropped, delivery.Superseded)
				require.NotZero(k, v.SupersededBy)
			}
			if r.Replaces != 0 {
				chain := fmt.Sprint(at, r.Replaces)
				require.Zero(k, replaced[chain], "each is replaced by one")
				replaced[chain] = r.Notification
			}
		}
	}
	require.Len(k, newest, 10)
	require.Len(k, replaced, (len(all)/2-1)*10)
}

// newestOlderInHand: another node's delivery is seen through those that were superseded
// since.
func newestOlderInHand(k *kit) {
	if !k.Store.Shared() {
		return // there is no other node
	}
	s, leave := k.Join(delivery.RoleAll)
	defer leave()
	asks := func(r delivery.Row) bool {
		k.Helper()
		older, err := k.Store.OlderInHand(k.ctx, r)
		k.ok(err)
		return older
	}
	first := k.acceptKeyed("score", 7)
	now := k.Clock.Now()
	theirs := delivery.ClaimOrder{Lane: delivery.Regular, Limit: 10, PerTenant: 10, Now: now, Lease: now.Add(time.Minute), Claim: int64(k.IDs.Next()) ^ 1<<12}
	list, err := s.Claim(k.ctx, theirs)
	k.ok(err)
	require.Len(k, list, 1)
	second := k.keyed("score", 7)
	k.accept(second)
	require.Equal(k, first.Notification, second.Rows[0].Replaces)
	require.True(k, asks(second.Rows[0]))
	third := k.keyed("score", 7)
	k.accept(third)
	require.True(k, asks(third.Rows[0]), "behind one that was superseded")
	done := make(chan delivery.FinishResult, 1)
	s.Finish(delivery.Finish{Row: list[0].Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: now}, Now: now, ExpiresAt: list[0].ExpiresAt},
		func(r delivery.FinishResult) { done <- r })
	require.Equal(k, third.ID, (<-done).Written.By)
	require.False(k, asks(third.Rows[0]))
	k.retries(k.claim()[0])
	mine := k.claim()[0]
	require.Equal(k, third.ID, mine.Notification)
	fourth := k.keyed("score", 7)
	k.accept(fourth)
	require.False(k, asks(fourth.Rows[0]), "what is in one's own hands the engine knows")
}

func orderKeysAreHashed(k *kit) {
	one := k.orderKey("score")
	require.Positive(k, one)
	require.Equal(k, one, k.orderKey("score"))
	require.NotEqual(k, one, k.orderKey("score2"))
	k.tenant = k.newTenant("other")
	require.NotEqual(k, one, k.orderKey("score"))
}

func newestWithoutKey(k *kit) {
	k.accepted(3)
	d := k.Dump(k.T)
	require.Empty(k, d["newest"].Rows)
	for _, r := range d["deliveries"].Rows {
		require.Nil(k, r["order_key"])
		require.Nil(k, r["replaces"])
		require.Nil(k, r["superseded_by"])
	}
}
