package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
)

// begin is the last look before the first byte. false: the delivery is not sent now.
func (a *attempter) begin(it *inflight) bool {
	if !a.takeTurn(it) {
		return false
	}
	if !a.beginOurs(it) {
		a.leaveTurn(it)
		return false
	}
	return true
}

// beginOurs: the row must still be ours for longer than the request may take, or
// another node could send it too. Of what must not be sent twice, or was in the hands
// of a node that died, it is written that the attempt begins, so that after a crash
// nothing dies that was only waiting.
func (a *attempter) beginOurs(it *inflight) bool {
	if !a.store.Alive() || ids.ID(it.Claim).Node() != a.ids.Node() || it.lost.Load() || it.leaseLeft(a.now()) < a.sendTimeout+time.Second {
		a.finisher.giveBack(it)
		return false
	}
	if !writesBegin(&it.Row, it.atMostOnce) {
		return true
	}
	ours, err := a.store.Begin(context.WithoutCancel(a.sending), it.Row)
	if ours {
		failpoint.Hit("begin.committed")
	}
	switch {
	case err != nil:
		a.finisher.putOff(it, "write that the attempt begins", err)
		return false
	case !ours:
		a.finisher.giveBack(it) // writes nothing: the claim is lost
		return false
	case it.canceled.Load(), it.lost.Load(), !it.ExpiresAt.After(a.now()):
		a.finisher.giveBack(it) // writing took long; the next claim decides
		return false
	}
	return true
}
