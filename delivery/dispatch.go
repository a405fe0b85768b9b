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
// another waiting.
type dispatcher struct {
	mu       sync.Mutex
	ready    *sync.Cond
	flows    map[flowKey]*flow
	turn     [LanesCount][]*flow // flows that may run, in order
	queued   [LanesCount]int
	promised [LanesCount]int // room given to accepts that are not committed yet
	capacity [LanesCount]int
	inFlight int
	workers  int // most concurrent requests
	reserve  int // of those, for lane 0 alone
	closed   bool
	drained  [LanesCount]int // taken since the last look, for sizing
}

func newDispatcher(workers int, capacity int) *dispatcher {
	d := &dispatcher{flows: map[flowKey]*flow{}, workers: workers, reserve: workers / 16}
	d.ready = sync.NewCond(&d.mu)
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
		d.ready.Signal()
	}
	return nil
}

// take waits for the next item that may be sent; nil: closed and empty handed.
func (d *dispatcher) take() *item {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		if d.closed {
			return nil
		}
		for l := range Lane(LanesCount) {
			if l > Urgent && d.inFlight >= d.workers-d.reserve {
				break
			}
			if it := d.next(l); it != nil {
				d.inFlight++
				it.flow.inFlight++
				return it
			}
		}
		d.ready.Wait()
	}
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

// done ends the send of an item. calm tells how its target took it: a webhook
// endpoint that is in trouble gets fewer requests at once, and more again as it
// recovers.
func (d *dispatcher) done(it *item, calm bool) {
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
	d.ready.Signal()
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

// close lets workers end and hands over what was queued.
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
	d.ready.Broadcast()
	return left
}
