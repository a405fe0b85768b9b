// Package quota bounds how many of something a tenant may have stored. Nobody who adds
// one waits for a count: all are counted now and then, and along the way in between.
package quota

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

const (
	// every is the least time between two counts.
	every = 10 * time.Minute
	// share: counting takes no more than one part in so many of the time.
	share = 200
	// limit of one count.
	limit = 5 * time.Minute
)

// Quota is the bound of one thing. What other nodes add is seen at the next count, so
// that many nodes can go beyond it by what they add until then. Until the first count
// there is no bound. It is safe for concurrent use.
type Quota struct {
	what  string
	most  int
	count func(context.Context) (map[ids.ID]int, error)
	now   func() time.Time

	mu       sync.Mutex
	counts   map[ids.ID]int // nil: not counted yet
	next     time.Time
	counting chan struct{} // closed when the count that is under way has ended; nil: none is
}

// New makes one of so many of a thing, named as in "devices".
func New(what string, most int, count func(context.Context) (map[ids.ID]int, error), now func() time.Time) *Quota {
	return &Quota{what: what, most: most, count: count, now: now}
}

// Check refuses one more where a tenant has as many as it may. Who is above a bound that
// was lowered keeps what it has.
func (q *Quota) Check(tenant ids.ID) error {
	if left, full := q.Room(tenant); left == 0 {
		return full
	}
	return nil
}

// Room is how many more a tenant may have, and what is answered to those beyond.
func (q *Quota) Room(tenant ids.ID) (left int, full error) {
	q.refresh()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts == nil {
		return math.MaxInt, nil
	}
	n := q.counts[tenant]
	return max(q.most-n, 0), &problem.Error{Code: problem.Throttled, RetryAfter: every,
		Detail: fmt.Sprintf("This tenant has %d %s, and this server allows it %d; delete some first.", max(n, q.most), q.what, q.most)}
}

// Add notes that there are more, or fewer.
func (q *Quota) Add(tenant ids.ID, n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counts != nil {
		q.counts[tenant] = max(q.counts[tenant]+n, 0)
	}
}

// Usage tells how many a tenant has and may have; known is false before the first count.
func (q *Quota) Usage(tenant ids.ID) (what string, used, most int, known bool) {
	q.refresh()
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.what, q.counts[tenant], q.most, q.counts != nil
}

// refresh counts beside the caller, where it is time.
func (q *Quota) refresh() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.counting != nil || q.now().Before(q.next) {
		return
	}
	done := make(chan struct{})
	q.counting = done
	go func() {
		defer close(done)
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		counts, err := q.count(ctx)
		q.mu.Lock()
		defer q.mu.Unlock()
		if err == nil {
			q.counts = counts
		}
		q.next, q.counting = q.now().Add(max(every, share*time.Since(began))), nil
	}()
}
