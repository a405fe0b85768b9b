package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// scheduledLimit are the notifications that are resolved in a round. A tenant has its part
// of them, whatever else it has due.
const scheduledLimit = 20

// fanOutWait is how long a fan-out waits for room in its tenant's part of what is stored.
const fanOutWait = 5 * time.Second

// Scheduled is a notification whose targets are due to be resolved.
type Scheduled struct {
	Tenant, Notification ids.ID
	Lane                 Lane
	SendAt               time.Time
	AtMostOnce           bool
	Type                 string
	FanOut               FanOut // how far it has come
}

// ScheduledStore keeps notifications whose targets are to be resolved: those that are
// scheduled, and those that are fanned out.
type ScheduledStore interface {
	// DueScheduled leases up to limit of those that are due, of all tenants in turn and
	// the oldest of each first: no other node gets them for a while, nor does this one.
	DueScheduled(ctx context.Context, now time.Time, limit int) ([]Scheduled, error)
	// ResolveScheduled stores the deliveries of a part and how far it came, in one
	// transaction; false when somebody else has done that already.
	ResolveScheduled(ctx context.Context, p Part) (bool, error)
	// DelayScheduled leaves one alone until then.
	DelayScheduled(ctx context.Context, m Scheduled, until time.Time) error
}

// scheduler resolves the targets of notifications whose time has come. Looking up many
// takes long, so that it has a loop of its own.
type scheduler struct {
	*env
	store    ScheduledStore
	contents ContentStore
	tenants  *tenantCache
	planner  *planner
	backlog  *backlog
	hints    *hints
	poll     time.Duration
}

func (s *scheduler) run() {
	for {
		if s.resolveDue(s.running) {
			s.hints.schedule.raise()
		}
		if !s.wait(s.hints.schedule, s.poll) {
			return
		}
	}
}

// resolveDue reports whether there may be more at once.
func (s *scheduler) resolveDue(ctx context.Context) (more bool) {
	due, err := s.store.DueScheduled(ctx, s.now(), scheduledLimit)
	if err != nil {
		s.log.Error("look for scheduled notifications", "error", err)
		return false
	}
	for _, m := range due {
		if ctx.Err() != nil {
			return false
		}
		// Each by its own time: what becomes due long before its commit could be passed
		// over by a claim that has been further already.
		if err := s.resolve(ctx, m, s.now()); err != nil {
			s.log.Error("resolve a scheduled notification", "tenant", s.who(m.Tenant), "notification", m.Notification.Format(ids.Notification), "error", err)
		}
	}
	return len(due) > 0
}

func (s *scheduler) resolve(ctx context.Context, m Scheduled, now time.Time) error {
	var r Request
	body, err := s.contents.Content(ctx, m.Tenant, m.Notification)
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil && (len(body) > 0 || problem.CodeOf(err) == problem.NotFound) {
		// It can never be resolved, and must not keep the others waiting.
		_, gone := s.store.ResolveScheduled(ctx, Part{At: m.FanOut, Accepted: Accepted{ID: m.Notification, Tenant: m.Tenant, Skips: []Skip{{Reason: SkipUnreadable}}}})
		return errors.Join(err, gone)
	}
	if err != nil {
		return err
	}
	tenant, err := s.tenants.get(ctx, m.Tenant)
	if err != nil {
		return err
	}
	if m.FanOut.Stage != FanOutBegins && s.backlog.admit(m.Tenant) != nil {
		return s.store.DelayScheduled(ctx, m, now.Add(fanOutWait))
	}
	p := plan{lane: m.Lane, part: true, now: now, accepted: Accepted{ID: m.Notification, Tenant: m.Tenant, Lane: m.Lane, Type: m.Type,
		CreatedAt: now, SendAt: m.SendAt, Scheduled: true, AtMostOnce: m.AtMostOnce, Sensitive: r.Sensitive}}
	next, err := s.planner.part(ctx, &p, &r, tenant, m.FanOut)
	switch {
	case problem.CodeOf(err) == problem.Invalid:
		// Who it names has grown past what one that is urgent may reach.
		p.accepted.Rows, p.accepted.Skips = nil, []Skip{{Reason: SkipTooMany}}
	case err != nil:
		return err // it stays on the schedule, and is looked at again
	}
	p.accepted.Scheduled = false
	failpoint.Hit("unfold.begin")
	done, err := s.store.ResolveScheduled(ctx, Part{Accepted: p.accepted, At: m.FanOut, Next: next, IfNothing: r.ifNothing()})
	if err == nil && done {
		failpoint.Hit("unfold.committed")
		more := Unfinished{Due: len(p.accepted.Rows), Stored: len(p.accepted.Rows)}
		if next == nil {
			more.Stored--
		}
		s.backlog.add(m.Tenant, more)
		s.hints.due()
	}
	return err
}
