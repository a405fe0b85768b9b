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
	canceled   atomic.Bool      // its notification, since it came in hand
	lease      atomic.Int64     // when it ends, unix ms; the heartbeat moves it
	lost       atomic.Bool      // another claim holds the row by now
	tries      atomic.Int32     // to write its outcome
	flow       *flow            // while it is queued or being sent
}

// mood is how a target took what was sent to it.
type mood uint8

const (
	unasked mood = iota // nothing was sent
	calm
	upset
)

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
	waiting  int  // items queued in any lane
	served   int  // since the last look
	slow     int  // most items that may queue per lane; 0: no limit of its own
	fresh    bool // began to wait since the last look
	parked   [LanesCount]bool
	queues   [LanesCount][]*item
}

// dispatcher orders what is in hand: lower lanes first, and within a lane one
// item of each flow in turn, so that a tenant with much to send does not keep
// another waiting. It runs as many workers as there is work for, up to a limit;
// the one that became idle last gets the next item, since its stack is warm.
type dispatcher struct {
	serve   func(*item) mood // makes the attempt
	workers int              // most concurrent requests
	reserve int              // of those, for lane 0 alone

	mu       sync.Mutex
	flows    map[flowKey]*flow
	turn     [LanesCount][]*flow // flows that may run, in order
	queued   [LanesCount]int
	promised [LanesCount]int // room given to accepts that are not committed yet
	most     int             // items of a lane in memory
	inFlight int
	idle     []chan *item
	closed   bool
	running  sync.WaitGroup
}

func newDispatcher(workers, capacity int, serve func(*item) mood) *dispatcher {
	d := &dispatcher{serve: serve, flows: map[flowKey]*flow{}, workers: workers, reserve: workers / 16, most: capacity}
	return d
}

// promise reserves room for n items of a lane, or none.
func (d *dispatcher) promise(l Lane, n int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.queued[l]+d.promised[l]+n > d.most {
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
	return max(d.most-d.queued[l]-d.promised[l], 0)
}

// push queues items of one lane whose room was promised. It returns those that
// it does not take: all when it is closed, else those of a flow that holds its
// share of a busy lane already.
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
		if d.crowded(f, l) {
			late = append(late, it)
			continue
		}
		f.fresh = f.fresh || f.waiting == 0
		f.waiting++
		f.queues[l] = append(f.queues[l], it)
		if len(f.queues[l]) == 1 && !f.parked[l] {
			d.turn[l] = append(d.turn[l], f)
		}
		d.queued[l]++
	}
	d.pump()
	return late
}

// crowded: a flow that cannot send what it has does not fill a lane for all.
func (d *dispatcher) crowded(f *flow, l Lane) bool {
	return f.slow > 0 && len(f.queues[l]) >= f.slow && d.queued[l] >= d.most/2
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
		if it = d.done(it, d.serve(it), more); it == nil {
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
		return it
	}
	return nil
}

// done ends the send of an item and gives its worker the next one; without one
// the worker waits on more. m tells how the target took it: a webhook endpoint
// that is in trouble gets fewer requests at once, and more again as it recovers.
func (d *dispatcher) done(it *item, m mood, more chan *item) *item {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := it.flow
	d.inFlight--
	f.inFlight--
	f.served++
	if it.Channel == channels.Webhook {
		switch {
		case m == upset:
			f.max = max(f.max/2, 1)
		case m == calm && f.max < endpointLimit:
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

// look finds the flows that have more than they can send until the next look, and
// takes back what they hold beyond that of a lane that is half full. Flows of
// endpoints that recover or have nothing to do are forgotten.
func (d *dispatcher) look() (left []*item) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, f := range d.flows {
		f.slow = 0
		if f.waiting > 0 && !f.fresh {
			f.slow = max(4*f.max, f.served)
		}
		f.served, f.fresh = 0, false
		for l := range Lane(LanesCount) {
			for d.crowded(f, l) && len(f.queues[l]) > f.slow {
				last := len(f.queues[l]) - 1
				left = append(left, f.queues[l][last])
				f.queues[l][last], f.queues[l] = nil, f.queues[l][:last]
				f.waiting--
				d.queued[l]--
			}
		}
		if f.inFlight == 0 && f.waiting == 0 {
			if f.max = min(f.max*2, endpointLimit); f.max == endpointLimit {
				delete(d.flows, key)
			}
		}
	}
	return left
}

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
