package queue

import (
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// turns keeps, for each lane, what one claim tells the next.
type turns struct {
	mu    sync.Mutex
	lanes [delivery.LanesCount]turn
}

type turn struct {
	// served is the tenant that the last claim ended with. Each goes on behind
	// it, so that a full claim starves none.
	served ids.ID
	// On PostgreSQL: see takeShared.
	tenants []ids.ID
	lately  map[ids.ID]time.Time
	looked  time.Time
	took    time.Duration
	asOf    time.Time // of the last look, by the time that is due
	mark    int64
	wholeAt time.Time
}

// forget makes the next claim of a lane look at everything.
func (u *turns) forget(l delivery.Lane) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lanes[l].wholeAt = time.Time{}
}

// from puts the tenants in the order of this claim.
func (u *turn) from(list []ids.ID) []ids.ID {
	start := sort.Search(len(list), func(i int) bool { return list[i] > u.served })
	return append(slices.Clone(list[start:]), list[:start]...)
}
