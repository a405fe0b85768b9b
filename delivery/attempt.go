package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/tenants"
)

// BeginStore is what the last look before an attempt needs.
type BeginStore interface {
	// Begin writes that the attempt of a leased row begins; false: the claim is lost.
	Begin(ctx context.Context, r Row) (bool, error)
	NewestStore
	LivenessStore
	EvidenceStore
}

// LivenessStore tells whether others see this node.
type LivenessStore interface {
	// Alive tells whether this node may begin to send, or has been silent for so
	// long that others may have taken over what it has in hand.
	Alive() bool
}

// attempter makes attempts. Each of its steps is a function: ready (attempt_ready.go), begin (begin.go),
// send (send.go), assess (evidence.go), decide and record (record.go).
type attempter struct {
	*env
	store       BeginStore
	pause       *pauseSwitch
	targets     *targets
	tenants     *tenantCache
	payloads    *payloads
	senders     *senders
	gates       *gates
	waits       *waits
	breakers    *breakers
	refusals    *refusals
	prober      *prober
	doubts      *doubts
	finisher    *finisher
	dispatch    *dispatcher
	turns       turns
	hints       *hints
	metrics     *metrics
	sendTimeout time.Duration
}

// route is what a delivery is sent with.
type route struct {
	tenant     *snapshot
	credential *tenants.Credential // nil for a webhook
	sender     *sender
	waits      map[flowKey]Wait // of what it passes
	look       bool             // it was let through, though a gate may be closed
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
	a.leaveTurn(it)
	a.renewSnapshot(it, &r)
	n, believed := a.assess(it, &r, &ans)
	t := a.decide(it, &r, &ans, believed)
	a.record(it, &r, &ans, n, t)
	if ans.Outcome == channels.Retry || ans.Outcome == channels.Throttled {
		return feedbackCongested
	}
	return feedbackOK
}

// renewSnapshot takes up what is known of the tenant since: the credential may have
// a newer version than the sender's.
func (a *attempter) renewSnapshot(it *inflight, r *route) {
	if r.credential == nil {
		return
	}
	newer, err := a.tenants.get(a.sending, it.Tenant)
	if err != nil {
		return
	}
	r.tenant = newer
	if rows, err := a.tenants.waits(a.sending, it.Tenant, newer, passageOf(it, r.credential)); err == nil {
		r.waits = rows
	}
}

// decide says what the attempt means.
func (a *attempter) decide(it *inflight, r *route, ans *answer, believed Assessment) Transition {
	d := it.progress()
	_, doubted := r.tenant.doubt(r.version())
	d.MorePairs = ans.Resubscribe && r.credential != nil && r.tenant.morePairs(&it.target, r.credential.ID)
	d.Undoubted = it.target.Device != devices.Suspect && !doubted
	return Next(d, ans.Result, PolicyOf(it.Channel, r.tenant.settings), believed, ans.at, a.jitter())
}
