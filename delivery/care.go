package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

const (
	perTenant   = 250  // rows of a tenant in one claim
	claimLimit  = 1000 // rows in one claim
	moveLimit   = 1000 // rows of a hold, or of a purge, in one transaction
	markerLimit = 100
	idleTenant  = 2 * time.Hour // after which what is kept in memory of a tenant goes
)

// wakeAt makes the claim loop look again no later than at t. now: that is at once.
func (e *Engine) wakeAt(t time.Time) (now bool) {
	wait := t.Sub(e.o.Now())
	if wait <= 0 {
		hint(e.wake)
		return true
	}
	if wait < e.o.Poll {
		time.AfterFunc(wait, func() { hint(e.wake) })
	}
	return false
}

// claimLoop finds what is due: retries, overflow, markers, and what a node that
// died has left. A hint wakes it; a lost hint is found by the poll.
func (e *Engine) claimLoop() {
	for {
		more := e.claimRound()
		e.claimBeat.Store(e.o.Now().UnixMilli())
		if more {
			hint(e.wake)
		}
		if !e.pause(e.wake, e.o.Poll) {
			return
		}
	}
}

// pause waits for a hint, or for d. false: the engine stops.
func (e *Engine) pause(wake <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-e.loopCtx.Done():
		return false
	case <-wake:
	case <-t.C:
	}
	return e.loopCtx.Err() == nil
}

// claimRound claims once per lane. It reports whether there may be more at once.
func (e *Engine) claimRound() (more bool) {
	ctx := e.loopCtx
	if e.o.Now().Sub(e.ClaimBeat()) > e.o.Lease/2 {
		e.renew() // the process stood still: first keep what is ours from ourselves
	}
	e.markers(ctx)
	if e.Sending().On() {
		return false
	}
	for l := range Lane(LanesCount) {
		limit := min(e.dispatch.room(l), claimLimit)
		if limit == 0 || !e.dispatch.promise(l, limit) {
			continue
		}
		now := e.o.Now()
		claimed, err := e.o.Store.Claim(ctx, ClaimOrder{Lane: l, Limit: limit, PerTenant: perTenant, Now: now,
			Lease: now.Add(e.o.Lease), Claim: int64(e.o.IDs.Next())})
		if err != nil {
			e.dispatch.unpromise(l, limit)
			e.o.Log.Error("claim", "lane", l, "error", err)
			continue
		}
		if len(claimed) > 0 {
			failpoint.Hit("claim.committed")
		}
		e.dispatch.unpromise(l, limit-len(claimed))
		more = more || len(claimed) >= min(limit, perTenant)
		e.take(l, claimed, now.Add(e.o.Lease))
	}
	return more
}

// take queues claimed rows. Those that died with their node too often, or must
// not be sent twice, are settled by the worker like the rest: through finish.
func (e *Engine) take(l Lane, claimed []Claimed, lease time.Time) {
	items := make([]*item, 0, len(claimed))
	for i := range claimed {
		c := &claimed[i]
		it := newItem(c.Row, c.AtMostOnce, c.Now, lease)
		if c.Was == Sending {
			e.metrics.takeovers.Inc()
		}
		if t, over := atClaim(c, standing(it)); over {
			e.dispatch.unpromise(l, 1)
			e.settle(it, t)
			continue
		}
		if pic, err := e.directory.of(e.loopCtx, it.Tenant); err == nil {
			if cred := pic.credential(&it.now); cred != nil {
				it.Credential = cred.ID
			}
		}
		items = append(items, it)
	}
	e.enqueue(l, items)
}

// settle finishes an item that was never queued.
func (e *Engine) settle(it *item, t Transition) {
	e.finishes.Add(1)
	e.hand.Lock()
	e.inHand[it] = struct{}{}
	e.hand.Unlock()
	e.finish(it, Finish{Transition: t})
}

