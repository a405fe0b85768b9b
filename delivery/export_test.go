package delivery

import (
	"time"

	"github.com/carillonhq/carillon/ids"
)

// What tests with a database look at, without changing it.

// BreakerOpen tells whether this node believes no "gone" of a credential version.
func (e *Engine) BreakerOpen(credential ids.ID, version int) bool {
	e.breakers.mu.Lock()
	defer e.breakers.mu.Unlock()
	v := e.breakers.versions[versionKey{credential, version}]
	return v != nil && v.open
}

// UrgentLimit is how many urgent notifications this node allows a tenant in a
// second, on average.
func (e *Engine) UrgentLimit(tenant ids.ID) float64 {
	e.acceptor.urgents.mu.Lock()
	defer e.acceptor.urgents.mu.Unlock()
	limit, _ := e.acceptor.urgents.allowed(tenant)
	return float64(limit)
}

// Refused is how many targets of a subject this node knows to be refused.
func (e *Engine) Refused(credential ids.ID, version int, origin string) int {
	e.refusals.mu.Lock()
	defer e.refusals.mu.Unlock()
	if x := e.refusals.subjects[subject{versionKey{credential, version}, origin}]; x != nil {
		return len(x.targets)
	}
	return 0
}

// Closed tells whether no attempt begins any more, since the engine stops.
func (e *Engine) Closed() bool {
	e.dispatch.mu.Lock()
	defer e.dispatch.mu.Unlock()
	return e.dispatch.closed
}

// WaitsForOlder tells whether something of a tenant waits for the request of an older one,
// and nothing for a worker. In this order: what waits for an older one was with a worker.
func (e *Engine) WaitsForOlder(tenant ids.ID) bool {
	return e.dispatch.waiting(tenant) == 0 && e.backlog.inHand(tenant) > 0
}

// Exchange tells the other nodes what this one knows, and hears them, at once.
func (e *Engine) Exchange() error { return e.peers.exchange(time.Time{}) }
