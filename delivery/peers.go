package delivery

import (
	"context"
	"time"
)

// Nodes of one database act on what any of them has seen: verdicts about a
// credential count wherever they came in, and limits are those of all nodes
// together. They tell each other through the database; where a node is alone, none
// of this runs. That a provider is to be left alone they read in its row: see waits.

// PeerStore carries between the nodes what they have to know of each other.
type PeerStore interface {
	// Shared tells whether there may be other nodes.
	Shared() bool
	// Exchange writes what this node has to tell, and reads what the others, as
	// far as they are alive, have told. Nothing is exchanged before the node has
	// joined.
	Exchange(ctx context.Context, mine NodeState) (OtherNodes, error)
}

// NodeState is what a node tells the others.
type NodeState struct {
	Verdicts  []Verdicts // that have changed
	Refusals  []Refusal
	Successes []Success
	Uses      []Use
	// KnownSince: refusals that were exchanged before are known already; zero: none are.
	KnownSince time.Time
}

// OtherNodes is what a node learns from the others.
type OtherNodes struct {
	Serving   int        // living nodes that take requests, this one included
	Verdicts  []Verdicts // one for each version: the sums over the others
	Refusals  []Refusal  // of whichever node, told since KnownSince
	Successes []Success
	Uses      []Use // one for each kind and subject: the sums over the others
}

const (
	// exchangeEvery is half of the second within which everybody knows: what is
	// told just after an exchange waits for the next, and is read by the next of
	// the others.
	exchangeEvery = 500 * time.Millisecond
	// exchangePause is the least time between two: hints may come often.
	exchangePause = 100 * time.Millisecond
	// exchangeWithin bounds one, so that trouble is noticed.
	exchangeWithin = 5 * time.Second
	// exchangeOverlap is how long after its time a row may become readable.
	exchangeOverlap = 10 * time.Second
)

// peers exchanges with the other nodes what all have to know.
type peers struct {
	*env
	store    PeerStore
	breakers *breakers
	refusals *refusals
	budgets  []*Budget // that hold over all nodes
	doubts   *doubts
	hints    *hints
}

func (p *peers) run() {
	var known time.Time
	failing := false
	for {
		began := p.now()
		err := p.exchange(known)
		switch {
		case err == nil:
			known, failing = began.Add(-exchangeOverlap), false
		case !failing:
			p.log.Warn("nothing can be exchanged with the other nodes; this one goes by what it knows", "error", err)
			failing = true
		}
		if !p.wait(nil, exchangePause) || !p.wait(p.hints.exchange, exchangeEvery-exchangePause) {
			return
		}
	}
}

func (p *peers) exchange(known time.Time) error {
	ctx, cancel := context.WithTimeout(p.running, exchangeWithin)
	defer cancel()
	now := p.now()
	mine := p.pending(known, now)
	others, err := p.store.Exchange(ctx, mine)
	if err != nil {
		return err
	}
	p.markSent(mine)
	p.merge(others)
	for _, n := range p.refusals.ripe(now) {
		p.doubts.heard(n)
	}
	return nil
}

// pending is what this node has to tell.
func (p *peers) pending(known, now time.Time) NodeState {
	mine := NodeState{Verdicts: p.breakers.pending(now), KnownSince: known}
	mine.Refusals, mine.Successes = p.refusals.pending(now)
	for _, b := range p.budgets {
		mine.Uses = append(mine.Uses, b.pending(now)...)
	}
	return mine
}

// markSent notes what the others can read now, and tells them where it is urgent.
func (p *peers) markSent(mine NodeState) {
	p.breakers.markSent(mine.Verdicts)
	p.refusals.markSent(mine.Refusals, mine.Successes)
	if len(mine.Refusals) > 0 {
		p.hints.exchangeNow()
	}
}

// merge takes up what the others have told.
func (p *peers) merge(others OtherNodes) {
	now := p.now()
	for k, since := range p.breakers.merge(others.Verdicts) {
		p.doubts.breakerOpened(k, since, now)
	}
	if p.refusals.merge(others.Refusals, others.Successes) {
		p.hints.exchange.raise()
	}
	for _, b := range p.budgets {
		b.merge(others.Serving, others.Uses, now)
	}
}
