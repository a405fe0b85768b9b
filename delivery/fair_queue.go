package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// fairQueue orders what waits to be sent, and says how much of it may be under way:
// lower lanes first, within a lane one of each tenant in turn, and of a tenant one of
// each flow in turn. Each tenant has its part of the requests and of the memory, and
// each flow its part of its tenant's (see partOf), so that nobody whose targets hang
// keeps another waiting. Its user guards it with a lock.
type fairQueue struct {
	most    int // in a lane; a quarter more for those who come when it is full
	workers int // most requests under way; a quarter more for tenants that have none
	reserve int // of those, for lane 0 alone
	now     func() time.Time

	sharing  sharing
	tenants  map[ids.ID]*tenantQueue // those with work
	flows    map[flowKey]*flow
	turn     [LanesCount][]*tenantQueue // tenants that have something queued, in order
	queued   [LanesCount]int
	promised [LanesCount]int // room given to what is not queued yet
	inFlight int
	sending  [LanesCount]int // of those under way
}

func newFairQueue(workers, most int, now func() time.Time) fairQueue {
	return fairQueue{workers: workers, reserve: workers / 16, most: most, now: now, flows: map[flowKey]*flow{}, tenants: map[ids.ID]*tenantQueue{}}
}

// tenantQueue is what a tenant has in it.
type tenantQueue struct {
	id       ids.ID
	inFlight int
	flows    int                 // with something queued or under way
	turn     [LanesCount][]*flow // flows that may run, in order
	listed   [LanesCount]bool    // it is in the queue's turn
	queued   [LanesCount]int
	promised [LanesCount]int  // room given to accepts that are not committed yet
	skipped  [LanesCount]bool // nothing is claimed of it, until it is drained
}

// idle tells whether it has no work.
func (t *tenantQueue) idle() bool {
	return t.flows == 0 && t.promised == [LanesCount]int{}
}

// waiting is how much is queued; nil: it has no work.
func (t *tenantQueue) waiting() (n int) {
	if t != nil {
		for _, k := range t.queued {
			n += k
		}
	}
	return n
}

// tenant finds one, and notes that it has work.
func (q *fairQueue) tenant(id ids.ID) *tenantQueue {
	q.sharing.note(id, q.now)
	t := q.tenants[id]
	if t == nil {
		t = &tenantQueue{id: id}
		q.tenants[id] = t
	}
	return t
}

// taken is how much of a lane is.
func (q *fairQueue) taken(l Lane) int { return q.queued[l] + q.promised[l] }

// roomOf is how many more deliveries of a tenant a lane takes. There is a quarter more
// room for those who come when it is full: of that each has at most as much as it
// leaves free.
func (q *fairQueue) roomOf(t *tenantQueue, l Lane) int {
	taken, its := q.taken(l), t.queued[l]+t.promised[l]
	part := partOf(q.most, len(q.tenants), taken-its, false) - its
	spare := (q.room(l) - max(q.most-taken, 0) - its) / 2
	return max(min(part, max(q.most-taken, 0)+max(spare, 0)), 0)
}

// room is how many more deliveries a lane takes, of whichever tenants they are.
func (q *fairQueue) room(l Lane) int {
	return max(q.most+q.most/newcomersShare-q.taken(l), 0)
}

// promise reserves room for deliveries of a tenant, or none.
func (q *fairQueue) promise(l Lane, id ids.ID, n int) bool {
	t := q.tenant(id)
	if n > q.roomOf(t, l) {
		q.forget(t)
		return false
	}
	t.promised[l] += n
	q.promised[l] += n
	return true
}

// unpromise gives room back.
func (q *fairQueue) unpromise(l Lane, id ids.ID, n int) {
	if t := q.tenants[id]; t != nil {
		t.promised[l] -= n
		q.promised[l] -= n
		q.forget(t)
	}
}

// perTenant is how many deliveries of a tenant are claimed at a time: more than its part
// of a lane has room for, but no more than there is for newcomers.
func (q *fairQueue) perTenant() int { return min(perTenant, max(q.most/newcomersShare, 1)) }

