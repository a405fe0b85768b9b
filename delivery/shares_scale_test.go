package delivery

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// hall is a dispatcher of the usual size whose requests take a time by tenant. In a
// bubble that is exact and costs nothing.
type hall struct {
	*dispatcher
	takes func(tenant ids.ID) time.Duration
	stop  chan struct{}
	feeds sync.WaitGroup

	mu      sync.Mutex
	pushed  map[ids.ID]time.Time     // a tenant's first
	began   map[ids.ID]time.Duration // how long that waited
	serving map[ids.ID]int
	begun   map[ids.ID]int // requests, in all
	busy    time.Duration  // of all requests together
}

func newHall(takes func(ids.ID) time.Duration) *hall {
	h := &hall{takes: takes, stop: make(chan struct{}), pushed: map[ids.ID]time.Time{}, began: map[ids.ID]time.Duration{}, serving: map[ids.ID]int{}, begun: map[ids.ID]int{}}
	h.dispatcher = newDispatcher(slotsOfTest*16/15, 4000, time.Now, h.request)
	return h
}

func (h *hall) request(it *inflight) feedback {
	took := h.takes(it.Tenant)
	h.mu.Lock()
	if _, known := h.began[it.Tenant]; !known {
		h.began[it.Tenant] = time.Since(h.pushed[it.Tenant])
	}
	h.serving[it.Tenant]++
	h.begun[it.Tenant]++
	h.mu.Unlock()
	time.Sleep(took)
	h.mu.Lock()
	h.serving[it.Tenant]--
	h.busy += took
	h.mu.Unlock()
	return feedbackOK
}

// feed keeps n deliveries of a tenant coming, of some flows in turn; what finds no room
// tries again soon, as a claim would.
func (h *hall) feed(tenant ids.ID, n, flows int) {
	h.mu.Lock()
	h.pushed[tenant] = time.Now()
	h.mu.Unlock()
	h.feeds.Go(func() {
		for i := 0; i < n; {
			select {
			case <-h.stop:
				return
			default:
			}
			if !h.promise(Regular, tenant, 1) {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			items, keys := itemsOf(tenant, Regular, tenant*10+ids.ID(i%flows), channels.FCM, 1)
			h.push(Regular, items, keys, true)
			i++
		}
	})
}

// evens is what the engine does about a full lane. What is put back has others after it.
func (h *hall) evens() {
	for tick := time.NewTicker(time.Second); ; {
		select {
		case <-h.stop:
			return
		case <-tick.C:
			h.trim()
		}
	}
}

// end lets what has begun end, and forgets the rest.
func (h *hall) end() {
	close(h.stop)
	h.feeds.Wait()
	h.close()
	h.wait()
}

// run lets time pass.
func (h *hall) run(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// forget begins to count anew.
func (h *hall) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy = 0
}

// used is which part of the places for what is not urgent has been in use.
func (h *hall) used(d time.Duration) float64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return float64(h.busy) / float64(d) / slotsOfTest
}

const hog = ids.ID(1)

// TestAThousandTenants: one has everything under way and in memory, and its requests
// hang for a minute. Each of 999 others begins all the same as soon as those before it
// have had their turn in what stays free for newcomers.
func TestAThousandTenants(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const short = 100 * time.Millisecond
		h := newHall(func(tenant ids.ID) time.Duration {
			if tenant == hog {
				return time.Minute
			}
			return short
		})
		defer h.end()
		h.feed(hog, 100_000, 4)
		synctest.Wait()
		require.GreaterOrEqual(t, h.serving[hog], slotsOfTest)
		for id := range ids.ID(999) {
			h.feed(hog+1+id, 1, 1)
		}
		h.run(30 * time.Second) // the hog's first still hang
		require.Len(t, h.began, 1000, "each has begun")
		turns := 999/((512/newcomersShare)-(512/newcomersShare/2)) + 1 // the hog's flows may hold half of that
		for tenant, waited := range h.began {
			require.LessOrEqual(t, waited, time.Duration(turns)*short, "tenant %d", tenant)
		}
	})
}

