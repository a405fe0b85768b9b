package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
)

// Limits of a replay of many dead letters.
const (
	DefaultReplayRate = 100  // letters in a second
	MaxReplayRate     = 1000 // letters in a second
	deadWindow        = 5000 // letters that are looked at together, whether the filter wants them or not
	countTime         = 2 * time.Second
)

// ReplayStore is what a replay of many dead letters needs.
type ReplayStore interface {
	WalkDead(ctx context.Context, tenant ids.ID, w DeadWalk) (DeadPage, error)
	// ReplayDead is a step of a job: it replays the letters that are still as they
	// were found, due at once, and moves the job as progress says.
	ReplayDead(ctx context.Context, j jobs.Job, letters []Replayed, progress func(ReplayCounts) jobs.Progress) (jobs.Progress, error)
}

// ReplayOrder asks for the replay of all dead letters of a tenant that a filter
// selects.
type ReplayOrder struct {
	Tenant      ids.ID
	Filter      DeadFilter
	PerSecond   int // 1 to MaxReplayRate
	Actor       string
	Idempotency *Idempotency
	// Render makes the answer that is stored with the idempotency key.
	Render func(jobs.Job) (status int, body []byte, err error)
}

// Check finds what is wrong with an order.
func (o *ReplayOrder) Check() error {
	var faults problem.Fields
	o.Filter.check(&faults)
	if o.PerSecond < 1 || o.PerSecond > MaxReplayRate {
		faults.Add("per_second", "must be 1 to %d", MaxReplayRate)
	}
	return faults.Err()
}

// replayer replays many dead letters, by a job.
type replayer struct {
	*env
	store    ReplayStore
	orders   *jobOrders
	contents ContentStore
	tenants  *tenantCache
	backlog  *backlog
	hints    *hints
}

// create makes the job that replays what has died until now.
func (x *replayer) create(ctx context.Context, o ReplayOrder) (Answer, error) {
	if err := o.Check(); err != nil {
		return Answer{}, err
	}
	return x.orders.create(ctx, jobOrder{tenant: o.Tenant, kind: jobs.ReplayDeadLetters, actor: o.Actor,
		spec: replaySpec{Filter: o.Filter, PerSecond: o.PerSecond}, idempotency: o.Idempotency, render: o.Render,
		count: func(now time.Time) (int, bool, error) { return x.countDead(ctx, o.Tenant, o.Filter, now) }})
}

// count counts what create would replay now. exact is false when counting took too
// long: there are at least so many.
func (x *replayer) count(ctx context.Context, o ReplayOrder) (n int, exact bool, err error) {
	if err := o.Check(); err != nil {
		return 0, false, err
	}
	return x.countDead(ctx, o.Tenant, o.Filter, x.now())
}

func (x *replayer) countDead(ctx context.Context, tenant ids.ID, f DeadFilter, now time.Time) (n int, exact bool, err error) {
	walk := DeadWalk{Filter: f, Before: now, Look: deadWindow, Want: deadWindow}
	for over := time.Now().Add(countTime); ; { // not the engine's clock: it bounds work
		page, err := x.store.WalkDead(ctx, tenant, walk)
		if err != nil {
			return 0, false, err
		}
		n += len(page.Letters)
		if page.End || time.Now().After(over) {
			return n, page.End, nil
		}
		walk.After = page.Next
	}
}
