package delivery

import (
	"sync"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// dispatcher hands what waits in its queue to workers. It runs as many as there is
// work for, up to a limit; the one that became idle last gets the next delivery,
// since its stack is warm.
type dispatcher struct {
	attempt func(*inflight) feedback // makes at most one
	drained func()                   // a tenant of which was claimed enough has room again; nil: nobody wants to know

	mu      sync.Mutex
	queue   fairQueue
	idle    []chan *inflight
	closed  bool
	running sync.WaitGroup
}

// newDispatcher makes one whose lanes hold up to laneSize deliveries.
func newDispatcher(workers, laneSize int, now func() time.Time, attempt func(*inflight) feedback) *dispatcher {
	return &dispatcher{attempt: attempt, queue: newFairQueue(workers, laneSize, now)}
}

// promise reserves room for n deliveries of a tenant in a lane, or none.
func (d *dispatcher) promise(l Lane, tenant ids.ID, n int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.closed && d.queue.promise(l, tenant, n)
}

// unpromise gives room back.
func (d *dispatcher) unpromise(l Lane, tenant ids.ID, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue.unpromise(l, tenant, n)
}

// claimable reserves room for up to most deliveries in a lane, so many of each tenant,
// and names those of which it takes no more.
func (d *dispatcher) claimable(l Lane, most int) (n, ofTenant int, full []ids.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0, 0, nil
	}
	full = d.queue.full(l) // before the claim's own room is taken
	n = min(d.queue.room(l), most)
	d.queue.promised[l] += n
	return n, d.queue.perTenant(), full
}

// unclaimed gives room back.
func (d *dispatcher) unclaimed(l Lane, n int) {
	d.mu.Lock()
	d.queue.promised[l] -= n
	d.mu.Unlock()
}

// push queues deliveries of one lane whose room was promised: to their tenant, or to a
// claim. It returns those that it does not take: all when it is closed, else those of a
// flow that holds its share of a busy lane already.
func (d *dispatcher) push(l Lane, items []*inflight, keys []flowKey, toTenant bool) (late []*inflight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !toTenant {
		d.queue.promised[l] -= len(items)
	}
	if d.closed {
		return items
	}
	for i, it := range items {
		if !d.queue.push(l, it, keys[i]) {
			late = append(late, it)
		}
		if toTenant {
			d.queue.unpromise(l, it.Tenant, 1)
		}
	}
	d.start()
	return late
}

// again queues a delivery that was in a worker's hands already, whether or not there is
// room for more. false: it is closed, or the flow holds its share of a busy lane.
func (d *dispatcher) again(it *inflight) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || !d.queue.push(it.Lane, it, flowOf(it)) {
		return false
	}
	d.start()
	return true
}

// start begins what may be sent now.
func (d *dispatcher) start() {
	for {
		it := d.pick()
		if it == nil {
			return
		}
		if n := len(d.idle); n > 0 {
			worker := d.idle[n-1]
			d.idle = d.idle[:n-1]
			worker <- it // has room for one
			continue
		}
		d.running.Go(func() { d.work(it) })
	}
}

// work attempts one delivery after the other, and waits when there is none.
func (d *dispatcher) work(it *inflight) {
	more := make(chan *inflight, 1)
	for it != nil {
		if it = d.done(it, d.attempt(it), more); it == nil {
			it = <-more // nil when the dispatcher is closed
		}
	}
}

// pick takes the next delivery that may be sent, and a place for it.
func (d *dispatcher) pick() *inflight {
	if d.closed {
		return nil
	}
	for l := range Lane(LanesCount) {
		if it := d.queue.next(l); it != nil {
			if d.drained != nil && d.queue.drained(it.flow.tenant, l) {
				d.drained()
			}
			return it
		}
	}
	return nil
}

// done ends the send of a delivery and gives its worker the next one; without one
// the worker waits on more.
func (d *dispatcher) done(it *inflight, b feedback, more chan *inflight) *inflight {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.queue.done(it, b)
	next := d.pick()
	switch {
	case next != nil:
		d.start() // a flow that had to wait may have room for more than one
	case d.closed:
		close(more)
	default:
		d.idle = append(d.idle, more)
	}
	return next
}

// usage tells how many requests of a tenant are under way, and how many wait for one.
func (d *dispatcher) usage(tenant ids.ID) Usage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queue.usage(tenant)
}

// waiting is how many deliveries of a tenant wait for their turn.
func (d *dispatcher) waiting(tenant ids.ID) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queue.tenants[tenant].waiting()
}

// trim takes back what flows hold that they cannot send: see fairQueue.trim.
func (d *dispatcher) trim() (left []*inflight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.queue.trim()
}

// close lets workers end, once they have finished what they send, and hands over
// what was queued. wait waits for them.
func (d *dispatcher) close() (left []*inflight) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	left = d.queue.drain()
	for _, worker := range d.idle {
		close(worker)
	}
	d.idle = nil
	return left
}

func (d *dispatcher) wait() { d.running.Wait() }
