package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Accepted is a notification ready to be stored.
type Accepted struct {
	ID         ids.ID
	Tenant     ids.ID
	Lane       Lane
	Type       string
	CreatedAt  time.Time
	SendAt     time.Time // zero: at once
	Sensitive  bool
	AtMostOnce bool
	Scheduled  bool   // targets are resolved when SendAt comes, or in parts
	Body       []byte // the request as JSON; the store seals it
	Rows       []Row
	Skips      []Skip
}

// ResolveStore finds who and what a request names.
type ResolveStore interface {
	// Resolve reads it as it is now, up to the limit.
	Resolve(ctx context.Context, tenant ids.ID, l Lookup) (Resolution, error)
	// OrderKey is the number that stands for a collapse key; never 0.
	OrderKey(tenant ids.ID, collapseKey string) (int64, error)
}

// plan is a request on its way to being stored.
type plan struct {
	accepted Accepted
	receipt  Receipt
	choices  []choice
	payloads map[channels.Kind]channels.Payload
	lane     Lane
	part     bool      // of a fan-out
	now      time.Time // when its targets are looked up
}

// planner turns requests into what is stored of them.
type planner struct {
	*env
	store          ResolveStore
	channels       map[channels.Kind]channels.Channel
	tenants        *tenantCache
	scheduleBeyond time.Duration // a send_at further ahead is resolved when it is due
}

// plan checks a request, finds its targets and prepares its payloads.
func (pl *planner) plan(ctx context.Context, tenant ids.ID, r *Request, id ids.ID, now time.Time) (plan, error) {
	if err := r.Check(now); err != nil {
		return plan{}, err
	}
	if err := r.checkActivity(pl.purposes(r)); err != nil {
		return plan{}, err
	}
	s, err := pl.tenants.get(ctx, tenant)
	if err != nil {
		return plan{}, err
	}
	if s.deleting {
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
	// What has a collapse key takes its place when it becomes due, and not before.
	if ahead := r.SendAt.Sub(now); ahead > pl.scheduleBeyond || ahead > 0 && r.CollapseKey != "" {
		p.accepted.Scheduled, p.receipt.Scheduled = true, true
		err := pl.prepare(&p, r, channels.Kinds()) // nothing is accepted that cannot be sent later
		return p, err
	}
	p.now = now
	whole, err := pl.resolve(ctx, &p, r, s)
	if err != nil {
		return plan{}, err
	}
	if !whole {
		p.accepted.Scheduled, p.receipt.FansOut = true, true
		err := pl.prepare(&p, r, channels.Kinds())
		return p, err
	}
	err = pl.prepare(&p, r, nil)
	return p, err
}

// resolve finds the targets and makes their rows, unless there are too many to be stored
// at once.
func (pl *planner) resolve(ctx context.Context, p *plan, r *Request, s *snapshot) (whole bool, err error) {
	f, err := pl.choose(ctx, p, r, Lookup{To: r.To, Subscribers: r.wantsSubscribers(), Limit: MaxLookup})
	if err == nil {
		err = f.refuse()
	}
	if err != nil || f.tooMany() {
		return false, err
	}
	return true, pl.rows(p, f, r, s)
}

// choose looks up what a request names, and chooses what it goes to.
func (pl *planner) choose(ctx context.Context, p *plan, r *Request, l Lookup) (*chooser, error) {
	res, err := pl.store.Resolve(ctx, p.accepted.Tenant, l)
	if err != nil {
		return nil, err
	}
	f := &chooser{req: r, look: l, res: res, part: p.part, now: p.now, purposes: pl.purposes(r)}
	f.run()
	return f, nil
}

// rows makes the rows of what was chosen.
func (pl *planner) rows(p *plan, f *chooser, r *Request, s *snapshot) (err error) {
	a, now := &p.accepted, p.now
	p.choices = f.choices
	a.Skips, p.receipt.Skips = f.skips, f.skips
	a.Rows = make([]Row, len(f.choices))
	p.receipt.Deliveries = make([]DeliveryRef, len(f.choices))
	start := latest(now, r.SendAt)
	from := start
	if a.Scheduled { // one that is resolved late has lost that time
		from = latest(a.ID.Time(), r.SendAt)
	}
	var order int64
	if r.CollapseKey != "" {
		if order, err = pl.store.OrderKey(a.Tenant, r.CollapseKey); err != nil {
			return fmt.Errorf("hash the collapse key: %w", err)
		}
	}
	for i, c := range f.choices {
		p.receipt.Deliveries[i] = c.ref
		row := Row{Tenant: a.Tenant, Notification: a.ID, Target: c.ref.Target, Channel: c.ref.Channel, Lane: a.Lane,
			State: Pending, UserID: c.userID, Epoch: c.target.Epoch, DueAt: start, Round: 1, UpdatedAt: now,
			ExpiresAt: from.Add(life(ttlOf(c.ref.Channel, r.TTL, s.settings)))}
		if c.ref.Channel != channels.Webhook { // a receiver gets all events
			row.OrderKey = order
		}
		if cred := s.credential(&c.target, lastAttempt{}); cred != nil {
			row.Credential = cred.ID
		}
		a.Rows[i] = row
	}
	return nil
}

// purposes says by channel which addresses a request is for; all, where there is
// no entry.
func (pl *planner) purposes(r *Request) map[channels.Kind]channels.Purpose {
	out := map[channels.Kind]channels.Purpose{}
	for k, c := range pl.channels {
		if p, ok := c.(channels.Purposeful); ok {
			out[k] = p.PurposeOf(channels.Message{Override: r.Overrides[k]})
		}
	}
	return out
}

// prepare makes the payload of every channel that has a target, and checks the
// overrides of those that have none, so that a mistake does not wait for a user
// who has such a device.
func (pl *planner) prepare(p *plan, r *Request, also []channels.Kind) error {
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
		if !need[k] || pl.channels[k] == nil {
			continue
		}
		payload, err := pl.channels[k].Prepare(r.message(ntf, p.accepted.CreatedAt, k))
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
