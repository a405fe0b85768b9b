package delivery

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

func TestPartOf(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		whole, n, others int
		newcomers        bool
		want             int
	}{
		"who is alone has all":             {whole: 480, n: 1, want: 480},
		"but for room for newcomers":       {whole: 480, n: 1, newcomers: true, want: 480},
		"of two each has half":             {whole: 480, n: 2, others: 240, newcomers: true, want: 240},
		"and what the other leaves":        {whole: 480, n: 2, others: 10, newcomers: true, want: 350},
		"all of that where nobody is new":  {whole: 480, n: 2, others: 10, want: 470},
		"nobody is held below a fair part": {whole: 480, n: 3, others: 480, newcomers: true, want: 160},
		"which is one at least":            {whole: 480, n: 1000, others: 480, newcomers: true, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, x.want, partOf(x.whole, x.n, x.others, x.newcomers))
		})
	}
}

func TestAnInstallationIsSharedForAWhile(t *testing.T) {
	t.Parallel()
	var s sharing
	now := func() time.Time { return at }
	s.note(1, now)
	s.note(1, now)
	require.False(t, s.several, "one tenant")
	s.note(2, now)
	require.True(t, s.several)
	s.note(2, now)
	s.refresh(in(sharedFor - 1))
	require.True(t, s.several)
	s.refresh(in(sharedFor))
	require.False(t, s.several, "one alone, since then")
}

// queueOf adds n items of a tenant's flow, as an accept does, and counts those not taken.
func (k *desk) queueOf(tenant ids.ID, l Lane, flow ids.ID, kind channels.Kind, n int) (late int) {
	room := 0
	for room < n && k.promise(l, tenant, 1) {
		room++
	}
	items, keys := itemsOf(tenant, l, flow, kind, room)
	late = n - room + len(k.push(l, items, keys, true))
	synctest.Wait()
	return late
}

// served counts the requests under way by tenant.
func (k *desk) served() map[ids.ID]int {
	k.dispatcher.mu.Lock()
	defer k.dispatcher.mu.Unlock()
	out := map[ids.ID]int{}
	for id, x := range k.dispatcher.queue.tenants {
		if x.inFlight > 0 {
			out[id] = x.inFlight
		}
	}
	return out
}

const slotsOfTest = 480 // of 512, the rest is for urgent ones

// TestNobodyStopsAnotherTenant: nothing of what is under way ever ends.
func TestNobodyStopsAnotherTenant(t *testing.T) {
	t.Parallel()
	atDesk(t, 512, 10_000, func(t *testing.T, k *desk) {
		endpoints := func(tenant ids.ID, l Lane, n, each int) {
			for e := range n {
				k.queueOf(tenant, l, tenant*1000+ids.ID(e), channels.Webhook, each)
			}
		}
		endpoints(1, Regular, 60, 20)
		hanging := k.served()[1]
		require.GreaterOrEqual(t, hanging, slotsOfTest, "one tenant uses all")
		newcomers := slotsOfTest + 512/newcomersShare - hanging
		for id := range ids.ID(newcomers) {
			endpoints(2+id, Regular, 1, 8)
			require.Equal(t, 1, k.served()[2+id], "a tenant's first begins though all others hang")
		}
		endpoints(1000, Regular, 1, 1)
		require.Zero(t, k.served()[1000], "a quarter more, and no more than that")
		endpoints(1001, Urgent, 1, 1)
		require.Equal(t, 1, k.served()[1001], "but for what is urgent")
	})
}

// TestSeveralTenantsShareFairly: who came first gives back what is more than its part
// as its requests end, and each has its part then.
func TestSeveralTenantsShareFairly(t *testing.T) {
	t.Parallel()
	atDesk(t, 512, 100_000, func(t *testing.T, k *desk) {
		busy := func(tenant ids.ID) {
			for flow := range ids.ID(4) {
				require.Zero(t, k.queueOf(tenant, Regular, tenant*10+flow, channels.FCM, 1000))
			}
		}
		busy(1)
		busy(2)
		k.ends(Regular, 600, true)
		require.Equal(t, map[ids.ID]int{1: slotsOfTest / 2, 2: slotsOfTest / 2}, k.served(), "two use all")
		busy(3)
		k.ends(Regular, 600, true)
		require.Equal(t, map[ids.ID]int{1: slotsOfTest / 3, 2: slotsOfTest / 3, 3: slotsOfTest / 3}, k.served())
	})
}

