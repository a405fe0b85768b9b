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

const scheduledLimit = 100 // scheduled notifications that are resolved in a round

// Scheduled is a notification whose targets are due to be resolved.
type Scheduled struct {
	Tenant, Notification ids.ID
	Lane                 Lane
	SendAt               time.Time
	AtMostOnce           bool
	Type                 string
}

// ScheduledStore keeps scheduled notifications.
type ScheduledStore interface {
	// DueScheduled leases up to limit of those that are due, oldest first: no other
	// node gets them for a while, nor does this one.
	DueScheduled(ctx context.Context, now time.Time, limit int) ([]Scheduled, error)
	// ResolveScheduled stores the deliveries of one and takes it off the schedule, in
	// one transaction; false when that is done already.
	ResolveScheduled(ctx context.Context, a Accepted) (bool, error)
}

// scheduler resolves the targets of scheduled notifications whose time has come.
type scheduler struct {
	*env
	store    ScheduledStore
	contents ContentStore
	tenants  *tenantCache
	planner  *planner
	backlog  *backlog
	hints    *hints
}

func (s *scheduler) resolveDue(ctx context.Context) {
	due, err := s.store.DueScheduled(ctx, s.now(), scheduledLimit)
	if err != nil {
		if ctx.Err() == nil {
			s.log.Error("look for scheduled notifications", "error", err)
		}
		return
	}
	for _, m := range due {
		// Each by its own time: what becomes due long before its commit could be passed
		// over by a claim that has been further already.
		if err := s.resolve(ctx, m, s.now()); err != nil {
			s.log.Error("resolve a scheduled notification", "tenant", s.who(m.Tenant), "notification", m.Notification.Format(ids.Notification), "error", err)
		}
	}
}

func (s *scheduler) resolve(ctx context.Context, m Scheduled, now time.Time) error {
	var r Request
	body, err := s.contents.Content(ctx, m.Tenant, m.Notification)
	if err == nil {
		err = json.Unmarshal(body, &r)
	}
	if err != nil && (len(body) > 0 || problem.CodeOf(err) == problem.NotFound) {
		// It can never be resolved, and must not keep the others waiting.
		_, gone := s.store.ResolveScheduled(ctx, Accepted{ID: m.Notification, Tenant: m.Tenant, Skips: []Skip{{Reason: SkipUnreadable}}})
		return errors.Join(err, gone)
	}
	if err != nil {
		return err
	}
	tenant, err := s.tenants.get(ctx, m.Tenant)
	if err != nil {
		return err
	}
	p := plan{lane: m.Lane, accepted: Accepted{ID: m.Notification, Tenant: m.Tenant, Lane: m.Lane, Type: m.Type,
		CreatedAt: now, SendAt: m.SendAt, Scheduled: true, AtMostOnce: m.AtMostOnce, Sensitive: r.Sensitive}}
	switch err := s.planner.resolve(ctx, &p, &r, tenant, now); {
	case problem.CodeOf(err) == problem.Invalid:
		// Who it names has grown past what one notification may reach.
		p.accepted.Rows, p.accepted.Skips = nil, []Skip{{Reason: SkipTooMany}}
	case err != nil:
		return err // it stays on the schedule, and is looked at again
	}
	p.accepted.Scheduled = false
	failpoint.Hit("unfold.begin")
	done, err := s.store.ResolveScheduled(ctx, p.accepted)
	if err == nil && done {
		failpoint.Hit("unfold.committed")
		s.backlog.add(m.Tenant, Unfinished{Due: len(p.accepted.Rows), Stored: len(p.accepted.Rows) - 1})
		s.hints.due()
	}
	return err
}
