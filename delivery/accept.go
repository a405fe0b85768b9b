package delivery

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// idempotencyAge is how long a key keeps its answer.
const idempotencyAge = 24 * time.Hour

// plan is a request on its way to being stored.
type plan struct {
	accepted Accepted
	receipt  Receipt
	choices  []choice
	payloads map[channels.Kind]channels.Payload
	lane     Lane
}

// Accept stores what was asked for and answers after the commit: from then on
// every delivery ends sent, dropped with a reason, or dead. In a batch each
// member is accepted or refused by itself, and those accepted commit as one.
func (e *Engine) Accept(ctx context.Context, s Submission) (Answer, error) {
	e.accepting.RLock() // Stop waits for what is under way
	defer e.accepting.RUnlock()
	if e.stopping.Load() {
		return Answer{}, problem.New(problem.Unavailable, "The server is stopping.")
	}
	now := e.o.Now()
	plans := make([]plan, len(s.Requests))
	receipts := make([]Receipt, len(s.Requests))
	rows, refused := 0, 0
	for i := range s.Requests {
		var err error
		if s.Refused != nil && s.Refused[i] != nil {
			err = s.Refused[i]
		} else {
			plans[i], err = e.plan(ctx, s.Tenant, &s.Requests[i], e.o.IDs.Next(), now)
		}
		if err == nil && s.Requests[i].Urgent {
			err = e.takeUrgent(s.Tenant, now)
		}
		if err != nil {
			if problem.CodeOf(err) == problem.Internal {
				return Answer{}, err
			}
			plans[i], receipts[i] = plan{}, Receipt{Err: err}
			refused++
			continue
		}
		receipts[i] = plans[i].receipt
		rows += len(plans[i].accepted.Rows)
	}
	if s.Refused == nil && len(s.Requests) == 1 && refused == 1 {
		return Answer{}, receipts[0].Err
	}
	if int(e.backlog.Load())+rows > e.o.MaxBacklog {
		return Answer{}, &problem.Error{Code: problem.Unavailable, RetryAfter: 10 * time.Second,
			Detail: "Too many deliveries wait already; try again later."}
	}
	status, body, err := s.Render(receipts)
	if err != nil {
		return Answer{}, fmt.Errorf("render the answer: %w", err)
	}
	answer := Answer{Status: status, Body: body}
	if refused == len(s.Requests) {
		return answer, nil // nothing to store, so nothing to keep the key for either
	}
	return e.commit(ctx, s, plans, answer, now)
}

// commit stores the plans and hands their deliveries to the dispatcher, born
// leased, as far as its lanes have room.
func (e *Engine) commit(ctx context.Context, s Submission, plans []plan, answer Answer, now time.Time) (Answer, error) {
	b := Batch{Tenant: s.Tenant, Idempotency: s.Idempotency, Answer: answer, ExpiresAt: now.Add(idempotencyAge)}
	claim := int64(e.o.IDs.Next())
	lease := now.Add(e.o.Lease)
	promised := [LanesCount]int{}
	rows := 0
	for i := range plans {
		p := &plans[i]
		if p.accepted.ID == 0 {
			continue
		}
		n := len(p.accepted.Rows)
		if n > 0 && e.sends() && !e.Sending().On() && !p.accepted.SendAt.After(now) && e.dispatch.promise(p.lane, n) {
			promised[p.lane] += n
			for k := range p.accepted.Rows {
				r := &p.accepted.Rows[k]
				r.State, r.Claim, r.DueAt = Sending, claim, lease
			}
		}
		rows += n
		b.Accepted = append(b.Accepted, p.accepted)
	}
	failpoint.Hit("accept.begin")
	stored, err := e.o.Store.Accept(ctx, b)
	if err != nil || stored != nil {
		for l, n := range promised {
			e.dispatch.unpromise(Lane(l), n)
		}
		if err != nil {
			return Answer{}, err
		}
		return *stored, nil
	}
	failpoint.Hit("accept.committed")
	e.backlog.Add(int64(rows))
	for i := range plans {
		e.launch(&plans[i], lease)
	}
	failpoint.Hit("accept.queued")
	return answer, nil
}

// launch queues what was born leased; the rest is found by the claim.
func (e *Engine) launch(p *plan, lease time.Time) {
	rows := p.accepted.Rows
	if len(rows) == 0 {
		return
	}
	if rows[0].State != Sending {
		if e.wakeAt(rows[0].DueAt) {
			e.o.Store.Hint(Hint{Kind: HintDue}) // another node may have room
		}
		return
	}
	items := make([]*item, len(rows))
	for i := range rows {
		items[i] = newItem(rows[i], p.accepted.AtMostOnce, p.choices[i].now, lease)
		items[i].payload = p.payloads[rows[i].Channel]
	}
	e.enqueue(p.lane, items)
}

// enqueue hands leased items to the dispatcher; their room was promised.
func (e *Engine) enqueue(l Lane, items []*item) {
	keys := make([]flowKey, len(items))
	e.finishes.Add(len(items))
	e.hand.Lock()
	for i, it := range items {
		e.inHand[it] = struct{}{}
		keys[i] = keyOf(it)
	}
	e.hand.Unlock()
	for _, it := range e.dispatch.push(l, items, keys) {
		e.crowdedOut(it)
	}
}

