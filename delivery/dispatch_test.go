package delivery

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// desk is a dispatcher whose requests end when the test says so.
type desk struct {
	*dispatcher
	mu    sync.Mutex
	began []*inflight           // in order
	busy  [LanesCount]int       // requests under way
	end   [LanesCount]chan bool // ends one of the lane: well or not
}

// atDesk runs a test in a bubble, where waiting is exact.
func atDesk(t *testing.T, workers, capacity int, test func(*testing.T, *desk)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		k := &desk{}
		k.dispatcher = newDispatcher(workers, capacity, time.Now, k.request)
		for l := range k.end {
			k.end[l] = make(chan bool)
		}
		test(t, k)
		k.close()
		for _, c := range k.end {
			close(c)
		}
		k.wait()
	})
}

func (k *desk) request(it *inflight) feedback {
	k.mu.Lock()
	k.began = append(k.began, it)
	k.busy[it.Lane]++
	k.mu.Unlock()
	well := <-k.end[it.Lane]
	k.mu.Lock()
	k.busy[it.Lane]--
	k.mu.Unlock()
	if well {
		return feedbackOK
	}
	return feedbackCongested
}

// queue adds n items of a flow to a lane, and lets begin what may.
func (k *desk) queue(l Lane, flow ids.ID, kind channels.Kind, n int) {
	if late := push(k.dispatcher, l, flow, kind, n); late != nil {
		panic("not all were taken")
	}
	synctest.Wait()
}

// ends lets n requests of a lane end.
func (k *desk) ends(l Lane, n int, well bool) {
	for range n {
		k.end[l] <- well
		synctest.Wait()
	}
}

// push returns what the dispatcher does not take.
func push(d *dispatcher, l Lane, flow ids.ID, kind channels.Kind, n int) []*inflight {
	if !d.promise(l, 1, n) {
		panic("the lane is full")
	}
	items, keys := itemsOf(1, l, flow, kind, n)
	return d.push(l, items, keys, true)
}

// itemsOf makes n items of a tenant's flow.
func itemsOf(tenant ids.ID, l Lane, flow ids.ID, kind channels.Kind, n int) (items []*inflight, keys []flowKey) {
	for i := range n {
		items = append(items, newInflight(Row{Tenant: tenant, Channel: kind, Lane: l, Credential: flow, Target: ids.ID(i + 1)}, false, TargetNow{}, at))
		keys = append(keys, flowKey{id: flow})
	}
	return items, keys
}

// room is how many more deliveries of its tenant a lane takes.
func (k *desk) room(l Lane) int {
	k.dispatcher.mu.Lock()
	defer k.dispatcher.mu.Unlock()
	if k.closed {
		return 0
	}
	q := &k.dispatcher.queue
	t := q.tenant(1)
	defer q.forget(t)
	return q.roomOf(t, l)
}

func TestLowerLanesComeFirst(t *testing.T) {
	t.Parallel()
	atDesk(t, 1, 100, func(t *testing.T, k *desk) {
		for _, l := range []Lane{Bulk, Bulk, Regular, Urgent, Regular, Urgent} {
			k.queue(l, 1, channels.FCM, 1)
		}
		var got []Lane
		for i := range 6 {
			require.Len(t, k.began, i+1, "one worker")
			got = append(got, k.began[i].Lane)
			k.ends(got[i], 1, true)
		}
		require.Equal(t, []Lane{Bulk, Urgent, Urgent, Regular, Regular, Bulk}, got, "the first had begun already")
	})
}

func TestFlowsTakeTurns(t *testing.T) {
	t.Parallel()
	atDesk(t, 1, 1000, func(t *testing.T, k *desk) {
		k.queue(Regular, 1, channels.FCM, 100)
		k.queue(Regular, 2, channels.FCM, 3)
		k.queue(Regular, 3, channels.FCM, 1)
		k.ends(Regular, 8, true)
		var got []ids.ID
		for _, it := range k.began {
			got = append(got, it.Credential)
		}
		require.Equal(t, []ids.ID{1, 1, 2, 3, 1, 2, 1, 2, 1}, got, "who has much to send does not keep another waiting")
	})
}

