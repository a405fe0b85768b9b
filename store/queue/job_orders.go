package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// jobOrders stores jobs with the idempotency keys of those who ask for them.
type jobOrders struct{ db *db.DB }

// CreateJob implements delivery.JobStore.
func (s *jobOrders) CreateJob(ctx context.Context, j jobs.Job, i *delivery.Idempotency, a delivery.Answer, expires time.Time) (*delivery.Answer, error) {
	var stored *delivery.Answer
	now := s.db.Now()
	err := s.db.Change(ctx, func(t *db.Tx) (err error) {
		stored = nil
		if i != nil {
			b := delivery.Batch{Tenant: j.Tenant, Idempotency: i, Answer: a, ExpiresAt: expires}
			if stored, err = reserve(t, b, now); stored != nil || err != nil {
				return err
			}
		}
		open := 0
		if _, err := t.One("SELECT count(*) FROM jobs WHERE tenant_id=? AND kind=? AND state<3", []any{j.Tenant, j.Kind}, &open); err != nil {
			return err
		}
		if open >= delivery.MaxOpenJobs {
			return &problem.Error{Code: problem.Throttled, RetryAfter: time.Minute,
				Detail: fmt.Sprintf("There are %d unfinished jobs of the kind %s already; wait until one has ended, or cancel one.", open, j.Kind)}
		}
		return registers.CreateJob(t, j, j.ID.Format(ids.Job))
	})
	if err == nil && stored != nil && stored.Status == mismatch {
		return nil, errMismatch()
	}
	return stored, err
}