// full lists tenants that have so much in a lane that claiming more of theirs would be
// in vain. They are claimed for again when they have sent half of it: see drained.
func (q *fairQueue) full(l Lane) (list []ids.ID) {
	for id, t := range q.tenants {
		if t.skipped[l] = t.queued[l] > 0 && q.roomOf(t, l) < min(q.perTenant(), t.queued[l]); t.skipped[l] {
			list = append(list, id)
		}
	}
	return list
}

// drained tells, once, that a tenant that was full has room again.
func (q *fairQueue) drained(t *tenantQueue, l Lane) bool {
	if !t.skipped[l] || t.queued[l] > q.most/2/max(len(q.tenants), 1) {
		return false
	}
	t.skipped[l] = false
	return true
}

// push queues a delivery whose room was promised. false: its flow holds its share of a
// busy lane already.
func (q *fairQueue) push(l Lane, it *inflight, k flowKey) bool {
	t := q.tenant(it.Tenant)
	f := q.flows[k]
	if f == nil {
		f = newFlow(k, it.Channel)
		q.flows[k] = f
	}
	it.flow = f
	if f.idle() {
		f.tenant = t // the former one may have been forgotten
	}
	if q.crowded(f, l) {
		q.release(f)
		return false
	}
	if f.idle() {
		t.flows++
	}
	f.fresh = f.fresh || f.waiting == 0
	f.waiting++
	f.queues[l] = append(f.queues[l], it)
	if len(f.queues[l]) == 1 && !f.parked[l] {
		q.list(f, l)
	}
	t.queued[l]++
	q.queued[l]++
	return true
}

// list gives a flow a turn, and its tenant.
func (q *fairQueue) list(f *flow, l Lane) {
	t := f.tenant
	t.turn[l] = append(t.turn[l], f)
	if !t.listed[l] {
		t.listed[l] = true
		q.turn[l] = append(q.turn[l], t)
	}
}

// crowded: a flow that cannot send what it has does not fill a lane for all.
func (q *fairQueue) crowded(f *flow, l Lane) bool {
	return f.slow > 0 && len(f.queues[l]) >= f.slow && q.queued[l] >= q.most/2
}

// next takes what is to be sent next of a lane, and a place for it.
func (q *fairQueue) next(l Lane) *inflight {
	if q.inFlight >= q.slots(l)+q.workers/newcomersShare {
		return nil // for nobody: those who wait for their first may be many
	}
	for range len(q.turn[l]) {
		t := q.turn[l][0]
		q.turn[l] = q.turn[l][1:]
		it := q.nextOf(t, l)
		if t.listed[l] = len(t.turn[l]) > 0; t.listed[l] {
			q.turn[l] = append(q.turn[l], t)
		}
		if it != nil {
			return it
		}
	}
	return nil
}

// slots is how many requests may be under way for one of a lane to begin.
func (q *fairQueue) slots(l Lane) int {
	if l > Urgent {
		return q.workers - q.reserve
	}
	return q.workers
}

// nextOf takes what a tenant sends next of a lane.
func (q *fairQueue) nextOf(t *tenantQueue, l Lane) *inflight {
	slots := q.slots(l)
	part := q.partOf(t, slots)
	// The first of a tenant finds a place though all others hang, and the first of a
	// flow though its tenant's others do: a quarter more, half of it for tenants alone.
	more := slots + q.workers/newcomersShare
	if t.inFlight > 0 {
		more = slots + q.workers/newcomersShare/2
	}
	if q.inFlight >= more || t.inFlight >= part+part/newcomersShare/2 && t.inFlight > 0 {
		return nil // every flow that is passed over below has something under way: they are few
	}
	for range len(t.turn[l]) {
		f := t.turn[l][0]
		t.turn[l] = t.turn[l][1:]
		if f.inFlight >= f.limit(l) {
			f.parked[l] = true // done puts it back
			continue
		}
		full := t.inFlight >= part || q.inFlight >= slots || f.inFlight >= partOf(part, t.flows, t.inFlight-f.inFlight, t.flows > 1)
		if full && f.inFlight > 0 {
			t.turn[l] = append(t.turn[l], f)
			continue
		}
		it := f.queues[l][0]
		f.queues[l][0] = nil
		f.queues[l] = f.queues[l][1:]
		if len(f.queues[l]) > 0 {
			t.turn[l] = append(t.turn[l], f)
		} else {
			f.queues[l] = nil
		}
		f.waiting--
		f.inFlight++
		t.queued[l]--
		q.queued[l]--
		t.inFlight++
		q.inFlight++
		q.sending[l]++
		return it
	}
	return nil
}

