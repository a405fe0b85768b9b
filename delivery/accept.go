package delivery

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// idempotencyAge is how long a key keeps its answer.
const idempotencyAge = 24 * time.Hour

// Batch is what one submission commits: all of it or nothing.
type Batch struct {
	Tenant      ids.ID
	Accepted    []Accepted
	Idempotency *Idempotency
	Answer      Answer // stored with the idempotency key
	ExpiresAt   time.Time
}

// AcceptStore stores what is accepted.
type AcceptStore interface {
	// Accept commits a batch, together with whatever else waits to be written.
	// When the idempotency key is taken already, nothing is stored and the
	// stored answer comes back, or problem.IdempotencyMismatch.
	Accept(ctx context.Context, b Batch) (stored *Answer, err error)
}

// acceptor stores what is asked for, and hands it on at once as far as there is
// room.
type acceptor struct {
	*env
	store    AcceptStore
	planner  *planner
	urgents  *Budget
	backlog  *backlog
	pause    *pauseSwitch
	payloads *payloads
	dispatch *dispatcher
	intake   *intake
	hints    *hints
	lease    time.Duration
	sends    bool // this node sends what it accepts

	underWay sync.RWMutex // held, shared, by every accept
}

// accept is Engine.Accept.
func (a *acceptor) accept(ctx context.Context, s Submission) (Answer, error) {
	a.underWay.RLock()
	defer a.underWay.RUnlock()
	if a.stopped.Load() {
		return Answer{}, errStopping()
	}
	if err := a.backlog.admit(s.Tenant); err != nil {
		return Answer{}, err
	}
	now := a.now()
	plans := make([]plan, len(s.Requests))
	receipts := make([]Receipt, len(s.Requests))
	refused := 0
	for i := range s.Requests {
		var err error
		if s.Refused != nil && s.Refused[i] != nil {
			err = s.Refused[i]
		} else {
			plans[i], err = a.planner.plan(ctx, s.Tenant, &s.Requests[i], a.ids.Next(), now)
		}
		if err == nil && s.Requests[i].Urgent {
			err = a.takeUrgent(s.Tenant, now)
		}
		if err != nil {
			if code := problem.CodeOf(err); code == problem.Internal || code == problem.Unavailable { // not this request's fault
				return Answer{}, err
			}
			plans[i], receipts[i] = plan{}, Receipt{Err: err}
			refused++
			continue
		}
		receipts[i] = plans[i].receipt
	}
	if s.Refused == nil && len(s.Requests) == 1 && refused == 1 {
		return Answer{}, receipts[0].Err
	}
	status, body, err := s.Render(receipts)
	if err != nil {
		return Answer{}, fmt.Errorf("render the answer: %w", err)
	}
	answer := Answer{Status: status, Body: body}
	if refused == len(s.Requests) {
		return answer, nil // nothing to store, so nothing to keep the key for either
	}
	return a.commit(ctx, s, plans, answer, now)
}

// commit stores the plans and hands their deliveries to the dispatcher, born
// leased, as far as its lanes have room.
func (a *acceptor) commit(ctx context.Context, s Submission, plans []plan, answer Answer, now time.Time) (Answer, error) {
	b := Batch{Tenant: s.Tenant, Idempotency: s.Idempotency, Answer: answer, ExpiresAt: now.Add(idempotencyAge)}
	claim := int64(a.ids.Next())
	lease := now.Add(a.lease)
	promised := [LanesCount]int{}
	var more Unfinished
	for i := range plans {
		p := &plans[i]
		if p.accepted.ID == 0 {
			continue
		}
		n := len(p.accepted.Rows)
		more.Stored += n
		switch {
		case p.accepted.Scheduled:
			more.Stored++
		case n > 0 && a.sends && !a.pause.current().On() && !p.accepted.SendAt.After(now) && a.dispatch.promise(p.lane, s.Tenant, n):
			promised[p.lane] += n
			for k := range p.accepted.Rows {
				r := &p.accepted.Rows[k]
				r.State, r.Claim, r.DueAt = Sending, claim, lease
			}
		case !p.accepted.SendAt.After(now):
			more.Due += n
		}
		b.Accepted = append(b.Accepted, p.accepted)
	}
	unpromise := func() {
		for l, n := range promised {
			a.dispatch.unpromise(Lane(l), s.Tenant, n)
		}
	}
	if err := a.backlog.take(s.Tenant, more); err != nil {
		unpromise()
		return Answer{}, err
	}
	failpoint.Hit("accept.begin")
	stored, err := a.store.Accept(ctx, b)
	if err != nil || stored != nil {
		unpromise()
		a.backlog.giveBack(s.Tenant, more)
		if err != nil {
			return Answer{}, err
		}
		return *stored, nil
	}
	failpoint.Hit("accept.committed")
	for i := range plans {
		a.launch(&plans[i], lease)
	}
	failpoint.Hit("accept.queued")
	return answer, nil
}

// launch queues what was born leased; the rest is found by the claim.
func (a *acceptor) launch(p *plan, lease time.Time) {
	rows := p.accepted.Rows
	if len(rows) == 0 {
		if p.receipt.FansOut {
			a.hints.due()
		}
		return
	}
	if rows[0].State != Sending {
		a.hints.pendingDue(rows[0].DueAt)
		return
	}
	items := make([]*inflight, len(rows))
	for kind, payload := range p.payloads {
		p.payloads[kind] = a.payloads.hold(p.accepted.ID, kind, payload)
	}
	for i := range rows {
		items[i] = newInflight(rows[i], p.accepted.AtMostOnce, p.choices[i].target, lease)
		items[i].payload = p.payloads[rows[i].Channel]
	}
	a.intake.enqueue(p.lane, items, true)
}

// takeUrgent spends one of the urgent notifications that a tenant may send: a lane
// that everybody uses for everything is no faster than the others. Two seconds'
// worth may be sent at once.
func (a *acceptor) takeUrgent(tenant ids.ID, now time.Time) error {
	t := a.urgents.Take(tenant, now)
	if t.OK {
		return nil
	}
	return &problem.Error{Code: problem.Throttled, RetryAfter: max(t.Wait, time.Second),
		Detail: "This tenant sends too many urgent notifications; leave out urgent where it does not matter, or slow down."}
}

// drain waits for what is under way once the engine is stopped: from then on
// nothing more is accepted.
func (a *acceptor) drain() {
	a.underWay.Lock()
	a.underWay.Unlock() //nolint:staticcheck,gocritic // empty on purpose: it is a barrier
}

// errStopping refuses what comes while the engine stops.
func errStopping() error { return problem.New(problem.Unavailable, "The server is stopping.") }
