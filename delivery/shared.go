package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// Nodes of one database act on what any of them has seen: a provider that asks
// for a pause is left alone by all, verdicts about a credential count wherever
// they came in, and limits are those of all nodes together. They tell each other
// through the database; where a node is alone, none of this runs.

// ShareStore carries between the nodes what they have to know of each other.
type ShareStore interface {
	// Shared tells whether there may be other nodes.
	Shared() bool
	// Exchange writes what this node has to tell, and reads what the others, as
	// far as they are alive, have told. Nothing is exchanged before the node has
	// joined.
	Exchange(ctx context.Context, mine NodeState) (OtherNodes, error)
}

// NodeState is what a node tells the others.
type NodeState struct {
	Gates    []SharedGate // that are new, or stay closed for longer
	Verdicts []Verdicts   // that have changed
	Uses     []Use
	// KnownSince: gates that were told of before are known already; zero: none are.
	KnownSince time.Time
}

// OtherNodes is what a node learns from the others.
type OtherNodes struct {
	Serving  int          // living nodes that take requests, this one included
	Gates    []SharedGate // that are closed, whoever closed them
	Verdicts []Verdicts   // one for each version: the sums over the others
	Uses     []Use        // one for each kind and subject: the sums over the others
}

// SharedGate stops all nodes in a scope.
type SharedGate struct {
	Subject ids.ID // a credential or an endpoint
	Origin  string // of a push service; "": all of the credential
	Until   time.Time
	Wait    time.Duration // how long it was closed for
}

// Verdicts are the last ones that a credential version gave.
type Verdicts struct {
	Credential ids.ID
	Version    int
	Seen, Gone int
	Since      time.Time // of the oldest
	Newest     time.Time
}

// Use is how much is used of a budget.
type Use struct {
	Kind      BudgetKind
	Subject   ids.ID
	PerSecond float64
}

// Share makes a budget hold over all nodes. It is called before Start.
func (e *Engine) Share(b *Budget) { e.budgets = append(e.budgets, b) }

const (
	// exchangeEvery is half of the second within which everybody knows: what is
	// told just after an exchange waits for the next, and is read by the next of
	// the others.
	exchangeEvery = 500 * time.Millisecond
	// exchangePause is the least time between two: hints may come often.
	exchangePause = 100 * time.Millisecond
	// exchangeWithin bounds one, so that trouble is noticed.
	exchangeWithin = 5 * time.Second
	// longGate: the others are told at once of a gate that is closed for longer.
	longGate = 2 * time.Second
	// gateMoves by less, and it is not told again.
	gateMoves = 500 * time.Millisecond
	// gateOverlap is how long after its time a gate may become readable.
	gateOverlap = 10 * time.Second
	// verdictsLast is how long the last verdicts on one node count on the others.
	verdictsLast = 10 * time.Minute
	// verdictsAgain is when verdicts are told again that sum up to the same.
	verdictsAgain = time.Minute
)

func (e *Engine) exchangeLoop() {
	var known time.Time
	failing := false
	for {
		began := e.o.Now()
		err := e.exchange(known)
		switch {
		case err == nil:
			known, failing = began.Add(-gateOverlap), false
		case e.loopCtx.Err() == nil && !failing:
			e.o.Log.Warn("nothing can be exchanged with the other nodes; this one goes by what it knows", "error", err)
			failing = true
		}
		if !e.pause(nil, exchangePause) || !e.pause(e.exchangeNow, exchangeEvery-exchangePause) {
			return
		}
	}
}

func (e *Engine) exchange(known time.Time) error {
	ctx, cancel := context.WithTimeout(e.loopCtx, exchangeWithin)
	defer cancel()
	now := e.o.Now()
	mine := NodeState{Gates: e.gates.news(now), Verdicts: e.health.news(now), KnownSince: known}
	for _, b := range e.budgets {
		mine.Uses = append(mine.Uses, b.uses(now)...)
	}
	others, err := e.o.Store.Exchange(ctx, mine)
	if err != nil {
		return err
	}
	if e.gates.told(mine.Gates, now) {
		e.o.Store.Hint(Hint{Kind: HintShared})
	}
	e.health.told(mine.Verdicts)
	now = e.o.Now()
	e.gates.merge(others.Gates, now)
	for k, since := range e.health.share(others.Verdicts) {
		e.breakerOpened(k, since, now)
	}
	for _, b := range e.budgets {
		b.share(others.Serving, others.Uses, now)
	}
	return nil
}

