package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// TestNobodyPaysForAnother runs whole engines with several tenants whose targets hang,
// are slow, refuse and lie at random, on a clock that the test moves. What a healthy
// tenant sends is sent while the clock stands still and no request of another ends:
// however long others take, they are not waited for. Nothing is dead that was never
// tried, and everything ends sent, or with a reason.
func TestNobodyPaysForAnother(t *testing.T) {
	t.Parallel()
	nodes, scripts := 1, []int{1, 3}
	if pgtest.Postgres() {
		nodes, scripts = 2, []int{1, 2}
	}
	for _, seed := range scripts {
		script := crowdedDay.Example(seed)
		t.Run(fmt.Sprint("script ", seed), func(t *testing.T) {
			t.Parallel()
			newCrowd(t, nodes, script).run()
		})
	}
}

// manner is how a target takes what is sent to it.
type manner int

const (
	isWell    manner = iota
	isHung           // a request ends when its time is over
	isSlow           // it is accepted a little before that
	isRefused        // it is not even taken
	isLying          // it says something else each time
)

// crowdStep is one of a script: others send, one's targets change, a healthy tenant
// sends, or time passes.
type crowdStep struct {
	kind   int
	who    int // which of the others
	posts  int
	manner manner
	of     int // which share of the targets: one of so many
	ttl    int64
	urgent bool
	wait   time.Duration
}

const (
	crowdSends = iota
	crowdChanges
	crowdHealthy
	crowdWaits
)

const (
	others      = 4
	endpointsOf = 30 // of each of the others, for one of three types each
	phonesOf    = 8
	answerTime  = 30 * time.Second // that a request has, on the test's clock
)

var (
	aCrowdStep = rapid.Custom(func(t *rapid.T) crowdStep {
		return crowdStep{
			kind:   rapid.SampledFrom([]int{crowdSends, crowdSends, crowdSends, crowdChanges, crowdHealthy, crowdHealthy, crowdWaits}).Draw(t, "kind"),
			who:    rapid.IntRange(0, others-1).Draw(t, "who"),
			posts:  rapid.IntRange(1, 4).Draw(t, "posts"),
			manner: rapid.SampledFrom([]manner{isWell, isHung, isHung, isHung, isSlow, isRefused, isLying}).Draw(t, "manner"),
			of:     rapid.SampledFrom([]int{1, 1, 1, 2, 3}).Draw(t, "of"),
			ttl:    rapid.SampledFrom([]int64{600, 7200, 86400, 86400}).Draw(t, "ttl"),
			urgent: rapid.IntRange(0, 5).Draw(t, "urgent") == 0,
			wait:   rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second, answerTime, time.Minute, 6 * time.Minute}).Draw(t, "wait"),
		}
	})
	crowdedDay = rapid.SliceOfN(aCrowdStep, 30, 30)
)

// crowd is what a script runs on, and what was seen of it.
type crowd struct {
	*kit
	clock     *handClock
	nodes     []*kit
	script    []crowdStep
	others    []ids.ID
	endpoints []webhooks.Endpoint
	healthy   ids.ID
	posted    []postedOf
	turn      int // of nodes

	mu      sync.Mutex
	manners map[string]manner // by address
	waiting map[*hungRequest]bool
	tried   map[string]int // how often a delivery was
	lies    int
	over    bool // nothing hangs any more
}

// postedOf is what was accepted of a tenant.
type postedOf struct {
	tenant  ids.ID
	receipt delivery.Receipt
}

// hungRequest ends when the clock has come to its time.
type hungRequest struct {
	until time.Time
	ended chan struct{}
}

func newCrowd(t *testing.T, nodes int, script []crowdStep) *crowd {
	t.Helper()
	x := &crowd{clock: newHandClock(), script: script, manners: map[string]manner{}, waiting: map[*hungRequest]bool{}, tried: map[string]int{}}
	x.kit = newKitAt(t, x.clock.now, func(o *delivery.Options) {
		// Requests end when the script says so, and nobody is taken for dead because
		// the clock leaps. They are few enough for one tenant to use up.
		o.Workers, o.LaneSize, o.SendTimeout, o.Lease = 64, 200, time.Hour, 1000*time.Hour
	})
	x.close()
	x.joins = nodes > 1
	x.open()
	t.Cleanup(func() { x.release(true) })
	x.nodes = []*kit{x.kit}
	for n := 1; n < nodes; n++ {
		b := &kit{t: t, clock: x.clock.now, ctx: x.ctx, ring: x.ring, url: x.url, tenant: x.tenant, joins: true,
			channels: x.channels, ids: ids.NewGenerator(n+1, time.Now), opts: x.opts}
		b.opts.IDs = b.ids
		b.open()
		t.Cleanup(b.close)
		t.Cleanup(func() { x.release(true) }) // or it would not close
		x.nodes = append(x.nodes, b)
	}
	for _, kind := range []channels.Kind{channels.FCM, channels.Webhook} {
		x.channels[kind].answer(x.answer)
	}
	x.healthy = x.join("healthy", 1, 2)
	for n := range others {
		x.others = append(x.others, x.join(fmt.Sprint("other-", n), endpointsOf, phonesOf))
	}
	return x
}