// TestAThousandBusyTenants: who came first, and has all that memory holds, has no more
// requests under way than the others once its first have ended.
func TestAThousandBusyTenants(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := newHall(func(ids.ID) time.Duration {
			return time.Duration(500+rand.IntN(1000)) * time.Millisecond
		})
		defer h.end()
		h.feed(hog, 1_000_000, 4)
		synctest.Wait()
		require.GreaterOrEqual(t, h.serving[hog], slotsOfTest)
		for id := range ids.ID(999) {
			h.feed(hog+1+id, 1_000_000, 1)
		}
		h.feeds.Go(h.evens)
		h.run(10 * time.Second)
		h.forget()
		h.mu.Lock()
		had := h.begun[hog]
		h.mu.Unlock()
		for range 10 {
			h.run(time.Second)
			h.mu.Lock()
			now := h.serving[hog]
			h.mu.Unlock()
			require.LessOrEqual(t, now, 4, "a fair part, and the first of each of its four flows")
		}
		h.mu.Lock()
		got := h.begun[hog] - had
		h.mu.Unlock()
		require.Positive(t, got)
		require.GreaterOrEqual(t, h.used(10*time.Second), 0.95)
	})
}

// TestPlacesAreUsed: sharing leaves no place empty that somebody has work for.
func TestPlacesAreUsed(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		tenants int
		least   float64
	}{"one tenant": {1, 0.97}, "two tenants": {2, 0.95}, "ten tenants": {10, 0.95}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				h := newHall(func(ids.ID) time.Duration {
					return time.Duration(20+rand.IntN(200)) * time.Millisecond
				})
				defer h.end()
				for id := range ids.ID(x.tenants) {
					h.feed(hog+id, 1_000_000, 4)
				}
				h.run(time.Second)
				h.forget()
				const long = 3 * time.Second
				h.run(long)
				require.GreaterOrEqual(t, h.used(long), x.least)
			})
		})
	}
}

// BenchmarkOneTenant measures what sharing costs a tenant that is alone: against as many
// workers that take from one queue without order. of-unlimited is the ratio.
func BenchmarkOneTenant(b *testing.B) {
	const takes, lane = 20 * time.Millisecond, 4000
	shared := func(n int) time.Duration {
		var left atomic.Int64
		left.Store(int64(n))
		done := make(chan struct{})
		room := make(chan struct{}, lane)
		d := newDispatcher(slotsOfTest*16/15, lane, time.Now, func(*inflight) feedback {
			time.Sleep(takes)
			<-room
			if left.Add(-1) == 0 {
				close(done)
			}
			return feedbackOK
		})
		began := time.Now()
		for i := range n {
			room <- struct{}{}
			if !d.promise(Regular, hog, 1) {
				b.Fatal("there is room")
			}
			items, keys := itemsOf(hog, Regular, 10+ids.ID(i%4), channels.FCM, 1)
			d.push(Regular, items, keys, true)
		}
		<-done
		took := time.Since(began)
		d.close()
		d.wait()
		return took
	}
	unlimited := func(n int) time.Duration {
		queue := make(chan []*inflight, lane)
		var workers sync.WaitGroup
		for range slotsOfTest {
			workers.Go(func() {
				for range queue {
					time.Sleep(takes)
				}
			})
		}
		began := time.Now()
		for i := range n {
			items, _ := itemsOf(hog, Regular, 10+ids.ID(i%4), channels.FCM, 1)
			queue <- items
		}
		close(queue)
		workers.Wait()
		return time.Since(began)
	}
	var with, without time.Duration
	const each = 20_000
	for b.Loop() {
		without += unlimited(each)
		with += shared(each)
	}
	b.ReportMetric(float64(without)/float64(with), "of-unlimited")
	b.ReportMetric(each*float64(b.N)/with.Seconds(), "deliveries/s")
}