// markers resolves the targets of notifications whose time has come.
func (e *Engine) markers(ctx context.Context) {
	now := e.o.Now()
	due, err := e.o.Store.DueScheduled(ctx, now, markerLimit)
	if err != nil {
		if ctx.Err() == nil {
			e.o.Log.Error("look for scheduled notifications", "error", err)
		}
		return
	}
	for _, m := range due {
		// Each by its own time: what becomes due long before its commit could be passed
		// over by a claim that has been further already.
		if err := e.unfold(ctx, m, e.o.Now()); err != nil {
			e.o.Log.Error("resolve a scheduled notification", "notification", m.Notification.Format(ids.Notification), "error", err)
		}
	}
}

func (e *Engine) unfold(ctx context.Context, m Scheduled, now time.Time) error {
	var r Request
	body, err := e.o.Store.Content(ctx, m.Tenant, m.Notification)
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil && (len(body) > 0 || problem.CodeOf(err) == problem.NotFound) {
		// It can never be resolved, and must not keep the others waiting.
		_, gone := e.o.Store.ResolveScheduled(ctx, Accepted{ID: m.Notification, Tenant: m.Tenant, Skips: []Skip{{Reason: SkipUnreadable}}})
		return errors.Join(err, gone)
	}
	if err != nil {
		return err
	}
	pic, err := e.directory.of(ctx, m.Tenant)
	if err != nil {
		return err
	}
	p := plan{lane: m.Lane, accepted: Accepted{ID: m.Notification, Tenant: m.Tenant, Lane: m.Lane, Type: m.Type,
		CreatedAt: now, SendAt: m.SendAt, Scheduled: true, AtMostOnce: m.AtMostOnce, Sensitive: r.Sensitive}}
	switch err := e.resolve(ctx, &p, &r, pic, now); {
	case problem.CodeOf(err) == problem.Invalid:
		// Who it names has grown past what one notification may reach.
		p.accepted.Rows, p.accepted.Skips = nil, []Skip{{Reason: SkipTooMany}}
	case err != nil:
		return err // the marker stays, and is looked at again
	}
	p.accepted.Scheduled = false
	failpoint.Hit("unfold.begin")
	done, err := e.o.Store.ResolveScheduled(ctx, p.accepted)
	if err == nil && done {
		failpoint.Hit("unfold.committed")
		e.backlog.Add(int64(len(p.accepted.Rows)))
		e.due()
	}
	return err
}

// leaseLoop renews the leases of what is still in hand, and keeps lanes from
// filling up with what cannot be sent.
func (e *Engine) leaseLoop() {
	for e.pause(nil, e.o.Beat) {
		for _, it := range e.dispatch.look() {
			e.crowdedOut(it)
		}
		e.gates.sweep(e.o.Now())
		e.renew()
	}
}

// renew moves the end of every lease in hand that has run for half its time. What
// turns out to be lost keeps its old end, so it is not sent.
func (e *Engine) renew() {
	for e.loopCtx.Err() == nil {
		now := e.o.Now()
		var (
			items []*item
			rows  []Row
		)
		e.hand.Lock()
		for it := range e.inHand {
			if it.leaseLeft(now) < e.o.Lease/2 && !it.lost.Load() {
				items, rows = append(items, it), append(rows, it.Row)
			}
			if len(rows) == claimLimit {
				break
			}
		}
		e.hand.Unlock()
		if len(rows) == 0 {
			return
		}
		until := now.Add(e.o.Lease)
		kept, err := e.o.Store.Renew(e.loopCtx, rows, until)
		if err != nil {
			e.o.Log.Error("renew leases", "rows", len(rows), "error", err)
			return
		}
		for i, it := range items {
			if kept[i] {
				it.extend(until)
			} else {
				it.lost.Store(true)
			}
		}
	}
}

// holdLoop moves deliveries out of holds that end, and probes credentials that
// were refused.
func (e *Engine) holdLoop() {
	nextProbe := e.o.Now().Add(e.o.ProbeEvery)
	for {
		holds, err := e.o.Store.HoldsEndingOrDenied(e.loopCtx)
		if err != nil && e.loopCtx.Err() == nil {
			e.o.Log.Error("read holds", "error", err)
		}
		now := e.o.Now()
		probe := now.After(nextProbe)
		if probe {
			nextProbe = now.Add(e.o.ProbeEvery)
			probe = e.onDuty("probe", e.o.ProbeEvery)
		}
		for _, h := range holds {
			switch {
			case h.Ending != Open:
				e.endHold(h)
			case probe && !e.Sending().On() && h.Scope == HoldCredential && h.Reason == CredentialDenied:
				e.loops.Go(func() { e.probe(h) })
			}
		}
		if !e.pause(e.moveHolds, 5*e.o.Poll) {
			return
		}
	}
}

