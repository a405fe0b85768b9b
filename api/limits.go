package api

import (
	"math"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Limits of what one server takes. They are per server, not shared between nodes.
type Limits struct {
	PerSecond float64 // requests of one tenant; 0: no limit
	Burst     int     // requests of one tenant at once; 0: two seconds' worth
	InFlight  int64   // requests below /v1 at a time; 0: 1,024
}

const (
	defaultInFlight = 1024
	maxBuckets      = 10_000
)

// limiter holds a token bucket per tenant and counts requests in flight.
type limiter struct {
	perSecond rate.Limit
	burst     int
	policy    string // RateLimit-Policy
	now       func() time.Time

	mu      sync.Mutex
	buckets map[ids.ID]*rate.Limiter

	busy        map[ids.ID]int64 // requests in flight by tenant
	inFlight    atomic.Int64
	maxInFlight int64
}

func newLimiter(o Limits, now func() time.Time) *limiter {
	l := &limiter{perSecond: rate.Limit(o.PerSecond), burst: o.Burst, now: now,
		buckets: map[ids.ID]*rate.Limiter{}, busy: map[ids.ID]int64{}, maxInFlight: o.InFlight}
	if l.maxInFlight <= 0 {
		l.maxInFlight = defaultInFlight
	}
	if l.burst <= 0 {
		l.burst = int(math.Ceil(2 * o.PerSecond))
	}
	if l.perSecond > 0 {
		l.policy = `"requests";q=` + strconv.Itoa(l.burst) + `;w=` + wholeSeconds(float64(l.burst)/o.PerSecond)
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

// take spends a token of the tenant, or of the operator's key on routes without
// a tenant, and says in the answer's headers what is left
// (draft-ietf-httpapi-ratelimit-headers).
func (l *limiter) take(c *call, header http.Header) error {
	if l.perSecond <= 0 {
		return nil
	}
	who := c.tenant
	if who == 0 {
		who = c.key
	}
	now := l.now()
	bucket := l.bucket(who, now)
	ok := bucket.AllowN(now, 1)
	left := math.Max(bucket.TokensAt(now), 0)
	full := (float64(l.burst) - left) / float64(l.perSecond)
	header["Ratelimit-Policy"] = []string{l.policy}
	header["Ratelimit"] = []string{`"requests";r=` + strconv.Itoa(int(left)) + `;t=` + wholeSeconds(full)}
	if ok {
		return nil
	}
	wait := time.Duration((1 - left) / float64(l.perSecond) * float64(time.Second))
	return &problem.Error{Code: problem.Throttled, Detail: "The tenant makes more requests than this server allows it.", RetryAfter: max(wait, time.Second)}
}

func (l *limiter) bucket(who ids.ID, now time.Time) *rate.Limiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, ok := l.buckets[who]
	if !ok {
		if len(l.buckets) >= maxBuckets {
			l.makeRoom(now)
		}
		b = rate.NewLimiter(l.perSecond, l.burst)
		l.buckets[who] = b
	}
	return b
}

// makeRoom forgets buckets that are full again, which changes nothing for their
// tenants; if there is none, it forgets some other.
func (l *limiter) makeRoom(now time.Time) {
	for who, b := range l.buckets {
		if b.TokensAt(now) >= float64(l.burst) {
			delete(l.buckets, who)
		}
	}
	for who := range l.buckets {
		if len(l.buckets) < maxBuckets {
			return
		}
		delete(l.buckets, who)
	}
}

func wholeSeconds(s float64) string { return strconv.FormatInt(int64(math.Ceil(s)), 10) }
