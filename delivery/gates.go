package delivery

import (
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

const (
	maxGate = 5 * time.Minute
	// gateSoon is how long after opening a refusal still counts as the same
	// trouble: who is refused later has been served in between.
	gateSoon = 5 * time.Second
	// longGate: the other nodes hear at once of a gate that is closed for longer.
	longGate = 2 * time.Second
	// gateMoves by less, and it is not sent to them again.
	gateMoves = 500 * time.Millisecond
)

// SharedGate stops all nodes in a scope.
type SharedGate struct {
	Subject ids.ID // a credential or an endpoint
	Origin  string // of a push service; "": all of the credential
	Until   time.Time
	Wait    time.Duration // how long it was closed for
}

func (s *SharedGate) key() flowKey { return flowKey{id: s.Subject, origin: s.Origin} }

// gates stop everything in a scope for a while, after its provider said "too
// fast" or could not be reached. They live in memory: a node that is alone and
// starts finds out by one request, others learn of them (see peers.go).
type gates struct {
	mu     sync.Mutex
	closed map[flowKey]gate
	// slowed are the users who were told "too fast" last, and when, by answers that may
	// be about all of a scope and do not say so.
	slowed map[flowKey]map[ids.ID]time.Time
}

// gate is closed until a time. One that has to be closed again soon after it
// opened, without a success in between, stays closed for twice as long, up to
// maxGate: what it stops should not be claimed and put back again and again.
type gate struct {
	until  time.Time
	wait   time.Duration
	shared bool      // it is for all nodes
	sent   time.Time // until when it is closed as the other nodes know it
}

// gateOf names the gate of a scope. An endpoint has one gate, whatever the scope.
func gateOf(s channels.Scope, it *inflight, credential ids.ID) flowKey {
	switch {
	case it.Channel == channels.Webhook:
		return flowKey{id: it.Target}
	case s == channels.ScopeOrigin:
		return flowKey{id: credential, origin: it.target.origin()}
	case s == channels.ScopeCredential:
		return flowKey{id: credential}
	}
	return flowKey{id: it.Target}
}

// isShared tells whether all nodes obey the gate of a scope, and not this one
// alone because it is of a single device.
func isShared(k channels.Kind, s channels.Scope) bool {
	return k == channels.Webhook || s == channels.ScopeOrigin || s == channels.ScopeCredential
}

// gatesOf lists the gates that a delivery has to pass.
func gatesOf(it *inflight, cred *tenants.Credential) [3]flowKey {
	k := [3]flowKey{{id: it.Target}}
	if cred != nil {
		k[1] = flowKey{id: cred.ID}
		if it.Channel == channels.WebPush {
			k[2] = flowKey{id: cred.ID, origin: it.target.origin()}
		}
	}
	return k
}

// until is when the last of the gates opens; zero: all are open.
func (g *gates) until(keys [3]flowKey, now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	var last time.Time
	for _, k := range keys {
		if at := g.closed[k].until; k.id != 0 && at.After(now) {
			last = latest(last, at)
		}
	}
	return last
}

func (g *gates) close(k flowKey, until, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = map[flowKey]gate{}
	}
	old, again := g.closed[k]
	if again && old.until.After(now) { // by another send that was under way
		if until.After(old.until) {
			old.until = until
			g.closed[k] = old
		}
		return
	}
	wait := until.Sub(now)
	if again && now.Sub(old.until) < gateSoon {
		wait = max(wait, min(2*old.wait, maxGate))
	}
	g.closed[k] = gate{until: now.Add(wait), wait: wait}
}

// throttled notes that a user was told "too fast" by an answer that may be about all
// of a scope, and tells whether the scope has to wait: with this user, enough were told
// so within a time, without a success that began after it. A user counts once until
// then, so one whose device is told so for ever does not close the gate again and again.
func (g *gates) throttled(k flowKey, user ids.ID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetSlowed(k, now.Add(-evidenceLasts))
	users := g.slowed[k]
	if users == nil {
		users = map[ids.ID]time.Time{}
		if g.slowed == nil {
			g.slowed = map[flowKey]map[ids.ID]time.Time{}
		}
		g.slowed[k] = users
	}
	_, known := users[user]
	if known || len(users) < evidenceMost {
		users[user] = now
	}
	return !known && len(users) >= evidenceUsers
}

// forgetSlowed forgets the users of a scope who were told "too fast" before a time.
func (g *gates) forgetSlowed(k flowKey, before time.Time) {
	users := g.slowed[k]
	for user, at := range users {
		if at.Before(before) {
			delete(users, user)
		}
	}
	if len(users) == 0 {
		delete(g.slowed, k)
	}
}

// markShared makes a gate one that the other nodes hear of, and tells whether that is
// urgent.
func (g *gates) markShared(k flowKey, now time.Time) (urgent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x := g.closed[k]
	x.shared = true
	g.closed[k] = x
	return x.isPending() && x.until.Sub(now) > longGate
}

// success notes one that began at a time: trouble that comes after it is new, and not
// the old one that a gate should wait for longer and longer. A gate that is closed
// stays so.
func (g *gates) success(keys [3]flowKey, began, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.closed) == 0 && len(g.slowed) == 0 {
		return
	}
	for _, k := range keys {
		g.forgetSlowed(k, began)
		x, ok := g.closed[k]
		switch {
		case !ok:
		case x.until.After(now):
			x.wait = 0
			g.closed[k] = x
		default:
			delete(g.closed, k)
		}
	}
}

// sweep forgets gates that have stayed open for as long as they were closed, and who
// was told "too fast" long ago.
func (g *gates) sweep(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k := range g.slowed {
		g.forgetSlowed(k, now.Add(-evidenceLasts))
	}
	for k, x := range g.closed {
		if now.Sub(x.until) > x.wait {
			delete(g.closed, k)
		}
	}
}

func (x gate) isPending() bool { return x.shared && x.until.Sub(x.sent) > gateMoves }

// pending lists the gates that the other nodes do not know of.
func (g *gates) pending(now time.Time) []SharedGate {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []SharedGate
	for k, x := range g.closed {
		if x.isPending() && x.until.After(now) {
			list = append(list, SharedGate{Subject: k.id, Origin: k.origin, Until: x.until, Wait: x.wait})
		}
	}
	return list
}

// markSent notes what the other nodes know now, and tells whether one of the gates
// is closed for long.
func (g *gates) markSent(list []SharedGate, now time.Time) (long bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range list {
		if x, ok := g.closed[n.key()]; ok {
			x.sent = n.Until
			g.closed[n.key()] = x
		}
		long = long || n.Until.Sub(now) > longGate
	}
	return long
}

// merge closes the gates that other nodes have closed.
func (g *gates) merge(list []SharedGate, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = map[flowKey]gate{}
	}
	for _, n := range list {
		if n.Until.After(now) && n.Until.After(g.closed[n.key()].until) {
			g.closed[n.key()] = gate{until: n.Until, wait: n.Wait, shared: true, sent: n.Until}
		}
	}
}