// plan checks a request, finds its targets and prepares its payloads.
func (e *Engine) plan(ctx context.Context, tenant ids.ID, r *Request, id ids.ID, now time.Time) (plan, error) {
	if err := r.Check(now); err != nil {
		return plan{}, err
	}
	pic, err := e.directory.of(ctx, tenant)
	if err != nil {
		return plan{}, err
	}
	if pic.deleting {
		return plan{}, errDeleting()
	}
	p := plan{lane: Regular, receipt: Receipt{Notification: id}}
	if r.Urgent {
		p.lane = Urgent
	}
	p.accepted = Accepted{ID: id, Tenant: tenant, Lane: p.lane, Type: r.Type, CreatedAt: id.Time(), SendAt: r.SendAt,
		Sensitive: r.Sensitive, AtMostOnce: r.OnAmbiguous == OnAmbiguousStop}
	if p.accepted.Body, err = json.Marshal(r); err != nil {
		return plan{}, fmt.Errorf("encode the content: %w", err)
	}
	if r.SendAt.Sub(now) > e.o.MarkerAfter {
		p.accepted.Scheduled, p.receipt.Scheduled = true, true
		err := e.prepare(&p, r, channels.Kinds()) // nothing is accepted that cannot be sent later
		return p, err
	}
	if err := e.resolve(ctx, &p, r, pic, now); err != nil {
		return plan{}, err
	}
	err = e.prepare(&p, r, nil)
	return p, err
}

// resolve finds the targets and makes their rows.
func (e *Engine) resolve(ctx context.Context, p *plan, r *Request, pic *picture, now time.Time) error {
	a := &p.accepted
	res, err := e.o.Store.Resolve(ctx, a.Tenant, r.To, r.wantsSubscribers())
	if err != nil {
		return err
	}
	f := fanout{req: r, res: res, now: now}
	if err := f.run(); err != nil {
		return err
	}
	p.choices = f.choices
	a.Skips, p.receipt.Skips = f.skips, f.skips
	a.Rows = make([]Row, len(f.choices))
	p.receipt.Deliveries = make([]DeliveryRef, len(f.choices))
	start := latest(now, r.SendAt)
	from := start
	if a.Scheduled { // a marker that is unfolded late has lost that time
		from = r.SendAt
	}
	for i, c := range f.choices {
		p.receipt.Deliveries[i] = c.ref
		row := Row{Tenant: a.Tenant, Notification: a.ID, Target: c.ref.Target, Channel: c.ref.Channel, Lane: a.Lane,
			State: Pending, UserID: c.userID, Epoch: c.now.Epoch, DueAt: start, Round: 1, UpdatedAt: now,
			ExpiresAt: from.Add(life(ttlOf(c.ref.Channel, r.TTL, pic.settings)))}
		if cred := pic.credential(&c.now); cred != nil {
			row.Credential = cred.ID
		}
		a.Rows[i] = row
	}
	return nil
}

// life is the time that a delivery has. "Now or never" (0) still needs a moment
// to leave; less than a second is told to the provider as 0.
func life(ttl time.Duration) time.Duration { return max(ttl, time.Second-time.Millisecond) }

// prepare makes the payload of every channel that has a target, and checks the
// overrides of those that have none, so that a mistake does not wait for a user
// who has such a device.
func (e *Engine) prepare(p *plan, r *Request, also []channels.Kind) error {
	need := map[channels.Kind]bool{}
	for _, c := range p.choices {
		need[c.ref.Channel] = true
	}
	for k := range r.Overrides {
		need[k] = true
	}
	for _, k := range also {
		if r.wants(k) {
			need[k] = true
		}
	}
	p.payloads = make(map[channels.Kind]channels.Payload, len(need))
	ntf := p.accepted.ID.Format(ids.Notification)
	var faults problem.Fields
	for _, k := range channels.Kinds() {
		if !need[k] || e.o.Channels[k] == nil {
			continue
		}
		payload, err := e.o.Channels[k].Prepare(r.message(ntf, p.accepted.CreatedAt, k))
		var known *problem.Error
		switch {
		case errors.As(err, &known) && len(known.Fields) > 0 && known.Code == problem.Invalid:
			faults.Merge("", err)
			continue
		case err != nil:
			return err
		}
		p.payloads[k] = payload
	}
	return faults.Err()
}

// DryRun shows what Accept would do, and does nothing.
func (e *Engine) DryRun(ctx context.Context, tenant ids.ID, r Request) (Preview, error) {
	now := e.o.Now()
	pic, err := e.directory.of(ctx, tenant)
	if err != nil {
		return Preview{}, err
	}
	p, err := e.plan(ctx, tenant, &r, e.o.IDs.Next(), now)
	if err != nil {
		return Preview{}, err
	}
	if p.accepted.Scheduled { // show who it would reach as things are now
		if err := e.resolve(ctx, &p, &r, pic, now); err != nil {
			return Preview{}, err
		}
	}
	v := Preview{Deliveries: p.receipt.Deliveries, Skips: p.receipt.Skips}
	reached := map[channels.Kind]ids.ID{}
	for _, d := range v.Deliveries {
		reached[d.Channel] = cmp.Or(reached[d.Channel], d.Target)
	}
	for _, k := range channels.Kinds() {
		if target, payload := reached[k], p.payloads[k]; target != 0 && payload != nil {
			v.Payloads = append(v.Payloads, PayloadPreview{Channel: k, Size: payload.Size(),
				Payload: payload.Preview(ids.FormatDelivery(p.accepted.ID, target))})
		}
	}
	return v, nil
}
