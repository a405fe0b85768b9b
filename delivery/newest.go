package delivery

import (
	"context"
	"sync"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// Of the deliveries of a device that have one collapse key the newest counts, by the
// order in which they were committed. What waits is superseded in the transaction that
// accepts a newer one. What is in somebody's hands then is found by the look below,
// without which no delivery with a collapse key begins: one that is not the newest any
// more ends, and the newest waits for the request of an older one that has begun
// before. So an older one never leaves after a newer one.

// olderSlack is what a commit may take, and what clocks may differ by: an older one
// that another node sends began this long after the newer one was accepted at most.
const olderSlack = 5 * time.Second

// NewestStore knows the newest of the deliveries of a device that share an order key.
type NewestStore interface {
	// Newest finds it; r itself where nothing is known of another.
	Newest(ctx context.Context, r Row) (Newest, error)
	// OlderInHand tells whether another node has one in its hands that came before r.
	OlderInHand(ctx context.Context, r Row) (bool, error)
}

// Newest is the newest of the deliveries of a device that share an order key.
type Newest struct {
	Notification ids.ID
	Since        time.Time // about when it was accepted, or became due
}

// orderKey is a collapse key of a device.
type orderKey struct {
	tenant, target ids.ID
	key            int64
}

// turns keeps this node from sending two deliveries at a time that share an order key.
type turns struct {
	mu  sync.Mutex
	all map[orderKey]*turnTaken
	// waiting is how many wait, of each tenant.
	waiting map[ids.ID]int
}

// turnTaken is a turn that somebody has, and the delivery that waits for it.
type turnTaken struct{ waiting *inflight }

func turnOf(it *inflight) orderKey { return orderKey{it.Tenant, it.Target, it.OrderKey} }

// take takes the turn of a delivery, if nobody has it.
func (s *turns) take(it *inflight) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all[turnOf(it)] != nil {
		return false
	}
	if s.all == nil {
		s.all = map[orderKey]*turnTaken{}
	}
	s.all[turnOf(it)] = &turnTaken{}
	return true
}

// leave gives the turn to nobody, and returns who has waited for it, if somebody has.
func (s *turns) leave(it *inflight) *inflight {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.all[turnOf(it)].waiting
	delete(s.all, turnOf(it))
	if next != nil {
		if s.waiting[next.Tenant]--; s.waiting[next.Tenant] == 0 {
			delete(s.waiting, next.Tenant)
		}
	}
	return next
}

// of is how many of a tenant wait.
func (s *turns) of(tenant ids.ID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waiting[tenant]
}

// wait keeps a delivery until its turn is free. It returns one that need not wait any
// more: itself, when the turn has become free, or the one that waited until now, which
// finds out which of the two is newer.
func (s *turns) wait(it *inflight) *inflight {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.all[turnOf(it)]
	if t == nil {
		return it
	}
	was := t.waiting
	if t.waiting = it; was == nil {
		if s.waiting == nil {
			s.waiting = map[ids.ID]int{}
		}
		s.waiting[it.Tenant]++
	}
	return was
}

// takeTurn is the look before a delivery with an order key. true: it is the newest, and
// has the turn until leaveTurn. Otherwise what becomes of it is on its way.
func (a *attempter) takeTurn(it *inflight) bool {
	if it.OrderKey == 0 {
		return true
	}
	taken := a.turns.take(it)
	n, err := a.store.Newest(context.WithoutCancel(a.sending), it.Row)
	var older bool
	if err == nil && taken && n.Notification == it.Notification && it.Replaces != 0 && a.now().Before(n.Since.Add(a.sendTimeout+olderSlack)) {
		older, err = a.store.OlderInHand(context.WithoutCancel(a.sending), it.Row)
	}
	switch {
	case err != nil:
		a.finisher.putOff(it, "read which delivery of a collapse key is the newest", err)
	case n.Notification != it.Notification:
		a.finisher.finish(it, Finish{Transition: supersede(n.Notification, it.Spent)})
	case older:
		a.finisher.finish(it, Finish{Transition: waitForOlder(it.progress(), a.now())})
	case !taken:
		a.again(a.turns.wait(it))
	default:
		return true
	}
	if taken {
		a.leaveTurn(it)
	}
	return false
}

// leaveTurn lets the next one begin.
func (a *attempter) leaveTurn(it *inflight) {
	if it.OrderKey != 0 {
		a.again(a.turns.leave(it))
	}
}

// again queues a delivery that waited for its turn; nil: none did.
func (a *attempter) again(it *inflight) {
	if it != nil && !a.dispatch.again(it) {
		a.finisher.crowdOut(it)
	}
}
