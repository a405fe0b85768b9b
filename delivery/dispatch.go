package delivery

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// item is a leased delivery in this node's hands.
type item struct {
	Row
	atMostOnce bool
	now        TargetNow
	payload    channels.Payload // nil until prepared
	lease      atomic.Int64     // when it ends, unix ms; the heartbeat moves it
	flow       *flow            // while it is queued or being sent
}

func newItem(r Row, atMostOnce bool, now TargetNow, lease time.Time) *item {
	it := &item{Row: r, atMostOnce: atMostOnce, now: now}
	it.extend(lease)
	return it
}

func (it *item) extend(lease time.Time) { it.lease.Store(lease.UnixMilli()) }

// leaseLeft is how long the row is still ours.
func (it *item) leaseLeft(now time.Time) time.Duration {
	return time.UnixMilli(it.lease.Load()).Sub(now)
}

// flowKey is what shares a limit of concurrent requests: a credential at a push
// service's origin, or an endpoint.
type flowKey struct {
	id     ids.ID
	origin string
}

// limits of concurrent requests.
const (
	flowLimit     = 400 // of one credential and origin
	endpointLimit = 16  // of one endpoint
	urgentShare   = 5   // one part in five of a limit is kept for lane 0
)

// flow is the bulkhead of a flowKey.
type flow struct {
	key      flowKey
	max      int
	inFlight int
	waiting  int // items queued in any lane
	parked   [LanesCount]bool
	queues   [LanesCount][]*item
}

// dispatcher orders what is in hand: lower lanes first, and within a lane one
// item of each flow in turn, so that a tenant with much to send does not keep
// another waiting. It runs as many workers as there is work for, up to a limit;
// the one that became idle last gets the next item, since its stack is warm.
type dispatcher struct {
	serve   func(*item) (calm bool) // makes the attempt
	workers int                     // most concurrent requests
	reserve int                     // of those, for lane 0 alone

	mu       sync.Mutex
	flows    map[flowKey]*flow
	turn     [LanesCount][]*flow // flows that may run, in order
	queued   [LanesCount]int
	promised [LanesCount]int // room given to accepts that are not committed yet
	capacity [LanesCount]int
	drained  [LanesCount]int // taken since the last look, for sizing
	inFlight int
	idle     []chan *item
	closed   bool
	running  sync.WaitGroup
}

func newDispatcher(workers, capacity int, serve func(*item) bool) *dispatcher {
	d := &dispatcher{serve: serve, flows: map[flowKey]*flow{}, workers: workers, reserve: workers / 16}
	for i := range d.capacity {
		d.capacity[i] = capacity
	}
	return d
}

// promise reserves room for n items of a lane, or none.
func (d *dispatcher) promise(l Lane, n int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.queued[l]+d.promised[l]+n > d.capacity[l] {
		return false
	}
	d.promised[l] += n
	return true
}

// unpromise gives room back.
func (d *dispatcher) unpromise(l Lane, n int) {
	d.mu.Lock()
	d.promised[l] -= n
	d.mu.Unlock()
}

// room is how many more items a lane takes.
func (d *dispatcher) room(l Lane) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return 0
	}
	return max(d.capacity[l]-d.queued[l]-d.promised[l], 0)
}

// push queues items of one lane whose room was promised. It returns those that
// came too late, when the dispatcher is closed.
func (d *dispatcher) push(l Lane, items []*item, keys []flowKey) (late []*item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.promised[l] -= len(items)
	if d.closed {
		return items
	}
	for i, it := range items {
		f := d.flows[keys[i]]
		if f == nil {
			f = &flow{key: keys[i], max: flowLimit}
			if it.Channel == channels.Webhook {
				f.max = endpointLimit
			}
			d.flows[keys[i]] = f
		}
		it.flow = f
		f.waiting++
		f.queues[l] = append(f.queues[l], it)
		if len(f.queues[l]) == 1 && !f.parked[l] {
			d.turn[l] = append(d.turn[l], f)
		}
		d.queued[l]++
	}
	d.pump()
	return nil
}

