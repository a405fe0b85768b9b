package storetest

import (
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/webhooks"
)

func claimTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Claim/OnlyWhatIsDue":        claimsOnlyWhatIsDue,
		"Claim/LimitAndShare":        claimsInBounds,
		"Claim/StarvesNobody":        claimStarvesNobody,
		"Claim/PassesOverWhoIsFull":  claimPassesOverWhoIsFull,
		"Claim/NobodyTwice":          claimsNobodyTwice,
		"Claim/TargetsAsTheyAreNow":  claimsWithTargets,
		"Claim/TakesOver":            takesOver,
		"Claim/TellsOfCancel":        claimTellsOfCancel,
		"Claim/HeldAtTheirDeadline":  claimsHeldAtDeadline,
		"Begin/IsSeenByWhoTakesOver": begins,
		"Begin/IsWhatCrashesCount":   crashes,
		"Renew/MovesTheEndOfALease":  renews,
		"Target/IsReadByItself":      readsTargets,
		"Claim/FinishedIsNotClaimed": finishedIsNotClaimed,
	}
}

func claimsOnlyWhatIsDue(k *kit) {
	now := k.Clock.Now()
	due := k.accepted(1, func(a *delivery.Accepted) { a.Rows[0].DueAt = now.Add(-time.Second) })
	later := k.accepted(1, func(a *delivery.Accepted) { a.Rows[0].DueAt = now.Add(time.Second) })
	k.accepted(1, func(a *delivery.Accepted) { a.Lane, a.Rows[0].Lane = delivery.Bulk, delivery.Bulk })

	list := k.claim()
	require.Len(k, list, 1)
	c := list[0]
	require.Equal(k, due.ID, c.Notification)
	require.Equal(k, delivery.Pending, c.Was)
	require.Equal(k, delivery.Sending, c.State)
	require.Equal(k, now.Add(time.Minute), c.DueAt.UTC())
	require.Equal(k, due.Rows[0].ExpiresAt, c.ExpiresAt.UTC())
	require.NotZero(k, c.Claim)
	require.Zero(k, c.Takeovers)
	k.is(due.Rows[0], delivery.Sending, delivery.NoReason)

	k.Clock.Advance(time.Second)
	list = k.claim()
	require.Len(k, list, 1)
	require.Equal(k, later.ID, list[0].Notification)
	require.Empty(k, k.claim())
}

func claimsInBounds(k *kit) {
	k.accepted(30)
	k.tenant = k.newTenant("other")
	k.accepted(30)
	bounds := func(limit, share int) func(*delivery.ClaimOrder) {
		return func(o *delivery.ClaimOrder) { o.Limit, o.PerTenant = limit, share }
	}
	require.Len(k, k.claim(bounds(15, 100)), 15)
	perTenant := map[ids.ID]int{}
	for _, c := range k.claim(bounds(100, 7)) {
		perTenant[c.Tenant]++
	}
	require.Len(k, perTenant, 2)
	for _, n := range perTenant {
		require.Equal(k, 7, n)
	}
}

// claimPassesOverWhoIsFull: and finds what was passed over later, however often nothing
// else was due meanwhile.
func claimPassesOverWhoIsFull(k *kit) {
	full := []ids.ID{k.tenant}
	k.accepted(4)
	k.tenant = k.newTenant("other")
	k.accepted(3)
	but := func(o *delivery.ClaimOrder) { o.Full = full }
	list := k.claim(but)
	require.Len(k, list, 3)
	for _, c := range list {
		require.Equal(k, k.tenant, c.Tenant)
	}
	for range 3 {
		require.Empty(k, k.claim(but))
		k.Clock.Advance(time.Minute / 10)
	}
	require.Len(k, k.claim(), 4)
}

// claimStarvesNobody: with any number of tenants whose rows fill each claim, all
// get their turn.
func claimStarvesNobody(k *kit) {
	for lane, tenants := range map[delivery.Lane]int{delivery.Urgent: 2, delivery.Regular: 5, delivery.Bulk: 8} {
		for range tenants {
			k.tenant = k.newTenant("t" + k.IDs.Next().Format(""))
			k.accepted(6, func(a *delivery.Accepted) {
				a.Lane = lane
				for i := range a.Rows {
					a.Rows[i].Lane = lane
				}
			})
		}
		served := map[ids.ID]int{}
		for range 2 * tenants {
			k.Clock.Advance(time.Millisecond) // so that the claims differ as they do in life
			list := k.claim(func(o *delivery.ClaimOrder) { o.Lane, o.Limit, o.PerTenant = lane, 2, 100 })
			require.Len(k, list, 2)
			served[list[0].Tenant]++
		}
		require.Len(k, served, tenants)
		for _, n := range served {
			require.Equal(k, 2, n, "one claim of each tenant in turn")
		}
	}
}