// join makes a tenant with endpoints and phones.
func (x *crowd) join(name string, endpoints, phones int) ids.ID {
	x.t.Helper()
	id := x.ids.Next()
	floor, jitter := int64(0), 0.0
	policy := tenants.RetryPolicy{Delays: []int64{1000, 60_000, 600_000}, Jitter: &jitter, Floor: &floor}
	require.NoError(x.t, x.store.CreateTenant(x.ctx, tenants.Tenant{ID: id, Name: name, CreatedAt: x.clock.now(), Settings: tenants.Settings{
		Retry: map[channels.Kind]tenants.RetryPolicy{channels.FCM: policy, channels.Webhook: policy},
	}}, tenants.Change{Actor: "test", Action: "tenant.create"}))
	k := x.at(x.kit, id)
	k.credential(channels.FCM, "")
	for n := range endpoints {
		x.endpoints = append(x.endpoints, k.endpoint(func(e *webhooks.Endpoint) {
			e.URL, e.EventTypes = fmt.Sprintf("https://%s.example.com/%d", name, n), []string{orderType(n)}
		}))
		x.manners[fmt.Sprintf("https://%s.example.com/%d", name, n)] = isWell
	}
	for n := range phones {
		k.device(fmt.Sprint("user-", n), fmt.Sprintf("%s-phone-%d", name, n), channels.FCM, nil)
		x.manners[fmt.Sprintf("%s-phone-%d", name, n)] = isWell
	}
	return id
}

func orderType(n int) string { return fmt.Sprint("order.", n%3) }

// at is a node as a tenant has it.
func (x *crowd) at(node *kit, tenant ids.ID) *kit {
	k := *node
	k.tenant = tenant
	return &k
}

// answer is every target's.
func (x *crowd) answer(ctx context.Context, _ channels.Credential, t channels.Target, l channels.Life) channels.Result {
	x.mu.Lock()
	x.tried[l.Delivery]++
	x.lies++
	m, n := x.manners[t.Address], x.lies
	var hung *hungRequest
	if wait := map[manner]time.Duration{isHung: answerTime, isSlow: answerTime - time.Second}[m]; wait > 0 && !x.over {
		hung = &hungRequest{until: x.clock.now().Add(wait), ended: make(chan struct{})}
		x.waiting[hung] = true
	}
	x.mu.Unlock()
	if hung != nil {
		select {
		case <-hung.ended:
		case <-ctx.Done():
		}
	}
	lies := []channels.Result{ // some of which no provider of phones would tell, nor a receiver
		{Outcome: channels.Throttled, Code: "throttled", Status: 429, Scope: channels.ScopeCredential, NotBefore: x.clock.now().Add(200 * time.Hour)},
		{Outcome: channels.Retry, Code: "busy", Status: 503, Scope: channels.ScopeCredential},
		{Outcome: channels.Retry, Code: "cut", Ambiguous: true},
		{Outcome: channels.Gone, Code: "gone", Status: 410, Doubtful: true},
		refusedBy(channels.ScopeCredential),
		accepted(),
	}
	switch m {
	case isHung:
		return channels.Result{Outcome: channels.Retry, Code: "timeout", Ambiguous: true}
	case isRefused:
		return channels.Result{Outcome: channels.Retry, Code: "refused", Unreached: true}
	case isLying:
		return lies[n%len(lies)]
	}
	return accepted()
}

// release ends the requests whose time has come; all, and those that come, if it is over.
func (x *crowd) release(over bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.over = x.over || over
	for h := range x.waiting {
		if x.over || !h.until.After(x.clock.now()) {
			close(h.ended)
			delete(x.waiting, h)
		}
	}
}

func (x *crowd) hanging() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.waiting)
}

func (x *crowd) run() {
	x.begin()
	for _, s := range x.script {
		node := x.next()
		switch s.kind {
		case crowdSends:
			x.sends(x.at(node, x.others[s.who]), s)
		case crowdChanges:
			x.changes(s)
		case crowdHealthy:
			x.isServed(node)
		case crowdWaits:
			x.clock.advance(s.wait)
			x.release(false)
		}
	}
	for _, node := range x.nodes {
		x.isServed(node)
	}
	x.end()
	x.resume()
	x.end()
	x.judge()
}

// begin has one tenant send more than the nodes have room for, and all of it hangs.
func (x *crowd) begin() {
	x.changes(crowdStep{manner: isHung, of: 1})
	for range x.nodes {
		x.sends(x.at(x.next(), x.others[0]), crowdStep{posts: 20, ttl: 7200})
	}
	// Where others have been seen before, a quarter stays free for them.
	eventually(x.t, "all nodes are used up", func() bool { return x.hanging() >= 45*len(x.nodes) })
	for _, node := range x.nodes {
		x.isServed(node)
	}
}