func (e *Engine) endHold(h Hold) {
	failpoint.Hit("resume.begin")
	for e.loopCtx.Err() == nil {
		moved, done, err := e.o.Store.MoveHeld(e.loopCtx, h, moveLimit, e.o.Now())
		if err != nil {
			e.o.Log.Error("end a hold", "hold", h.ID.Format(ids.Hold), "error", err)
			return
		}
		if h.Ending == Confirm {
			e.backlog.Add(-int64(moved))
		}
		if !done {
			failpoint.Hit("resume.between")
		}
		e.due()
		if done {
			failpoint.Hit("resume.ended")
			e.o.Log.Info("a hold has ended", "hold", h.ID.Format(ids.Hold), "reason", h.Reason.String(), "tenant", int64(h.Tenant))
			return
		}
	}
}

// probe asks the provider whether a refused credential works by now.
func (e *Engine) probe(h Hold) {
	if h.Qualifier != "" {
		// A push service cannot be asked without a message: let what is held try.
		if ended, err := e.o.Store.EndHold(e.loopCtx, h.ID, Resume); err == nil && ended {
			e.changed(h.Tenant)
		}
		return
	}
	ctx, cancel := context.WithTimeout(e.loopCtx, e.o.SendTimeout)
	defer cancel()
	pic, err := e.directory.of(ctx, h.Tenant)
	if err != nil || pic.deleting || pic.byID[h.Subject] == nil {
		return
	}
	c := pic.byID[h.Subject]
	s, err := e.senders.acquire(ctx, h.Tenant, c.ID, c.Channel, c.Version)
	if err != nil {
		return
	}
	defer e.senders.release(s)
	r := s.Probe(ctx)
	e.o.Log.Info("a refused credential was probed", "credential", c.ID.Format(ids.Credential), "outcome", r.Outcome.String(), "code", r.Code)
	if r.Outcome != channels.Accepted {
		return
	}
	if err := e.o.Store.RecoverCredential(ctx, h.Tenant, c.ID); err != nil {
		e.o.Log.Error("resume a credential", "credential", c.ID.Format(ids.Credential), "error", err)
		return
	}
	e.changed(h.Tenant)
}

// purgeLoop removes what is past its retention, and what is in memory for nothing.
func (e *Engine) purgeLoop() {
	for e.pause(nil, e.o.PurgeEvery) {
		for mine := e.onDuty("purge", e.o.PurgeEvery); mine && e.loopCtx.Err() == nil; {
			n, err := e.o.Store.Purge(e.loopCtx, e.o.Retention, e.o.Now(), moveLimit)
			if err != nil {
				e.o.Log.Error("purge", "error", err)
			}
			if err != nil || n < moveLimit {
				break
			}
		}
		e.directory.forgetIdle(e.o.Now().Add(-idleTenant))
		inUse := e.directory.versions()
		e.senders.prune(inUse)
		e.health.prune(inUse)
	}
}

// onDuty makes background work this node's for a while, unless it is another's.
func (e *Engine) onDuty(name string, every time.Duration) bool {
	mine, err := e.o.Store.TakeDuty(e.loopCtx, name, every*9/10) // so that it is due again when the timer is
	if err != nil && e.loopCtx.Err() == nil {
		e.o.Log.Error("take a duty", "duty", name, "error", err)
	}
	return mine
}

// countLoop counts the backlog, which drifts when it is only counted along the
// way, and which other nodes add to and take from.
func (e *Engine) countLoop() {
	for e.pause(nil, e.o.CountEvery) {
		if n, err := e.o.Store.Unfinished(e.loopCtx, e.o.MaxBacklog+1); err == nil {
			e.backlog.Store(int64(n))
		}
	}
}
