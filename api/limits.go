package api

import (
	"cmp"
	"fmt"
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
	InFlight  int     // requests below /v1 at a time; 0: 1,024
	Bytes     int64   // of the bodies of these; 0: 1 GiB
}

const (
	defaultInFlight = 1024
	defaultBytes    = 1 << 30
)

// limiter spends what a tenant may ask for and counts requests in flight.
type limiter struct {
	requests *delivery.Budget // nil: no limit
	policy   string           // RateLimit-Policy
	now      func() time.Time

	mu   sync.Mutex
	busy map[place]use // requests in hand

	reads   readTurns
	exports exportTurns

	inFlight    atomic.Int64
	maxInFlight int64
	bytes       atomic.Int64 // of their bodies
	maxBytes    int64
}

func newLimiter(o Limits, now func() time.Time) *limiter {
	l := &limiter{now: now, busy: map[place]use{}, reads: readTurns{places: map[place]*readPlace{}}, exports: exportTurns{under: map[ids.ID]int{}}, maxInFlight: int64(o.InFlight), maxBytes: o.Bytes}
	if l.maxBytes <= 0 {
		l.maxBytes = defaultBytes
	}
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

// perUser is how many requests with tokens of one user may be in hand.
const perUser = 4

// place is whose requests in hand are counted together: those with keys of a tenant
// (or of an operator's key on routes without a tenant), those with tokens of its
// users, and those of one user.
type place struct {
	who   ids.ID
	users bool
	user  string // "": of all users
}

// use is what a place has: requests, and bytes of their bodies.
type use struct{ n, bytes int64 }

// inHand is how much may be in hand in a place.
type inHand struct {
	place
	most use
	whom string
}

// limitsOf are those that a request has to meet.
func (l *limiter) limitsOf(c *call) []inHand {
	keys := use{max(l.maxInFlight/4, 1), l.maxBytes / 4}
	if c.user == "" {
		return []inHand{{place{who: cmp.Or(c.tenant, c.key)}, keys, "The keys of this tenant have"}}
	}
	return []inHand{{place{who: c.tenant, users: true}, use{max(keys.n/4, 1), keys.bytes / 4}, "The users of this tenant have"},
		{place{who: c.tenant, users: true, user: c.user}, use{perUser, perUser * maxUserBody}, "This user has"}}
}

// occupy takes the places that a request needs, and room for its body, so that one
// tenant does not take them all, nor its users, who may send slowly, those of its keys.
// vacate follows it. The error says which limit is in the way. Who has nothing in hand
// is served, however large the body is that the server takes.
func (l *limiter) occupy(c *call, body int64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	limits := l.limitsOf(c)
	for _, x := range limits {
		switch has := l.busy[x.place]; {
		case has.n >= x.most.n:
			return &problem.Error{Code: problem.Throttled, RetryAfter: time.Second,
				Detail: fmt.Sprintf("%s as many requests in hand as this server allows, which is %d.", x.whom, x.most.n)}
		case has.bytes > 0 && has.bytes+body > x.most.bytes:
			return &problem.Error{Code: problem.Throttled, RetryAfter: time.Second,
				Detail: fmt.Sprintf("%s requests in hand with as many bytes as this server allows, which is %d.", x.whom, x.most.bytes)}
		}
	}
	if l.bytes.Load()+body > l.maxBytes+l.maxBytes/4 { // what newcomers find is a quarter more
		return &problem.Error{Code: problem.Unavailable, RetryAfter: time.Second, Detail: "The server has too many bytes of requests in hand."}
	}
	c.held = body
	l.bytes.Add(body)
	for _, x := range limits {
		l.busy[x.place] = use{l.busy[x.place].n + 1, l.busy[x.place].bytes + body}
	}
	return nil
}

func (l *limiter) vacate(c *call) {
	l.bytes.Add(-c.held)
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.limitsOf(c) {
		has := use{l.busy[x.place].n - 1, l.busy[x.place].bytes - c.held}
		if l.busy[x.place] = has; has.n <= 0 {
			delete(l.busy, x.place)
		}
	}
}

// What a tenant has a part of, at the edge.
const (
	limitInHand     = "requests_in_hand"
	limitUserInHand = "user_requests_in_hand"
	limitRequests   = "requests_per_second"
	limitBytes      = "request_bytes_in_hand"
)

// usage tells what a tenant has of these limits.
func (l *limiter) usage(tenant ids.ID) []delivery.Usage {
	l.mu.Lock()
	keys, users := l.limitsOf(&call{tenant: tenant})[0], l.limitsOf(&call{tenant: tenant, user: "any"})[0]
	list := []delivery.Usage{{Limit: limitInHand, Used: int(l.busy[keys.place].n), Most: int(keys.most.n)},
		{Limit: limitUserInHand, Used: int(l.busy[users.place].n), Most: int(users.most.n)},
		{Limit: limitBytes, Used: int(l.busy[keys.place].bytes), Most: int(keys.most.bytes)}}
	l.mu.Unlock()
	if l.requests != nil {
		list = append(list, l.requests.Usage(limitRequests, tenant, l.now()))
	}
	return list
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