func TestAFlowKeepsItsLimit(t *testing.T) {
	t.Parallel()
	atDesk(t, 10_000, 10_000, func(t *testing.T, k *desk) {
		const kept = flowLimit / urgentShare
		k.queue(Urgent, 1, channels.FCM, 100)
		k.queue(Regular, 1, channels.FCM, 500)
		require.Equal(t, [LanesCount]int{100, flowLimit - kept - 100, 0}, k.busy, "a fifth is kept for urgent ones")
		k.queue(Regular, 2, channels.FCM, 1)
		require.Equal(t, flowLimit-kept-99, k.busy[Regular], "another flow goes on")
		k.queue(Urgent, 1, channels.FCM, 200)
		require.Equal(t, 100+kept, k.busy[Urgent], "urgent ones use what was kept for them")
		k.ends(Urgent, 50, true)
		require.Equal(t, 100+kept, k.busy[Urgent], "a parked flow wakes up, lower lanes first")
		k.ends(Urgent, 70+kept, true)
		require.Equal(t, 100+kept-(kept), k.busy[Urgent], "the rest of them")
		require.Equal(t, flowLimit-kept-99, k.busy[Regular])
		k.ends(Urgent, 50, true)
		require.Equal(t, flowLimit-kept-49, k.busy[Regular], "regular ones follow when there is room")
	})
}

func TestSomeWorkersAreKeptForUrgentOnes(t *testing.T) {
	t.Parallel()
	atDesk(t, 32, 100, func(t *testing.T, k *desk) {
		k.queue(Bulk, 1, channels.FCM, 50)
		require.Equal(t, 30, k.busy[Bulk])
		k.queue(Urgent, 1, channels.FCM, 3)
		require.Equal(t, 2, k.busy[Urgent])
		k.ends(Bulk, 1, true)
		require.Equal(t, [LanesCount]int{3, 0, 29}, k.busy)
		k.ends(Urgent, 1, true)
		require.Equal(t, [LanesCount]int{2, 0, 29}, k.busy, "31 of 32: no more than urgent ones may begin")
		k.ends(Urgent, 2, true)
		require.Equal(t, [LanesCount]int{0, 0, 30}, k.busy)
	})
}

func TestAnEndpointInTroubleGetsLess(t *testing.T) {
	t.Parallel()
	atDesk(t, 1000, 1000, func(t *testing.T, k *desk) {
		const regular = endpointLimit - endpointLimit/urgentShare
		k.queue(Regular, 1, channels.Webhook, 500)
		require.Equal(t, regular, k.busy[Regular])
		f := k.began[0].flow
		k.ends(Regular, regular-1, false)
		require.Equal(t, 1, f.max)
		require.Equal(t, 1, k.busy[Regular])
		k.ends(Regular, 1, true)
		require.Equal(t, 2, k.busy[Regular], "and more again with every success")
		k.ends(Regular, endpointLimit, true)
		require.Equal(t, regular, k.busy[Regular])
		require.Equal(t, endpointLimit, f.max)
		k.ends(Regular, 1, false)
		require.Equal(t, endpointLimit/2, f.max)
		require.Equal(t, regular-1, k.busy[Regular], "what is under way goes on")
	})
}

func TestPromisesKeepLanesInBounds(t *testing.T) {
	t.Parallel()
	atDesk(t, 1, 5, func(t *testing.T, k *desk) {
		require.Equal(t, 5, k.room(Regular))
		require.True(t, k.promise(Regular, 1, 3))
		require.False(t, k.promise(Regular, 1, 3), "all or nothing")
		require.True(t, k.promise(Urgent, 1, 5), "each lane has its own room")
		k.unpromise(Regular, 1, 3)
		k.queue(Regular, 1, channels.FCM, 5)
		require.Equal(t, 1, k.room(Regular), "one has begun")
		k.ends(Regular, 2, true)
		require.Equal(t, 3, k.room(Regular))
	})
}

func TestCloseHandsOverWhatWaits(t *testing.T) {
	t.Parallel()
	atDesk(t, 2, 10, func(t *testing.T, k *desk) {
		k.queue(Regular, 1, channels.FCM, 3)
		k.queue(Bulk, 2, channels.FCM, 2)
		k.ends(Regular, 1, true)
		require.Equal(t, [LanesCount]int{0, 2, 0}, k.busy)
		require.True(t, k.promise(Regular, 1, 1))
		require.Len(t, k.close(), 2)
		ended := make(chan struct{})
		go func() { k.wait(); close(ended) }()
		synctest.Wait()
		select {
		case <-ended:
			t.Fatal("two are still being sent")
		default:
		}
		late := []*inflight{k.began[0]}
		require.Equal(t, late, k.push(Regular, late, []flowKey{{id: 1}}, true), "what was promised before comes back")
		require.False(t, k.promise(Regular, 1, 1))
		require.Zero(t, k.room(Regular))
		require.Empty(t, k.close())
		k.ends(Regular, 2, true)
		<-ended
		require.Len(t, k.began, 3)
	})
}