// closeGate makes a scope wait, on all nodes unless it is a single device.
func (e *Engine) closeGate(s channels.Scope, it *item, credential ids.ID, until, now time.Time) {
	k := gateOf(s, it, credential)
	e.gates.close(k, until, now)
	wide := it.Channel == channels.Webhook || s == channels.ScopeOrigin || s == channels.ScopeCredential
	if wide && e.gates.widen(k, now) {
		hint(e.exchangeNow)
	}
}

// widen makes a gate one that the other nodes are told of, and tells whether that
// is urgent.
func (g *gates) widen(k flowKey, now time.Time) (urgent bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	x := g.closed[k]
	x.wide = true
	g.closed[k] = x
	return x.isNews() && x.until.Sub(now) > longGate
}

func (x gate) isNews() bool { return x.wide && x.until.Sub(x.told) > gateMoves }

// news lists the gates that the other nodes do not know of.
func (g *gates) news(now time.Time) []SharedGate {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []SharedGate
	for k, x := range g.closed {
		if x.isNews() && x.until.After(now) {
			list = append(list, SharedGate{Subject: k.id, Origin: k.origin, Until: x.until, Wait: x.wait})
		}
	}
	return list
}

// told notes what the others know now, and tells whether one of it is long.
func (g *gates) told(list []SharedGate, now time.Time) (long bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range list {
		k := flowKey{id: n.Subject, origin: n.Origin}
		if x, ok := g.closed[k]; ok {
			x.told = n.Until
			g.closed[k] = x
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
		k := flowKey{id: n.Subject, origin: n.Origin}
		if n.Until.After(now) && n.Until.After(g.closed[k].until) {
			g.closed[k] = gate{until: n.Until, wait: n.Wait, wide: true, told: n.Until}
		}
	}
}

// news lists the versions whose verdicts the other nodes have to know: of a
// version that nobody has heard "gone" from, they need not.
func (h *health) news(now time.Time) []Verdicts {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []Verdicts
	for k, v := range h.versions {
		_, asked := h.others[k]
		if v.n == 0 || v.dead == 0 && v.told.Gone == 0 && !asked {
			continue
		}
		n := Verdicts{Credential: k.credential, Version: k.version, Seen: v.n, Gone: v.dead, Since: v.oldest(), Newest: v.newest()}
		same := n.Seen == v.told.Seen && n.Gone == v.told.Gone
		if now.Sub(n.Newest) < verdictsLast && (!same || n.Newest.Sub(v.told.Newest) > verdictsAgain) {
			list = append(list, n)
		}
	}
	return list
}

func (h *health) told(list []Verdicts) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range list {
		if v := h.versions[versionKey{n.Credential, n.Version}]; v != nil {
			v.told = n
		}
	}
}

// share takes up the verdicts of the other nodes. It lists the versions whose
// breakers open with them, each with the time of the oldest verdict.
func (h *health) share(list []Verdicts) map[versionKey]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.others = make(map[versionKey]Verdicts, len(list))
	for _, n := range list {
		h.others[versionKey{n.Credential, n.Version}] = n
	}
	opened := map[versionKey]time.Time{}
	for k, v := range h.versions {
		was := v.open
		if v.open = h.trips(k, v); v.open && !was {
			opened[k] = h.since(k, v)
		}
	}
	return opened
}

// trips tells whether the verdicts of all nodes open the breaker of a version.
func (h *health) trips(k versionKey, v *record) bool {
	others := h.others[k]
	n, dead := v.n+others.Seen, v.dead+others.Gone
	return n >= breakerLeast && dead*100 > n*breakerPercent
}

// since is the time of the oldest verdict that counts.
func (h *health) since(k versionKey, v *record) time.Time {
	at := v.oldest()
	if o, ok := h.others[k]; ok && (v.n == 0 || o.Since.Before(at)) {
		at = o.Since
	}
	return at
}

// oldest is the time of the oldest verdict in the window.
func (v *record) oldest() time.Time {
	if v.n == breakerWindow {
		return v.when[v.at]
	}
	return v.when[0]
}

func (v *record) newest() time.Time {
	return v.when[(v.at+breakerWindow-1)%breakerWindow]
}