// partOf is how many requests of a tenant may be under way.
func (q *fairQueue) partOf(t *tenantQueue, slots int) int {
	return partOf(slots, max(len(q.tenants), 1), q.inFlight-t.inFlight, q.sharing.several)
}

// usage is what a tenant has of the requests.
func (q *fairQueue) usage(id ids.ID) Usage {
	t, n := q.tenants[id], len(q.tenants)
	if t == nil {
		return Usage{Limit: LimitSends, Most: partOf(q.workers, n+1, q.inFlight, q.sharing.several)}
	}
	return Usage{Limit: LimitSends, Used: t.inFlight, Most: q.partOf(t, q.workers), Waiting: t.waiting()}
}

// done gives the place back.
func (q *fairQueue) done(it *inflight, b feedback) {
	f := it.flow
	f.inFlight--
	q.inFlight--
	q.sending[it.Lane]--
	f.tenant.inFlight--
	f.served++
	if it.Channel == channels.Webhook {
		f.adapt(b)
	}
	for l := range f.parked {
		if f.parked[l] {
			f.parked[l] = false
			if len(f.queues[l]) > 0 {
				q.list(f, Lane(l))
			}
		}
	}
	if f.idle() {
		f.tenant.flows--
		q.release(f)
	}
}

// release forgets a flow with nothing to do, unless it is of an endpoint that recovers,
// and a tenant without work.
func (q *fairQueue) release(f *flow) {
	if f.idle() && f.max >= endpointLimit {
		delete(q.flows, f.key)
	}
	q.forget(f.tenant)
}

func (q *fairQueue) forget(t *tenantQueue) {
	if t.idle() && q.tenants[t.id] == t {
		delete(q.tenants, t.id)
	}
}

// trim finds the flows that have more than they can send until it is called again,
// and takes back what they hold beyond that of a lane that is half full, and what tenants
// hold beyond their part of a full one: whoever came first would else keep it from those
// who came since. Flows of endpoints that recover or have nothing to do are forgotten.
func (q *fairQueue) trim() (left []*inflight) {
	q.sharing.refresh(q.now())
	for _, f := range q.flows {
		f.slow = 0
		if f.waiting > 0 && !f.fresh {
			f.slow = max(4*f.max, f.served)
		}
		f.served, f.fresh = 0, false
		idle := f.idle()
		for l := range Lane(LanesCount) {
			for q.crowded(f, l) && len(f.queues[l]) > f.slow {
				left = append(left, q.takeBack(f, l))
			}
		}
		if idle {
			f.widen()
			q.release(f)
		}
	}
	for l := range Lane(LanesCount) {
		if q.taken(l) >= q.most {
			left = append(left, q.even(l)...)
		}
	}
	return left
}

// takeBack takes the delivery that a flow would send last.
func (q *fairQueue) takeBack(f *flow, l Lane) *inflight {
	last := len(f.queues[l]) - 1
	it := f.queues[l][last]
	f.queues[l][last], f.queues[l] = nil, f.queues[l][:last]
	f.waiting--
	f.tenant.queued[l]--
	q.queued[l]--
	return it
}

// even takes back what tenants hold of a lane beyond their part, of each of their flows
// in proportion, and leaves every flow one.
func (q *fairQueue) even(l Lane) (left []*inflight) {
	type share struct{ has, part int }
	over := map[*tenantQueue]share{}
	for _, t := range q.tenants {
		has := t.queued[l] + t.promised[l]
		if part := partOf(q.most, len(q.tenants), q.taken(l)-has, false); has > part {
			over[t] = share{has, part}
		}
	}
	for _, f := range q.flows {
		s, is := over[f.tenant]
		keep := max(len(f.queues[l])*s.part/max(s.has, 1), 1)
		for is && len(f.queues[l]) > keep {
			left = append(left, q.takeBack(f, l))
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
