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
}

const defaultInFlight = 1024

// limiter spends what a tenant may ask for and counts requests in flight.
type limiter struct {
	requests *delivery.Budget // nil: no limit
	policy   string           // RateLimit-Policy
	now      func() time.Time

	mu   sync.Mutex
	busy map[place]int64 // requests in hand

	reads readTurns

	inFlight    atomic.Int64
	maxInFlight int64
}

func newLimiter(o Limits, now func() time.Time) *limiter {
	l := &limiter{now: now, busy: map[place]int64{}, reads: readTurns{places: map[place]*readPlace{}}, maxInFlight: int64(o.InFlight)}
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

// inHand is how many requests may be in hand in a place.
type inHand struct {
	place
	most int64
	whom string
}

// limitsOf are those that a request has to meet.
func (l *limiter) limitsOf(c *call) []inHand {
	keys := max(l.maxInFlight/4, 1)
	if c.user == "" {
		return []inHand{{place{who: cmp.Or(c.tenant, c.key)}, keys, "The keys of this tenant have"}}
	}
	return []inHand{{place{who: c.tenant, users: true}, max(keys/4, 1), "The users of this tenant have"},
		{place{who: c.tenant, users: true, user: c.user}, perUser, "This user has"}}
}

// occupy takes the places that a request needs, so that one tenant does not take
// them all, nor its users, who may send slowly, those of its keys. vacate follows
// it. The error says which limit is in the way.
func (l *limiter) occupy(c *call) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	limits := l.limitsOf(c)
	for _, x := range limits {
		if l.busy[x.place] >= x.most {
			return &problem.Error{Code: problem.Throttled, RetryAfter: time.Second,
				Detail: fmt.Sprintf("%s as many requests in hand as this server allows, which is %d.", x.whom, x.most)}
		}
	}
	for _, x := range limits {
		l.busy[x.place]++
	}
	return nil
}

func (l *limiter) vacate(c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, x := range l.limitsOf(c) {
		if l.busy[x.place]--; l.busy[x.place] <= 0 {
			delete(l.busy, x.place)
		}
	}
}

// What a tenant has a part of, at the edge.
const (
	limitInHand     = "requests_in_hand"
	limitUserInHand = "user_requests_in_hand"
	limitRequests   = "requests_per_second"
)

// usage tells what a tenant has of these limits.
func (l *limiter) usage(tenant ids.ID) []delivery.Usage {
	l.mu.Lock()
	keys, users := l.limitsOf(&call{tenant: tenant})[0], l.limitsOf(&call{tenant: tenant, user: "any"})[0]
	list := []delivery.Usage{{Limit: limitInHand, Used: int(l.busy[keys.place]), Most: int(keys.most)},
		{Limit: limitUserInHand, Used: int(l.busy[users.place]), Most: int(users.most)}}
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
