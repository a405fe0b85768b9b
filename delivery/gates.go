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
	// longGate: what is closed for longer is told to everybody, see waits.
	longGate = 2 * time.Second
	// gateMoves by less, and it is not told again.
	gateMoves = 500 * time.Millisecond
	// lookEvery is how often one delivery is let through the gate of a push provider that
	// stays closed for longer: what it asked for may be a mistake, or over by now. What the
	// receiver of a webhook asks for is kept to the letter.
	lookEvery = 10 * time.Minute
	// gateKept is how long it is kept what is only looked at when something happens.
	gateKept = 24 * time.Hour
)

// gates stop everything in a scope for a while, after its provider said "too
// fast" or could not be reached. Here is what this node has met itself. What stops
// more than one device for longer than a moment has a row besides (see waits), by
// which all nodes go; where the row ends, so does the gate.
type gates struct {
	mu     sync.Mutex
	closed map[flowKey]gate
	slowed map[flowKey]*slowed
	spells map[flowKey]*spell
	looked map[flowKey]time.Time // when a delivery was let through a closed gate last
	worked map[flowKey]time.Time // the last success of a scope that is not a device
}

// gate is closed until a time. One that has to be closed again soon after it
// opened, without a success in between, stays closed for twice as long, up to
// maxGate: what it stops should not be claimed and put back again and again.
type gate struct {
	until time.Time
	wait  time.Duration
	why   Wait
	told  time.Time // until when it is closed as its row says
	rowAt time.Time // by when its row was there; zero: it is not yet
}

// slowed are the users who were told "too fast", and when, by answers that may be
// about all of a scope and do not say so.
type slowed struct {
	users map[ids.ID]time.Time
	fresh int // of them, since the scope had to wait for them
}

// passage is the gates that a delivery has to pass.
type passage struct {
	keys [3]flowKey
	own  bool // the first is of its device alone
}

// shared lists those that are not of its device alone.
func (p *passage) shared() []flowKey {
	if p.own {
		return p.keys[1:]
	}
	return p.keys[:1]
}

// standing is what the gates of a delivery say.
type standing struct {
	opens  time.Time // when the last of them does; zero: all are open
	shared bool      // the last is not of its device alone
	why    Wait      // of the last
	row    bool      // there was a row of the last
	look   bool      // it may pass, to see whether those that are closed have to be
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

// isShared tells whether the gate of a scope stops more than a single device.
func isShared(k channels.Kind, s channels.Scope) bool {
	return k == channels.Webhook || s == channels.ScopeOrigin || s == channels.ScopeCredential
}

// passageOf lists the gates that a delivery has to pass.
func passageOf(it *inflight, cred *tenants.Credential) passage {
	p := passage{keys: [3]flowKey{{id: it.Target}}, own: it.Channel != channels.Webhook}
	if cred != nil {
		p.keys[1] = flowKey{id: cred.ID}
		if it.Channel == channels.WebPush {
			p.keys[2] = flowKey{id: cred.ID, origin: it.target.origin()}
		}
	}
	return p
}

// stand tells whether a delivery has to wait. rows are those of its tenant, read at
// readAt.
func (g *gates) stand(p passage, rows map[flowKey]Wait, readAt, now time.Time) standing {
	g.mu.Lock()
	defer g.mu.Unlock()
	var s standing
	look := p.own
	for i, k := range p.keys {
		until, why, row := g.closedUntil(k, rows, readAt)
		if k.id == 0 || !until.After(now) {
			continue
		}
		own := i == 0 && p.own
		if until.After(s.opens) {
			s = standing{opens: until, shared: !own, why: why, row: row}
		}
		look = look && !own && now.Sub(latest(g.looked[k], why.NotedAt)) >= lookEvery
	}
	if s.opens.IsZero() || !look {
		return s
	}
	if g.looked == nil {
		g.looked = map[flowKey]time.Time{}
	}
	for _, k := range p.keys {
		if k.id != 0 {
			g.looked[k] = now
		}
	}
	return standing{look: true}
}

// closedUntil is when a gate opens, by what this node has met and by its row, and
// whether it had one.
func (g *gates) closedUntil(k flowKey, rows map[flowKey]Wait, readAt time.Time) (until time.Time, why Wait, had bool) {
	row, there := rows[k]
	x, ok := g.closed[k]
	if ok && !there && !x.rowAt.IsZero() && readAt.After(x.rowAt) {
		delete(g.closed, k) // a person, or a success on another node, has ended it
		ok = false
	}
	if ok && x.until.After(row.Until) {
		x.why.Until = x.until
		return x.until, x.why, there || !x.rowAt.IsZero()
	}
	return row.Until, row, there
}

// close makes a scope wait. row is its row as far as it is known.
func (g *gates) close(k flowKey, until, now time.Time, why, row Wait) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = map[flowKey]gate{}
	}
	if why.NotedAt.IsZero() {
		why.NotedAt = now
	}
	old, again := g.closed[k]
	if row.Until.After(old.until) { // another node had the same trouble last
		old, again = gate{until: row.Until, wait: row.Until.Sub(row.NotedAt), told: row.Until}, true
	}
	if again && old.until.After(now) { // by another send that was under way
		if until.After(old.until) {
			old.until, old.why, old.rowAt = until, why, time.Time{}
			g.closed[k] = old
		}
		return
	}
	wait := until.Sub(now)
	if again && now.Sub(old.until) < gateSoon {
		wait = max(wait, min(2*old.wait, maxGate))
	}
	g.closed[k] = gate{until: now.Add(wait), wait: wait, why: why}
}