// pump starts what may be sent now.
func (d *dispatcher) pump() {
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

// work serves one item after the other, and waits when there is none.
func (d *dispatcher) work(it *item) {
	more := make(chan *item, 1)
	for it != nil {
		calm := d.serve(it)
		if it = d.done(it, calm, more); it == nil {
			it = <-more // nil when the dispatcher is closed
		}
	}
}

// pick takes the next item that may be sent, and a place for it.
func (d *dispatcher) pick() *item {
	if d.closed || d.inFlight >= d.workers {
		return nil
	}
	for l := range Lane(LanesCount) {
		if l > Urgent && d.inFlight >= d.workers-d.reserve {
			return nil
		}
		if it := d.next(l); it != nil {
			d.inFlight++
			it.flow.inFlight++
			return it
		}
	}
	return nil
}

func (d *dispatcher) next(l Lane) *item {
	for len(d.turn[l]) > 0 {
		f := d.turn[l][0]
		d.turn[l] = d.turn[l][1:]
		limit := f.max
		if l > Urgent {
			limit = max(f.max-f.max/urgentShare, 1)
		}
		if f.inFlight >= limit {
			f.parked[l] = true // done puts it back
			continue
		}
		it := f.queues[l][0]
		f.queues[l][0] = nil
		f.queues[l] = f.queues[l][1:]
		if len(f.queues[l]) > 0 {
			d.turn[l] = append(d.turn[l], f)
		} else {
			f.queues[l] = nil
		}
		f.waiting--
		d.queued[l]--
		d.drained[l]++
		return it
	}
	return nil
}

// done ends the send of an item and gives its worker the next one; without one
// the worker waits on more. calm tells how the target took it: a webhook endpoint
// that is in trouble gets fewer requests at once, and more again as it recovers.
func (d *dispatcher) done(it *item, calm bool, more chan *item) *item {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := it.flow
	d.inFlight--
	f.inFlight--
	if it.Channel == channels.Webhook {
		if !calm {
			f.max = max(f.max/2, 1)
		} else if f.max < endpointLimit {
			f.max++
		}
	}
	for l := range f.parked {
		if f.parked[l] {
			f.parked[l] = false
			if len(f.queues[l]) > 0 {
				d.turn[l] = append(d.turn[l], f)
			}
		}
	}
	if f.inFlight == 0 && f.waiting == 0 && f.max >= endpointLimit {
		delete(d.flows, f.key)
	}
	next := d.pick()
	switch {
	case next != nil:
		d.pump() // a flow that had to wait may have room for more than one
	case d.closed:
		close(more)
	default:
		d.idle = append(d.idle, more)
	}
	return next
}

// resize bounds each lane by what it can send in a few seconds, so that nothing
// waits in memory for long when providers are slow.
func (d *dispatcher) resize(seconds float64, least, most int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for l := range d.capacity {
		rate := float64(d.drained[l]) / seconds
		d.drained[l] = 0
		if d.queued[l] > d.capacity[l]/2 { // only a lane that is kept busy shows what it can do
			d.capacity[l] = min(max(int(rate*maxLaneWait.Seconds()), least), most)
		} else {
			d.capacity[l] = min(d.capacity[l]+d.capacity[l]/2+1, most)
		}
	}
}

// maxLaneWait is how long an item may expect to wait in a lane.
const maxLaneWait = 5 * time.Second

// close lets workers end, once they have finished what they send, and hands over
// what was queued. wait waits for them.
func (d *dispatcher) close() (left []*item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, f := range d.flows {
		for l := range f.queues {
			left = append(left, f.queues[l]...)
			f.queues[l] = nil
		}
	}
	for l := range d.queued {
		d.queued[l], d.turn[l] = 0, nil
	}
	for _, worker := range d.idle {
		close(worker)
	}
	d.idle = nil
	return left
}

func (d *dispatcher) wait() { d.running.Wait() }