// next is the node whose turn it is.
func (x *crowd) next() *kit {
	x.turn++
	return x.nodes[x.turn%len(x.nodes)]
}

// sends posts what one of the others has; too much of it may be refused.
func (x *crowd) sends(k *kit, s crowdStep) {
	users := make([]string, phonesOf)
	for n := range users {
		users[n] = fmt.Sprint("user-", n)
	}
	for n := range s.posts {
		for _, r := range []delivery.Request{
			{Type: orderType(n), Title: "hello", TTL: &s.ttl, Urgent: s.urgent},
			{To: delivery.To{Users: users}, Title: "hello", TTL: &s.ttl, Urgent: s.urgent},
		} {
			var got delivery.Receipt
			_, err := k.engine.Accept(k.ctx, delivery.Submission{Tenant: k.tenant, Requests: []delivery.Request{r},
				Render: func(rs []delivery.Receipt) (int, []byte, error) { got = rs[0]; return 202, []byte("{}"), nil }})
			if problem.CodeOf(err) == problem.Throttled {
				continue
			}
			require.NoError(x.t, err)
			x.posted = append(x.posted, postedOf{k.tenant, got})
		}
	}
}

// changes has a share of somebody's targets behave in another manner.
func (x *crowd) changes(s crowdStep) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for n := range endpointsOf {
		if n%s.of == 0 {
			x.manners[fmt.Sprintf("https://other-%d.example.com/%d", s.who, n)] = s.manner
		}
	}
	for n := range phonesOf {
		if n%s.of == 0 {
			x.manners[fmt.Sprintf("other-%d-phone-%d", s.who, n)] = s.manner
		}
	}
}

// isServed: what the healthy tenant sends is sent while nothing else moves.
func (x *crowd) isServed(node *kit) {
	x.t.Helper()
	k := x.at(node, x.healthy)
	for _, r := range []delivery.Request{
		{Type: orderType(0), Title: "hello"},
		{To: delivery.To{Users: []string{"user-0", "user-1"}}, Title: "hello"},
	} {
		got := k.post(r)
		require.NotEmpty(x.t, got.Deliveries)
		for n := range got.Deliveries {
			v := k.ends(got, n, delivery.Sent, delivery.NoReason)
			require.Len(x.t, v.Attempts, 1)
		}
		x.posted = append(x.posted, postedOf{x.healthy, got})
	}
}

// end lets more time pass than anything may live.
func (x *crowd) end() {
	for range 30 {
		x.release(true)
		for _, tenant := range append(x.others, x.healthy) {
			eventually(x.t, "nothing is being sent", func() bool {
				list, err := x.store.Deliveries(x.ctx, tenant, delivery.Query{State: delivery.Sending, Limit: 1})
				return err == nil && len(list) == 0
			})
		}
		x.clock.advance(time.Hour)
	}
}

// resume is what a person does about endpoints that said they are gone and work again:
// what is held for them keeps its time to live, and does not end by itself.
func (x *crowd) resume() {
	x.mu.Lock()
	for address := range x.manners {
		x.manners[address] = isWell
	}
	x.mu.Unlock()
	for _, e := range x.endpoints {
		now, err := x.store.Endpoint(x.ctx, e.Tenant, e.ID)
		require.NoError(x.t, err)
		was := now.UpdatedAt
		now.Status, now.StatusReason, now.UpdatedAt = webhooks.Active, "", x.clock.now()
		require.NoError(x.t, x.store.UpdateEndpoint(x.ctx, now, was, webhooks.Edit{Actor: "bob", Release: true}))
		for _, node := range x.nodes {
			node.engine.EndpointsChanged(e.Tenant, e.ID)
		}
	}
}

// judge looks how everything has ended.
func (x *crowd) judge() {
	states := map[string]int{}
	for _, p := range x.posted {
		k := x.at(x.kit, p.tenant)
		for i := range p.receipt.Deliveries {
			v := k.until(p.receipt.Notification, p.receipt.Deliveries[i].Target, "to end", func(v delivery.View) bool { return !v.State.Unfinished() })
			require.Equal(x.t, v.State == delivery.Sent, v.Reason == delivery.NoReason, "%+v", v)
			states[v.State.String()+" "+v.Reason.String()]++
			if v.State == delivery.Dead && x.tried[ids.FormatDelivery(v.Notification, v.Target)] == 0 {
				// Its own targets took its time, and what is late must not be sent.
				require.Equal(x.t, delivery.Expired, v.Reason, "dead, and never tried: %+v", v)
				require.False(x.t, v.UpdatedAt.Before(v.ExpiresAt), "dead before its time, and never tried: %+v", v)
			}
		}
	}
	x.t.Log(states)
	x.sound()
}
