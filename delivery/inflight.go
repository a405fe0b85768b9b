package delivery

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// inflight is a leased delivery in this node's hands.
type inflight struct {
	Row
	atMostOnce bool
	target     TargetNow
	payload    channels.Payload // nil until prepared
	canceled   atomic.Bool      // its notification, since it came in hand
	leaseEnd   atomic.Int64     // unix ms; renewals move it
	lost       atomic.Bool      // another claim holds the row by now
	writes     atomic.Int32     // of its outcome that have failed
	flow       *flow            // while it is queued or being sent
	last       lastAttempt      // as the row came in hand
	began      atomic.Int64     // unix ms: its send began; 0: none is under way
	reported   bool             // that its send does not end; guarded by inflightSet.mu
	asked      bool             // a person asked for it to be sent now
	looked     time.Duration    // how long it has waited in doubt, since it was refused
	since      time.Time        // when its row was written before it was claimed; zero: it was not
}

func newInflight(r Row, atMostOnce bool, target TargetNow, lease time.Time) *inflight {
	it := &inflight{Row: r, atMostOnce: atMostOnce, target: target, last: lastAttempt{r.Credential, r.Renewed}}
	it.extend(lease)
	return it
}

func (it *inflight) extend(lease time.Time) { it.leaseEnd.Store(lease.UnixMilli()) }

// leaseLeft is how long the row is still ours.
func (it *inflight) leaseLeft(now time.Time) time.Duration {
	return time.UnixMilli(it.leaseEnd.Load()).Sub(now)
}

// sendBegan is when the send that is under way began.
func (it *inflight) sendBegan() time.Time { return time.UnixMilli(it.began.Load()) }

func (it *inflight) progress() Progress {
	return Progress{Channel: it.Channel, Spent: it.Spent, ExpiresAt: it.ExpiresAt, AtMostOnce: it.atMostOnce, Renewed: it.Renewed, Looked: it.looked}
}

func (it *inflight) String() string { return ids.FormatDelivery(it.Notification, it.Target) }

// inflightSet is everything in this node's hands, from the lease to the moment
// that its outcome is written.
type inflightSet struct {
	mu    sync.Mutex
	all   map[*inflight]struct{}
	count sync.WaitGroup
}

func (s *inflightSet) add(items ...*inflight) {
	s.count.Add(len(items))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*inflight]struct{}{}
	}
	for _, it := range items {
		s.all[it] = struct{}{}
	}
}

func (s *inflightSet) remove(it *inflight) {
	s.mu.Lock()
	delete(s.all, it)
	s.mu.Unlock()
	s.count.Done()
}

// wait waits until all outcomes are written.
func (s *inflightSet) wait() { s.count.Wait() }

// cancel marks what there is of a notification as canceled.
func (s *inflightSet) cancel(tenant, notification ids.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := range s.all {
		if it.Notification == notification && it.Tenant == tenant {
			it.canceled.Store(true)
		}
	}
}

// loseUser marks what there is of a user as lost.
func (s *inflightSet) loseUser(tenant, user ids.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := range s.all {
		if it.Tenant == tenant && it.UserID == user {
			it.lost.Store(true)
		}
	}
}

// overdue counts what is being sent since before a time, and lists what of it was not
// listed before.
func (s *inflightSet) overdue(before time.Time) (all int, fresh []*inflight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := range s.all {
		if began := it.began.Load(); began == 0 || began >= before.UnixMilli() {
			continue
		}
		all++
		if !it.reported {
			it.reported = true
			fresh = append(fresh, it)
		}
	}
	return all, fresh
}

// len counts what is in hand.
func (s *inflightSet) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// expiring lists up to most whose leases end within a time and are not lost.
func (s *inflightSet) expiring(now time.Time, within time.Duration, most int) (list []*inflight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for it := range s.all {
		if len(list) == most {
			break
		}
		if it.leaseLeft(now) < within && !it.lost.Load() {
			list = append(list, it)
		}
	}
	return list
}
