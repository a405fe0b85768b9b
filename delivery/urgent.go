package delivery

import (
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// urgents bounds how many urgent notifications a tenant may send: a lane that
// everybody uses for everything is no faster than the others.
type urgents struct {
	perSecond int
	mu        sync.Mutex
	tenants   map[ids.ID]*rate.Limiter
}

const maxUrgentTenants = 10_000 // limiters kept; beyond it all start afresh

// take spends one; a tenant may send two seconds' worth at once.
func (u *urgents) take(tenant ids.ID, now time.Time) error {
	u.mu.Lock()
	l := u.tenants[tenant]
	if l == nil {
		if u.tenants == nil || len(u.tenants) >= maxUrgentTenants {
			u.tenants = map[ids.ID]*rate.Limiter{}
		}
		l = rate.NewLimiter(rate.Limit(u.perSecond), 2*u.perSecond)
		u.tenants[tenant] = l
	}
	u.mu.Unlock()
	if l.AllowN(now, 1) {
		return nil
	}
	return &problem.Error{Code: problem.Throttled, RetryAfter: time.Second,
		Detail: "This tenant sends too many urgent notifications; leave out urgent where it does not matter, or slow down."}
}
