package delivery

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
)

// MaxOpenJobs is how many unfinished jobs of a kind a tenant may have: jobs have
// their turns, whosever they are.
const MaxOpenJobs = 20

// JobStore stores jobs that people ask for.
type JobStore interface {
	// CreateJob stores a job with its audit, and the answer with the idempotency
	// key, in one transaction. When the key is taken, nothing is stored and the
	// stored answer comes back, or problem.IdempotencyMismatch. A tenant with
	// MaxOpenJobs unfinished ones of the kind is problem.Throttled.
	CreateJob(ctx context.Context, j jobs.Job, i *Idempotency, a Answer, expires time.Time) (stored *Answer, err error)
}

// jobOrders makes jobs that people ask for.
type jobOrders struct {
	*env
	store JobStore
	hints *hints
}

// jobOrder is what somebody asks for.
type jobOrder struct {
	tenant      ids.ID
	kind        jobs.Kind
	actor       string
	spec        any
	idempotency *Idempotency
	// count counts the items; exact is false where that took too long.
	count func(now time.Time) (n int, exact bool, err error)
	// render makes the answer that is stored with the idempotency key.
	render func(jobs.Job) (status int, body []byte, err error)
}

func (x *jobOrders) create(ctx context.Context, o jobOrder) (Answer, error) {
	if x.stopped.Load() {
		return Answer{}, errStopping()
	}
	spec, err := json.Marshal(o.spec)
	if err != nil {
		return Answer{}, fmt.Errorf("encode the spec of a job: %w", err)
	}
	id := x.ids.Next()
	now := x.now()
	j := jobs.Job{ID: id, Tenant: o.tenant, Kind: o.kind, State: jobs.Queued, Spec: spec, Actor: o.actor,
		CreatedAt: now, UpdatedAt: now, LeaseUntil: now}
	n, exact, err := o.count(now)
	if err != nil {
		return Answer{}, err
	}
	if exact {
		j.Total = n
	}
	a := Answer{}
	if a.Status, a.Body, err = o.render(j); err != nil {
		return Answer{}, fmt.Errorf("render the answer: %w", err)
	}
	stored, err := x.store.CreateJob(ctx, j, o.idempotency, a, now.Add(idempotencyAge))
	if err != nil {
		return Answer{}, err
	}
	if stored != nil {
		return *stored, nil
	}
	x.hints.wakeJobs()
	return a, nil
}