// TestWorkersAreMadeOnDemand: no more than there is work for, and those there
// are get the next delivery.
func TestWorkersAreMadeOnDemand(t *testing.T) {
	t.Parallel()
	atDesk(t, 64, 1000, func(t *testing.T, k *desk) {
		for range 50 {
			k.queue(Regular, 1, channels.FCM, 3)
			k.ends(Regular, 3, true)
			require.Len(t, k.idle, 3)
		}
		k.queue(Regular, 1, channels.FCM, 100)
		require.Equal(t, 60, k.busy[Regular])
		require.Empty(t, k.idle)
		k.ends(Regular, 100, true)
		require.Len(t, k.began, 250)
		require.Len(t, k.idle, 60)
	})
}

// TestASlowFlowDoesNotFillALane: a flow that cannot send what it has gives back
// what it holds beyond that, once the lane is half full.
func TestASlowFlowDoesNotFillALane(t *testing.T) {
	t.Parallel()
	atDesk(t, 1000, 1000, func(t *testing.T, k *desk) {
		const regular = endpointLimit - endpointLimit/urgentShare
		k.queue(Regular, 1, channels.Webhook, 400)
		require.Empty(t, k.trim(), "the lane is not half full")
		require.Equal(t, 1000-(400-regular), k.room(Regular))
		k.queue(Regular, 2, channels.Webhook, 300)
		k.queue(Regular, 3, channels.Webhook, 20)
		left := k.trim()
		held := map[ids.ID]int{}
		for _, it := range left {
			held[it.Credential]++
		}
		require.NotZero(t, held[1]+held[2])
		require.Zero(t, held[3], "who has little keeps it")
		require.Equal(t, 501, k.room(Regular))

		require.Len(t, push(k.dispatcher, Regular, 1, channels.Webhook, 10), 9, "while the lane is busy, it gets no more")
		require.Empty(t, push(k.dispatcher, Regular, 3, channels.Webhook, 10), "others do")
		require.Equal(t, 490, k.room(Regular))
	})
}

// TestAFlowThatRecoversIsForgotten: an endpoint's lower limit is kept while it
// has trouble, and not for ever.
func TestAFlowThatRecoversIsForgotten(t *testing.T) {
	t.Parallel()
	atDesk(t, 100, 100, func(t *testing.T, k *desk) {
		k.queue(Regular, 1, channels.Webhook, 8)
		k.ends(Regular, 8, false)
		require.Equal(t, 1, k.dispatcher.queue.flows[flowKey{id: 1}].max)
		for _, want := range []int{2, 4, 8} {
			require.Empty(t, k.trim())
			require.Equal(t, want, k.dispatcher.queue.flows[flowKey{id: 1}].max)
		}
		k.trim()
		require.Empty(t, k.dispatcher.queue.flows)
	})
}

// TestEveryDeliveryIsSentOnce: many who push at once, and every limit holds at any
// moment.
func TestEveryDeliveryIsSentOnce(t *testing.T) {
	t.Parallel()
	const pushers, each, workers = 8, 300, 32
	var (
		sent     sync.Map
		inFlight [4]atomic.Int64
		all      atomic.Int64
		n        sync.WaitGroup
	)
	n.Add(pushers * each)
	d := newDispatcher(workers, pushers*each, time.Now, func(it *inflight) feedback {
		defer n.Done()
		if _, twice := sent.LoadOrStore(it, true); twice {
			t.Error("a delivery was sent twice")
		}
		if c := all.Add(1); c > workers+workers/newcomersShare {
			t.Errorf("%d requests at once", c)
		}
		if c := inFlight[it.Credential].Add(1); it.Channel == channels.Webhook && c > endpointLimit {
			t.Errorf("%d requests to one endpoint", c)
		}
		runtime.Gosched()
		inFlight[it.Credential].Add(-1)
		all.Add(-1)
		return feedbackOK
	})
	var pushing sync.WaitGroup
	for p := range pushers {
		pushing.Go(func() {
			kind := channels.Webhook
			if p%2 == 0 {
				kind = channels.FCM
			}
			for i := range each {
				if push(d, Lane(i%LanesCount), ids.ID(p%4), kind, 1) != nil {
					t.Error("a delivery was not taken")
				}
			}
		})
	}
	pushing.Wait()
	n.Wait()
	require.Empty(t, d.close())
	d.wait()
	require.Empty(t, d.queue.flows, "flows with nothing to do are forgotten")
}
