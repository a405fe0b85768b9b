package delivery

import (
	"github.com/carillonhq/carillon/channels"
)

// fairQueue orders what waits to be sent: lower lanes first, and within a lane one
// of each flow in turn, so that a tenant with much to send does not keep another
// waiting. Its user guards it with a lock.
type fairQueue struct {
	most   int // in a lane
	flows  map[flowKey]*flow
	turn   [LanesCount][]*flow // flows that may run, in order
	queued [LanesCount]int
}

// push queues a delivery. false: its flow holds its share of a busy lane already.
func (q *fairQueue) push(l Lane, it *inflight, k flowKey) bool {
	f := q.flows[k]
	if f == nil {
		f = newFlow(k, it.Channel)
		q.flows[k] = f
	}
	it.flow = f
	if q.crowded(f, l) {
		return false
	}
	f.fresh = f.fresh || f.waiting == 0
	f.waiting++
	f.queues[l] = append(f.queues[l], it)
	if len(f.queues[l]) == 1 && !f.parked[l] {
		q.turn[l] = append(q.turn[l], f)
	}
	q.queued[l]++
	return true
}

// crowded: a flow that cannot send what it has does not fill a lane for all.
func (q *fairQueue) crowded(f *flow, l Lane) bool {
	return f.slow > 0 && len(f.queues[l]) >= f.slow && q.queued[l] >= q.most/2
}

// next takes what is to be sent next of a lane, and a place in its flow's limit.
func (q *fairQueue) next(l Lane) *inflight {
	for len(q.turn[l]) > 0 {
		f := q.turn[l][0]
		q.turn[l] = q.turn[l][1:]
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
			q.turn[l] = append(q.turn[l], f)
		} else {
			f.queues[l] = nil
		}
		f.waiting--
		f.inFlight++
		q.queued[l]--
		return it
	}
	return nil
}

// done gives the place back.
func (q *fairQueue) done(it *inflight, b feedback) {
	f := it.flow
	f.inFlight--
	f.served++
	if it.Channel == channels.Webhook {
		f.adapt(b)
	}
	for l := range f.parked {
		if f.parked[l] {
			f.parked[l] = false
			if len(f.queues[l]) > 0 {
				q.turn[l] = append(q.turn[l], f)
			}
		}
	}
	if f.inFlight == 0 && f.waiting == 0 && f.max >= endpointLimit {
		delete(q.flows, f.key)
	}
}

// trim finds the flows that have more than they can send until it is called again,
// and takes back what they hold beyond that of a lane that is half full. Flows of
// endpoints that recover or have nothing to do are forgotten.
func (q *fairQueue) trim() (left []*inflight) {
	for key, f := range q.flows {
		f.slow = 0
		if f.waiting > 0 && !f.fresh {
			f.slow = max(4*f.max, f.served)
		}
		f.served, f.fresh = 0, false
		for l := range Lane(LanesCount) {
			for q.crowded(f, l) && len(f.queues[l]) > f.slow {
				last := len(f.queues[l]) - 1
				left = append(left, f.queues[l][last])
				f.queues[l][last], f.queues[l] = nil, f.queues[l][:last]
				f.waiting--
				q.queued[l]--
			}
		}
		if f.inFlight == 0 && f.waiting == 0 {
			if f.widen(); f.max == endpointLimit {
				delete(q.flows, key)
			}
		}
	}
	return left
}

// drain takes back all that waits.
func (q *fairQueue) drain() (left []*inflight) {
	for _, f := range q.flows {
		for l := range f.queues {
			left = append(left, f.queues[l]...)
			f.queues[l] = nil
		}
	}
	for l := range q.queued {
		q.queued[l], q.turn[l] = 0, nil
	}
	return left
}