// TestWhatOthersLeaveIsUsed: but for a quarter that stays free while there are several.
func TestWhatOthersLeaveIsUsed(t *testing.T) {
	t.Parallel()
	atDesk(t, 512, 100_000, func(t *testing.T, k *desk) {
		k.queueOf(2, Regular, 20, channels.FCM, 1)
		for flow := range ids.ID(4) {
			k.queueOf(1, Regular, 10+flow, channels.FCM, 1000)
		}
		got := k.served()[1]
		require.GreaterOrEqual(t, got, slotsOfTest*3/4-1)
		require.Less(t, got, slotsOfTest*3/4+4, "but for the first of each flow")
		require.Zero(t, k.queueOf(3, Regular, 30, channels.FCM, 300))
		require.Equal(t, slotsOfTest-got-1, k.served()[3], "a newcomer finds it")
	})
}

// TestFlowsOfATenantShareToo: endpoints that hang leave places for the others.
func TestFlowsOfATenantShareToo(t *testing.T) {
	t.Parallel()
	atDesk(t, 512, 100_000, func(t *testing.T, k *desk) {
		for e := range ids.ID(60) {
			k.queueOf(1, Regular, 100+e, channels.Webhook, 20)
		}
		hanging := k.served()[1]
		require.GreaterOrEqual(t, hanging, slotsOfTest)
		k.queueOf(1, Regular, 200, channels.Webhook, 5)
		require.Equal(t, hanging+1, k.served()[1])
		require.Equal(t, 1, k.dispatcher.queue.flows[flowKey{id: 200}].inFlight, "its first begins")
		for e := range ids.ID(100) {
			k.queueOf(1, Regular, 300+e, channels.Webhook, 5)
		}
		require.Equal(t, slotsOfTest+slotsOfTest/8, k.served()[1], "an eighth more, and no more than that")
		k.queueOf(2, Regular, 2000, channels.Webhook, 5)
		require.Equal(t, 1, k.served()[2], "the rest is for others")
	})
}

// TestALaneIsSharedToo: what waits in memory of one tenant leaves room for others.
func TestALaneIsSharedToo(t *testing.T) {
	t.Parallel()
	atDesk(t, 4, 4000, func(t *testing.T, k *desk) {
		require.Equal(t, 5, k.queueOf(1, Regular, 1, channels.FCM, 4005))
		require.Zero(t, k.queueOf(1, Regular, 1, channels.FCM, 4), "so many have begun")
		_, _, full := k.claimable(Regular, 0)
		require.Equal(t, []ids.ID{1}, full, "nothing more is claimed for it")
		require.False(t, k.promise(Regular, 1, 1))
		left := 1000
		for id := range ids.ID(6) { // each leaves as much as it takes
			late := k.queueOf(10+id, Regular, 10+id, channels.FCM, 1000)
			left = left / 2
			require.InDelta(t, 1000-left, late, 4)
		}
		require.True(t, k.promise(Regular, 50, 1))
	})
}

// TestWhoWasFullIsClaimedForAgain: once half of its part is sent, and not before.
// Who came first gives up what is beyond its part once others want it.
func TestAFullLaneIsEvenedOut(t *testing.T) {
	t.Parallel()
	atDesk(t, 4, 4000, func(t *testing.T, k *desk) {
		const hog, others = 1, 99
		k.queueOf(hog, Regular, 1, channels.FCM, 3000)
		k.queueOf(hog, Regular, 2, channels.FCM, 1005)
		holds := func(id ids.ID) int { return k.dispatcher.queue.tenants[id].queued[Regular] }
		require.Empty(t, k.trim(), "alone it may have all")
		for range 12 {
			for id := range ids.ID(others) {
				k.queueOf(10+id, Regular, 10+id, channels.FCM, 40)
			}
			for _, it := range k.trim() {
				require.GreaterOrEqual(t, holds(it.Tenant), 39, "nobody is held below a fair part")
			}
		}
		require.LessOrEqual(t, holds(hog), 400)
		for id := range ids.ID(others) {
			require.GreaterOrEqual(t, holds(10+id), 30, "a fair part is 40, and a quarter of the room is for newcomers")
		}
		first, second := len(k.dispatcher.queue.flows[flowKey{id: 1}].queues[Regular]), len(k.dispatcher.queue.flows[flowKey{id: 2}].queues[Regular])
		require.Greater(t, first, second, "in proportion")
		require.Positive(t, second, "each flow goes on")
		k.ends(Regular, 1, true)
	})
}