// throttled notes that a user was told "too fast" by an answer that may be about all
// of a scope, and tells whether the scope has to wait: with this user, enough were told
// so within a time, and since it had to wait before, without a success that began after
// it. A user counts once until then, so one whose device is told so for ever does not
// close the gate again and again, nor do a few who are told so one after the other.
func (g *gates) throttled(k flowKey, user ids.ID, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetSlowed(k, now.Add(-evidenceLasts))
	x := g.slowed[k]
	if x == nil {
		x = &slowed{users: map[ids.ID]time.Time{}}
		if g.slowed == nil {
			g.slowed = map[flowKey]*slowed{}
		}
		g.slowed[k] = x
	}
	_, known := x.users[user]
	if known || len(x.users) < evidenceMost {
		x.users[user] = now
	}
	if known {
		return false
	}
	if x.fresh++; x.fresh < evidenceUsers {
		return false
	}
	x.fresh = 0
	return true
}

// forgetSlowed forgets the users of a scope who were told "too fast" before a time.
func (g *gates) forgetSlowed(k flowKey, before time.Time) {
	x := g.slowed[k]
	if x == nil {
		return
	}
	for user, at := range x.users {
		if at.Before(before) {
			delete(x.users, user)
		}
	}
	if x.fresh = min(x.fresh, len(x.users)); len(x.users) == 0 {
		delete(g.slowed, k)
	}
}

// success notes one that began at a time: trouble that comes after it is new, and not
// the old one that a gate should wait for longer and longer. A gate that is closed
// stays so, unless somebody was let through to look.
func (g *gates) success(p passage, began, now time.Time, look bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.worked == nil {
		g.worked = map[flowKey]time.Time{}
	}
	for _, k := range p.shared() {
		if k.id != 0 {
			g.worked[k] = now
		}
	}
	if len(g.closed) == 0 && len(g.slowed) == 0 && len(g.spells) == 0 {
		return
	}
	for _, k := range p.keys {
		g.forgetSlowed(k, began)
		delete(g.spells, k)
		x, ok := g.closed[k]
		switch {
		case !ok:
		case x.until.After(now) && !look:
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
	for k, s := range g.spells {
		if now.Sub(s.newest) > s.lasts {
			delete(g.spells, k)
		}
	}
	for _, m := range []map[flowKey]time.Time{g.looked, g.worked} {
		for k, at := range m {
			if now.Sub(at) > gateKept {
				delete(m, k)
			}
		}
	}
}

// tell returns what there is to be told of a gate: nothing where it opens soon, or all
// of it is known.
func (g *gates) tell(k flowKey, now time.Time) (Wait, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x := g.closed[k]
	if x.until.Sub(now) <= longGate || x.until.Sub(x.told) <= gateMoves {
		return Wait{}, false
	}
	x.told = x.until
	g.closed[k] = x
	w := x.why
	w.Until, w.LastSuccess = x.until, g.worked[k]
	return w, true
}

// written notes that the row of a gate was there by a time. Zero: it could not be
// written, and is to be told again.
func (g *gates) written(k flowKey, by time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x, ok := g.closed[k]
	switch {
	case !ok:
	case by.IsZero():
		x.told = time.Time{}
		g.closed[k] = x
	case !x.until.After(x.told):
		x.rowAt = by
		g.closed[k] = x
	}
}

// open opens a gate that was closed by mistake.
func (g *gates) open(k flowKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.closed, k)
}