func claimsNobodyTwice(k *kit) {
	const rows, nodes = 400, 8
	k.accepted(rows)
	var (
		mu   sync.Mutex
		seen = map[ids.ID]int64{}
		wg   sync.WaitGroup
	)
	for range nodes {
		wg.Go(func() {
			for {
				now := k.Clock.Now()
				list, err := k.Store.Claim(k.ctx, delivery.ClaimOrder{Lane: delivery.Regular, Limit: 20, PerTenant: 20, Now: now,
					Lease: now.Add(time.Minute), Claim: int64(k.IDs.Next())})
				if err != nil || len(list) == 0 {
					return
				}
				mu.Lock()
				for _, c := range list {
					if seen[c.Target] != 0 {
						k.Errorf("target %d was claimed twice", c.Target)
					}
					seen[c.Target] = c.Claim
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	require.Len(k, seen, rows)
}

func claimsWithTargets(k *kit) {
	d, e := k.device("alice", "a"), k.endpoint(func(e *webhooks.Endpoint) { e.Status = webhooks.Paused })
	gone := k.device("bob", "b")
	a := k.notification(d.ID, e.ID, gone.ID)
	a.Rows[1].Channel = channels.Webhook
	k.accept(a)
	k.ok(k.Store.DeleteDevice(k.ctx, k.tenant, gone.ID, "", "key_test"))
	k.device("carol", "a") // the device changed hands
	for _, c := range k.claim() {
		now, err := k.Store.Target(k.ctx, k.tenant, c.Target, c.Channel)
		k.ok(err)
		require.Equal(k, now, c.Now)
		switch c.Target {
		case d.ID:
			require.True(k, c.Now.Exists)
			require.Equal(k, d.Epoch+1, c.Now.Epoch)
			require.NotEqual(k, d.UserID, c.Now.UserID)
		case e.ID:
			require.Equal(k, [][]byte{e.Secrets[0].Key}, c.Now.Target.Secrets)
		case gone.ID:
			require.False(k, c.Now.Exists)
		}
	}
}

func takesOver(k *kit) {
	a := k.accepted(1)
	first := k.claim()[0]
	retry := delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now(), Spent: 1}
	k.finish(delivery.Finish{Row: first.Row, Transition: retry, Attempt: k.attempt(first.Row, channels.Retry, "busy")})
	second := k.claim()[0]
	require.Equal(k, delivery.Pending, second.Was)
	leased := k.Clock.Now()
	k.Clock.Advance(59 * time.Second)
	require.Empty(k, k.claim(), "the lease still stands")
	k.Clock.Advance(time.Second)

	third := k.claim()[0]
	require.Equal(k, delivery.Sending, third.Was)
	require.Equal(k, 1, third.Takeovers)
	require.Equal(k, 2, third.Attempts)
	require.Equal(k, 1, third.Spent, "a takeover spends nothing")
	require.True(k, third.Unknown)
	require.NotEqual(k, second.Claim, third.Claim)

	res := k.finish(delivery.Finish{Row: second.Row, Transition: delivery.Transition{State: delivery.Dead, Reason: delivery.Rejected},
		Attempt: k.attempt(second.Row, channels.Rejected, "late")})
	require.True(k, res.Lost)
	k.sends(third)
	v := k.is(a.Rows[0], delivery.Sent, delivery.NoReason)
	require.True(k, v.Unknown)
	require.Len(k, v.Attempts, 3)
	for i, want := range []struct {
		code    string
		outcome channels.Outcome
	}{{"busy", channels.Retry}, {"takeover", channels.Unknown}, {"ok", channels.Accepted}} {
		require.Equal(k, i+1, v.Attempts[i].Number)
		require.Equal(k, want.code, v.Attempts[i].Code)
		require.Equal(k, want.outcome, v.Attempts[i].Outcome)
	}
	require.Equal(k, leased, v.Attempts[1].At)
	require.True(k, v.Attempts[1].Ambiguous)
}

func claimTellsOfCancel(k *kit) {
	a := k.accepted(1)
	require.False(k, k.claim()[0].Canceled)
	n, err := k.Store.Cancel(k.ctx, k.tenant, a.ID, k.Clock.Now())
	k.ok(err)
	require.Zero(k, n, "what is being sent is not taken back")
	k.Clock.Advance(time.Minute)
	require.True(k, k.claim()[0].Canceled)
}

func claimsHeldAtDeadline(k *kit) {
	k.accepted(1)
	c := k.claim()[0]
	k.finish(delivery.Finish{Row: c.Row, Hold: delivery.Hold{App: "default", Channel: channels.FCM},
		Transition: delivery.Transition{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing}})
	v := k.is(c.Row, delivery.Held, delivery.CredentialMissing)
	require.NotZero(k, v.HoldID)
	k.Clock.Advance(time.Hour - time.Millisecond)
	require.Empty(k, k.claim())
	k.Clock.Advance(time.Millisecond)
	list := k.claim()
	require.Len(k, list, 1)
	require.Equal(k, delivery.Held, list[0].Was)
	require.Zero(k, list[0].HoldID)
	require.Zero(k, k.view(c.Row).HoldID, "the hold has nothing to do with it any more")
	require.Zero(k, k.holds()[0].Held)
}

// begins: whoever takes a row over learns whether its attempt had begun.
func begins(k *kit) {
	k.accepted(2)
	list := k.claim()
	begin := func(r delivery.Row) bool {
		ours, err := k.Store.Begin(k.ctx, r)
		k.ok(err)
		return ours
	}
	require.True(k, begin(list[0].Row))
	k.Clock.Advance(time.Minute)
	taken := k.claim()
	require.Len(k, taken, 2)
	for _, c := range taken {
		require.Equal(k, c.Target == list[0].Target, c.Begun)
	}
	require.False(k, begin(list[0].Row), "the claim is lost")
	k.Clock.Advance(time.Minute)
	for _, c := range k.claim() {
		require.False(k, c.Begun, "not by the node that had it last")
		require.True(k, c.Unknown)
		require.Equal(k, 1, c.Takeovers)
		k.sends(c)
		require.False(k, begin(c.Row), "it has ended")
	}
}

// crashes counts, of the crashes in which a delivery is caught, those in which it was
// being sent, as far as that is known: of the first it is not.
func crashes(k *kit) {
	for _, once := range []bool{false, true} {
		a := k.accepted(1, func(a *delivery.Accepted) { a.AtMostOnce = once })
		c := k.claim()[0]
		for range 30 { // it is never sent
			k.Clock.Advance(time.Minute)
			c = k.claim()[0]
		}
		counted := 1
		if once {
			counted = 0
		}
		require.Equal(k, counted, c.Takeovers)
		require.Len(k, k.view(a.Rows[0]).Attempts, counted)
		require.Equal(k, !once, c.Unknown)
		for range 2 { // it is
			ours, err := k.Store.Begin(k.ctx, c.Row)
			k.ok(err)
			require.True(k, ours)
			k.Clock.Advance(time.Minute)
			c = k.claim()[0]
			counted++
			require.Equal(k, counted, c.Takeovers)
			require.True(k, c.Begun)
			if once {
				k.Clock.Advance(time.Minute)
				require.True(k, k.claim()[0].Begun, "until the takeover is settled")
				break
			}
		}
		k.Clock.Advance(time.Hour)
		k.sends(k.claim()[0])
		require.NotEmpty(k, k.view(a.Rows[0]).Attempts)
	}
}

func (k *kit) renew(d time.Duration, rows ...delivery.Row) []bool {
	k.Helper()
	kept, err := k.Store.Renew(k.ctx, rows, k.Clock.Now().Add(d))
	k.ok(err)
	return kept
}

func renews(k *kit) {
	k.accepted(2)
	list := k.claim()
	k.Clock.Advance(50 * time.Second)
	lost := list[1].Row
	lost.Claim++
	require.Equal(k, []bool{true, false}, k.renew(time.Minute, list[0].Row, lost))
	k.Clock.Advance(20 * time.Second)
	taken := k.claim()
	require.Len(k, taken, 1)
	require.Equal(k, list[1].Target, taken[0].Target)
	k.sends(list[0])
	require.Equal(k, []bool{false}, k.renew(time.Minute, list[0].Row), "what is finished is nobody's")
	k.is(list[0].Row, delivery.Sent, delivery.NoReason)
}

func readsTargets(k *kit) {
	d := k.device("alice", "a")
	now, err := k.Store.Target(k.ctx, k.tenant, d.ID, channels.FCM)
	k.ok(err)
	require.Equal(k, delivery.TargetNow{Exists: true, UserID: d.UserID, Epoch: 1, Device: d.Status, App: "default", CreatedAt: d.ID.Time(), Channel: channels.FCM,
		Target: d.Target, ReadAt: k.Clock.Now()}, now)
	for _, kind := range channels.Kinds() {
		now, err = k.Store.Target(k.ctx, k.tenant, 4711, kind)
		k.ok(err)
		require.False(k, now.Exists)
	}
	now, err = k.Store.Target(k.ctx, k.newTenant("other"), d.ID, channels.FCM)
	k.ok(err)
	require.False(k, now.Exists)
}

func finishedIsNotClaimed(k *kit) {
	k.accepted(3)
	list := k.claim()
	k.sends(list[0])
	k.dies(list[1])
	k.finish(delivery.Finish{Row: list[2].Row, Transition: delivery.Transition{State: delivery.Dropped, Reason: delivery.Expired}})
	k.Clock.Advance(1000 * time.Hour)
	require.Empty(k, k.claim())
}