// A claim takes room for itself, which must not make anybody look full.
func TestAClaimMakesNobodyFull(t *testing.T) {
	t.Parallel()
	atDesk(t, 64, 400, func(t *testing.T, k *desk) {
		k.queueOf(1, Regular, 1, channels.Webhook, 150)
		n, _, full := k.claimable(Regular, claimLimit)
		require.Empty(t, full, "there is room for more")
		require.Positive(t, n)
	})
}

func TestWhoWasFullIsClaimedForAgain(t *testing.T) {
	t.Parallel()
	atDesk(t, 64, 400, func(t *testing.T, k *desk) {
		told := 0
		k.drained = func() { told++ }
		k.queueOf(2, Regular, 2, channels.FCM, 5)
		k.queueOf(1, Regular, 1, channels.FCM, 400)
		_, _, full := k.claimable(Regular, 0)
		require.Equal(t, []ids.ID{1}, full)
		queued := func() int { return k.dispatcher.queue.tenants[1].queued[Regular] }
		before := queued()
		for told == 0 {
			before = queued()
			k.ends(Regular, 1, true)
		}
		require.LessOrEqual(t, queued(), 200)
		require.Greater(t, before, 200, "the other has ended")
		k.ends(Regular, 20, true)
		require.Equal(t, 1, told, "once")
	})
}

// TestSharesHold: whatever comes and ends in whichever order, nobody is above a bound,
// and nobody waits who is below a fair part while there is a place.
func TestSharesHold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const workers = 32
		q := newFairQueue(workers, 200, func() time.Time { return at })
		var under []*inflight
		for range rapid.IntRange(1, 150).Draw(t, "steps") {
			l := Lane(rapid.IntRange(0, LanesCount-1).Draw(t, "lane"))
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				tenant := ids.ID(rapid.IntRange(1, 6).Draw(t, "tenant"))
				flow := tenant*10 + ids.ID(rapid.IntRange(0, 3).Draw(t, "flow"))
				items, keys := itemsOf(tenant, l, flow, channels.Webhook, rapid.IntRange(1, 40).Draw(t, "n"))
				for i := range items {
					if q.promise(l, tenant, 1) {
						q.push(l, items[i], keys[i])
						q.unpromise(l, tenant, 1)
					}
				}
			case 1:
				for range rapid.IntRange(0, 20).Draw(t, "end") {
					if len(under) > 0 {
						n := rapid.IntRange(0, len(under)-1).Draw(t, "which")
						q.done(under[n], feedback(rapid.IntRange(0, 2).Draw(t, "how")))
						under = append(under[:n], under[n+1:]...)
					}
				}
			default:
				for it := q.next(l); it != nil; it = q.next(l) {
					under = append(under, it)
				}
				for _, x := range q.tenants {
					require.False(t, x.inFlight == 0 && len(x.turn[l]) > 0 && q.inFlight < q.slots(l)+workers/newcomersShare, "tenant %d waits", x.id)
				}
			}
			q.invariants(t, len(under))
		}
		for q.queued != [LanesCount]int{} || len(under) > 0 {
			for _, it := range under {
				q.done(it, feedbackOK)
			}
			under = under[:0]
			for l := range Lane(LanesCount) {
				for it := q.next(l); it != nil; it = q.next(l) {
					under = append(under, it)
				}
			}
			require.True(t, len(under) > 0 || q.queued == [LanesCount]int{}, "what waits goes on")
		}
		require.Equal(t, [LanesCount]int{}, q.queued, "nothing is left behind")
		require.Empty(t, q.tenants)
	})
}

// invariants checks that what is counted is so.
func (q *fairQueue) invariants(t require.TestingT, under int) {
	require.Equal(t, under, q.inFlight)
	require.LessOrEqual(t, q.inFlight, q.workers+q.workers/newcomersShare)
	queued, inFlight := [LanesCount]int{}, 0
	for _, x := range q.tenants {
		flows := 0
		for _, f := range q.flows {
			if f.tenant == x && !f.idle() {
				flows++
			}
		}
		require.Equal(t, flows, x.flows)
		inFlight += x.inFlight
		for l := range queued {
			queued[l] += x.queued[l]
		}
	}
	require.Equal(t, q.queued, queued)
	require.Equal(t, q.inFlight, inFlight)
	for l := range queued {
		require.LessOrEqual(t, queued[l], q.most+q.most/newcomersShare)
	}
}
