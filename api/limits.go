package api

import (
	"cmp"
	"math"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Limits of what is taken. Those of a tenant hold over all nodes once the engine
// shares Server.Requests between them; InFlight is of this server.
type Limits struct {
	PerSecond float64 // requests of one tenant; 0: no limit
	Burst     int     // requests of one tenant at once; 0: two seconds' worth
	InFlight  int64   // requests below /v1 at a time; 0: 1,024
}

const defaultInFlight = 1024

// limiter spends what a tenant may ask for and counts requests in flight.
type limiter struct {
	requests *delivery.Budget // nil: no limit
	policy   string           // RateLimit-Policy
	now      func() time.Time

	mu sync.Mutex

	busy        map[ids.ID]int64 // requests in flight by tenant
	inFlight    atomic.Int64
	maxInFlight int64
}

func newLimiter(o Limits, now func() time.Time) *limiter {
	l := &limiter{now: now, busy: map[ids.ID]int64{}, maxInFlight: o.InFlight}
	if l.maxInFlight <= 0 {
		l.maxInFlight = defaultInFlight
	}
	if o.PerSecond > 0 {
		burst := o.Burst
		if burst <= 0 {
			burst = int(math.Ceil(2 * o.PerSecond))
		}
		l.requests = delivery.NewBudget(delivery.RequestBudget, o.PerSecond, burst)
		l.policy = `"requests";q=` + strconv.Itoa(burst) + `;w=` + wholeSeconds(float64(burst)/o.PerSecond)
	}
	return l
}

// enter tells whether there is room for one more request; leave follows it.
func (l *limiter) enter() bool {
	if l.inFlight.Add(1) > l.maxInFlight {
		l.inFlight.Add(-1)
		return false
	}
	return true
}

func (l *limiter) leave() { l.inFlight.Add(-1) }

// occupy takes one of the places that a tenant may have, so that one tenant, or a
// user of it who sends slowly, does not take them all; vacate follows it.
func (l *limiter) occupy(who ids.ID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[who] >= max(l.maxInFlight/4, 1) {
		return false
	}
	l.busy[who]++
	return true
}

func (l *limiter) vacate(who ids.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[who]--; l.busy[who] <= 0 {
		delete(l.busy, who)
	}
}

// take spends a request of the tenant, or of the operator's key on routes without
// a tenant, and says in the answer's headers what is left
// (draft-ietf-httpapi-ratelimit-headers).
func (l *limiter) take(c *call, header http.Header) error {
	if l.requests == nil {
		return nil
	}
	t := l.requests.Take(cmp.Or(c.tenant, c.key), l.now())
	header["Ratelimit-Policy"] = []string{l.policy}
	header["Ratelimit"] = []string{`"requests";r=` + strconv.Itoa(t.Left) + `;t=` + wholeSeconds(t.Full.Seconds())}
	if t.OK {
		return nil
	}
	return &problem.Error{Code: problem.Throttled, Detail: "The tenant makes more requests than this server allows it.", RetryAfter: max(t.Wait, time.Second)}
}

func wholeSeconds(s float64) string { return strconv.FormatInt(int64(math.Ceil(s)), 10) }
