package delivery

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/carillonhq/carillon/ids"
)

// Budget bounds how often something may be done for each subject, such as a
// tenant's requests. It holds over all nodes of a database: what the others use
// is taken off what this node allows.
type Budget struct {
	kind      BudgetKind
	perSecond float64
	burst     int

	mu      sync.Mutex
	buckets map[ids.ID]*bucket
	nodes   int                // that share it
	others  map[ids.ID]float64 // uses a second on the other nodes
}

// BudgetKind says what a budget is of.
type BudgetKind int

// The kinds, as nodes of different versions share them.
const (
	UrgentBudget  BudgetKind = 1 // urgent notifications of a tenant
	RequestBudget BudgetKind = 2 // requests of a tenant
)

// Use is how much is used of a budget.
type Use struct {
	Kind      BudgetKind
	Subject   ids.ID
	PerSecond float64
}

// bucket is the budget of a subject on this node.
type bucket struct {
	tokens    *rate.Limiter
	used      int // since then
	since     time.Time
	perSecond float64 // used lately
}

const (
	maxBuckets = 10_000 // subjects of a budget that are remembered
	// measureOver is the least time over which uses are counted.
	measureOver = time.Second
	// usesFade is what remains after a second of the memory of a burst. All nodes
	// allow all of it again where nothing is used, so it must not be forgotten
	// before it is made up for: bursts with pauses would get a multiple.
	usesFade = 0.8
	// worthSharing is the part of a node's even share that is worth telling the
	// others: all who stay below it use a tenth of the limit together at most.
	worthSharing = 0.1
)

// NewBudget makes a budget of so many uses a second, and burst uses at once. It is
// a node's alone until Engine.Share.
func NewBudget(k BudgetKind, perSecond float64, burst int) *Budget {
	return &Budget{kind: k, perSecond: perSecond, burst: burst, buckets: map[ids.ID]*bucket{}, nodes: 1}
}

// Taken tells what a Take did.
type Taken struct {
	OK   bool
	Left int           // uses that are left at once
	Full time.Duration // until as many are left as can be
	Wait time.Duration // until there is one; 0 where OK
}

// Take spends one use of a subject, if it has one.
func (b *Budget) Take(who ids.ID, now time.Time) Taken {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.bucket(who, now)
	t := Taken{OK: x.tokens.AllowN(now, 1)}
	left := max(x.tokens.TokensAt(now), 0)
	after := func(n float64) time.Duration {
		return time.Duration(max(n-left, 0) / float64(x.tokens.Limit()) * float64(time.Second))
	}
	t.Left, t.Full = int(left), after(float64(x.tokens.Burst()))
	if t.OK {
		x.used++
	} else {
		t.Wait = after(1)
	}
	return t
}

// Usage tells how much of what a subject may do at once is used up, over all nodes, and
// how long this one takes to make up for its part of that.
func (b *Budget) Usage(limit string, who ids.ID, now time.Time) Usage {
	b.mu.Lock()
	defer b.mu.Unlock()
	refill, most := b.allowed(who)
	left, mine := float64(most), 0.0
	if x, known := b.buckets[who]; known {
		left = max(x.tokens.TokensAt(now), 0)
		mine = max(float64(x.tokens.Burst())-left, 0)
	}
	return Usage{Limit: limit, Used: max(b.burst-int(math.Ceil(left)), 0), Most: b.burst, Rate: b.perSecond,
		Clears: time.Duration(mine / float64(refill) * float64(time.Second))}
}

func (b *Budget) bucket(who ids.ID, now time.Time) *bucket {
	x, ok := b.buckets[who]
	if !ok {
		if len(b.buckets) >= maxBuckets {
			b.makeRoom(now)
		}
		x = &bucket{since: now}
		limit, burst := b.allowed(who)
		x.tokens = rate.NewLimiter(limit, burst)
		b.buckets[who] = x
	}
	return x
}

// makeRoom forgets buckets that are full again, which changes nothing for their
// subjects; if there is none, it forgets some other.
func (b *Budget) makeRoom(now time.Time) {
	for who, x := range b.buckets {
		if x.tokens.TokensAt(now) >= float64(x.tokens.Burst()) {
			delete(b.buckets, who)
		}
	}
	for who := range b.buckets {
		if len(b.buckets) < maxBuckets {
			return
		}
		delete(b.buckets, who)
	}
}

// allowed is what this node allows a subject: a second, and at once.
func (b *Budget) allowed(who ids.ID) (rate.Limit, int) {
	a := allowance(b.perSecond, b.others[who], b.nodes)
	return rate.Limit(a), max(int(math.Ceil(float64(b.burst)*a/b.perSecond)), 1)
}

// allowance is what a node allows of a limit: what the others leave, and never
// less than its even share, so that none that came first keeps it from the rest.
func allowance(limit, others float64, nodes int) float64 {
	return max(limit-others, limit/float64(nodes))
}

// pending lists what is used on this node, where that matters to the others.
func (b *Budget) pending(now time.Time) []Use {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Use
	for who, x := range b.buckets {
		x.measure(now)
		if b.nodes > 1 && x.perSecond > b.perSecond/float64(b.nodes)*worthSharing {
			list = append(list, Use{Kind: b.kind, Subject: who, PerSecond: x.perSecond})
		}
	}
	return list
}

func (x *bucket) measure(now time.Time) {
	d := now.Sub(x.since)
	if d < measureOver {
		return
	}
	x.perSecond = max(float64(x.used)/d.Seconds(), x.perSecond*math.Pow(usesFade, d.Seconds()))
	x.used, x.since = 0, now
}

// merge takes up what is used on the other nodes.
func (b *Budget) merge(nodes int, uses []Use, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nodes, b.others = max(nodes, 1), map[ids.ID]float64{}
	for _, u := range uses {
		if u.Kind == b.kind {
			b.others[u.Subject] += u.PerSecond
		}
	}
	for who, x := range b.buckets {
		if limit, burst := b.allowed(who); limit != x.tokens.Limit() || burst != x.tokens.Burst() {
			x.tokens.SetLimitAt(now, limit)
			x.tokens.SetBurstAt(now, burst)
		}
	}
}
