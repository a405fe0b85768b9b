package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// BeginStore is what the last look before an attempt needs.
type BeginStore interface {
	// Begin writes that the attempt of a leased row begins; false: the claim is lost.
	Begin(ctx context.Context, r Row) (bool, error)
	LivenessStore
}

// LivenessStore tells whether others see this node.
type LivenessStore interface {
	// Alive tells whether this node may begin to send, or has been silent for so
	// long that others may have taken over what it has in hand.
	Alive() bool
}

// attempter makes attempts. Each of its steps is a function: ready, begin (begin.go),
// send (send.go), assess, decide and record (record.go).
type attempter struct {
	*env
	store       BeginStore
	pause       *pauseSwitch
	targets     *targets
	tenants     *tenantCache
	payloads    *payloads
	senders     *senders
	gates       *gates
	breakers    *breakers
	doubts      *doubts
	finisher    *finisher
	hints       *hints
	metrics     *metrics
	sendTimeout time.Duration
}

// route is what a delivery is sent with.
type route struct {
	tenant     *snapshot
	credential *tenants.Credential // nil for a webhook
	sender     *sender
}

// version is the one that the sender was opened with; zero for a webhook.
func (r *route) version() versionKey {
	if r.credential == nil {
		return versionKey{version: r.sender.version}
	}
	return versionKey{r.credential.ID, r.sender.version}
}

// answer is what a provider has said, and when.
type answer struct {
	channels.Result
	asked, at time.Time
}

// attempt makes at most one attempt.
func (a *attempter) attempt(it *inflight) feedback {
	r, ready := a.ready(it)
	if !ready {
		return feedbackNone
	}
	defer a.senders.release(r.sender)
	if !a.begin(it) {
		return feedbackNone
	}
	ans := a.send(it, &r)
	a.renewSnapshot(it, &r)
	n, believed := a.assess(it, &r, &ans)
	t := a.decide(it, &r, &ans, believed)
	a.record(it, &r, &ans, n, t)
	if ans.Outcome == channels.Retry || ans.Outcome == channels.Throttled {
		return feedbackCongested
	}
	return feedbackOK
}

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
	if t, hold, ok := obstacle(&it.Row, &it.target, r.tenant, now); ok {
		return instead(t, hold)
	}
	r.credential = r.tenant.credential(&it.target)
	if opens := a.gates.until(gatesOf(it, r.credential), now); !opens.IsZero() {
		return instead(waitForGate(it.progress(), opens, now, a.jitter()), Hold{})
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

func (a *attempter) openSender(it *inflight, c *tenants.Credential) (*sender, error) {
	if c == nil {
		return a.senders.acquire(a.sending, it.Tenant, 0, it.Channel, 0)
	}
	return a.senders.acquire(a.sending, it.Tenant, c.ID, it.Channel, c.Version)
}

// renewSnapshot takes up what is known of the tenant since: the credential may have
// a newer version than the sender's.
func (a *attempter) renewSnapshot(it *inflight, r *route) {
	if r.credential == nil {
		return
	}
	if newer, err := a.tenants.get(a.sending, it.Tenant); err == nil {
		r.tenant = newer
	}
}

// assess counts the verdict for the breaker of its credential version, and says how
// far it may be believed. An endpoint speaks for itself.
func (a *attempter) assess(it *inflight, r *route, ans *answer) (noted, Assessment) {
	if r.credential == nil {
		return noted{}, Assessment{}
	}
	newest := r.tenant.hasVersion(r.version())
	proven := newest && !r.tenant.byID[r.credential.ID].ProvenAt.IsZero()
	n := a.breakers.note(r.version(), ans.Outcome, proven, it.target.Device == devices.Suspect, ans.at)
	return n, assess(evidence{proven: n.proven, breakerOpen: n.open, newest: newest})
}

// decide says what the attempt means.
func (a *attempter) decide(it *inflight, r *route, ans *answer, believed Assessment) Transition {
	d := it.progress()
	_, doubted := r.tenant.doubt(r.version())
	d.Undoubted = it.target.Device != devices.Suspect && !doubted
	return Next(d, ans.Result, PolicyOf(it.Channel, r.tenant.settings), believed, ans.at, a.jitter())
}
