package delivery

import (
	"time"

	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// ready finds what a delivery is sent with. false: it is not sent, and what becomes
// of it instead is on its way into the database.
func (a *attempter) ready(it *inflight) (r route, ready bool) {
	ctx, now := a.sending, a.now()
	instead := func(t Transition, h Hold) (route, bool) {
		a.finisher.finish(it, Finish{Transition: t, Hold: h})
		return route{}, false
	}
	putOff := func(doing string, err error) (route, bool) {
		a.finisher.putOff(it, doing, err)
		return route{}, false
	}
	switch {
	case a.pause.current().On():
		return instead(unspent(it.progress(), now), Hold{})
	case it.canceled.Load():
		return instead(cancel(it.Spent), Hold{})
	case !it.ExpiresAt.After(now):
		return instead(expire(it.Channel, it.Spent), Hold{})
	}
	if err := a.targets.refresh(ctx, it, now); err != nil {
		return putOff("read the target", err)
	}
	var err error
	if r.tenant, err = a.tenants.get(ctx, it.Tenant); err != nil {
		return putOff("read the tenant", err)
	}
	r.credential = r.tenant.credential(&it.target, it.last)
	if t, hold, ok := obstacle(&it.Row, &it.target, r.tenant, r.credential, now); ok {
		return instead(t, hold)
	}
	p := passageOf(it, r.credential)
	if r.waits, err = a.tenants.waits(ctx, it.Tenant, r.tenant, p); err != nil {
		return putOff("read what waits", err)
	}
	var gate standing
	if r.look = it.asked; !it.asked {
		gate = a.gates.stand(p, r.waits, r.tenant.readAt, now)
		r.look = gate.look
	}
	if !gate.opens.IsZero() {
		a.tellAgain(it, &r, gate, now)
		a.finisher.finish(it, Finish{Transition: waitForGate(it.progress(), gate, now, a.jitter()), Waited: waitedFor(gate, now), WaitHasRow: gate.row})
		return route{}, false
	}
	if it.payload == nil {
		payload, broken, err := a.payloads.get(ctx, it)
		switch {
		case broken || problem.CodeOf(err) == problem.NotFound:
			return instead(unmappable(it.Spent), Hold{})
		case err != nil:
			return putOff("read the content", err)
		}
		it.payload = payload
	}
	if r.sender, err = a.openSender(it, r.credential); err != nil {
		return putOff("open the sender", err)
	}
	return r, true
}

// tellAgain tells of a gate that could not be told when it was closed: until it has a row
// no other node goes by it.
func (a *attempter) tellAgain(it *inflight, r *route, gate standing, now time.Time) {
	if !gate.shared || gate.row {
		return
	}
	version := 0
	if r.credential != nil {
		version = r.credential.Version
	}
	a.waits.closed(it.Tenant, gate.why.key(), version, urlOf(it), now)
}

func (a *attempter) openSender(it *inflight, c *tenants.Credential) (*sender, error) {
	if c == nil {
		return a.senders.acquire(a.sending, it.Tenant, 0, it.Channel, 0)
	}
	return a.senders.acquire(a.sending, it.Tenant, c.ID, it.Channel, c.Version)
}
