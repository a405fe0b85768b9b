package delivery

import (
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// takeUrgent spends one of the urgent notifications that a tenant may send: a lane
// that everybody uses for everything is no faster than the others. Two seconds'
// worth may be sent at once.
func (e *Engine) takeUrgent(tenant ids.ID, now time.Time) error {
	if e.urgents.Take(tenant, now).OK {
		return nil
	}
	return &problem.Error{Code: problem.Throttled, RetryAfter: time.Second,
		Detail: "This tenant sends too many urgent notifications; leave out urgent where it does not matter, or slow down."}
}
