package api

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

const (
	// readsAtOnce is how many reads of a tenant, or of its users, run at a time on a
	// server: all tenants share the connections for lists, which may take long.
	readsAtOnce = 4
	// readWaits is how long one waits for its turn.
	readWaits = 10 * time.Second
	// exportsAtOnce is how many exports of a tenant are under way at a time on a server: each
	// has a page in memory for as long as its client takes.
	exportsAtOnce = 2
)

// readTurns lets few reads of each tenant run at a time; the others wait, and take
// nothing from other tenants meanwhile.
type readTurns struct {
	mu     sync.Mutex
	places map[place]*readPlace
}

type readPlace struct {
	turn chan struct{}
	n    int // that run or wait
}

// enter waits for a turn; leave ends it.
func (r *readTurns) enter(ctx context.Context, who place) (leave func(), err error) {
	r.mu.Lock()
	p := r.places[who]
	if p == nil {
		p = &readPlace{turn: make(chan struct{}, readsAtOnce)}
		r.places[who] = p
	}
	p.n++
	r.mu.Unlock()
	gone := func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if p.n--; p.n == 0 {
			delete(r.places, who)
		}
	}
	select {
	case p.turn <- struct{}{}:
		return func() { <-p.turn; gone() }, nil
	default:
	}
	late := time.NewTimer(readWaits)
	defer late.Stop()
	select {
	case p.turn <- struct{}{}:
		return func() { <-p.turn; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	case <-late.C:
		gone()
		return nil, &problem.Error{Code: problem.Throttled, RetryAfter: time.Second,
			Detail: fmt.Sprintf("The tenant reads more than this server lets it at a time, which is %d requests; ask for less at once.", readsAtOnce)}
	}
}

// exportTurns counts the exports of each tenant that are under way.
type exportTurns struct {
	mu    sync.Mutex
	under map[ids.ID]int
}

// enter refuses one too many: an export may take so long that nobody would wait for it.
func (x *exportTurns) enter(tenant ids.ID) (leave func(), err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.under[tenant] >= exportsAtOnce {
		return nil, &problem.Error{Code: problem.Throttled, RetryAfter: 10 * time.Second,
			Detail: fmt.Sprintf("The tenant has %d exports under way, which is as many as this server allows; wait for one to end.", exportsAtOnce)}
	}
	x.under[tenant]++
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.under[tenant]--; x.under[tenant] == 0 {
			delete(x.under, tenant)
		}
	}, nil
}
