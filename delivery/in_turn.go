package delivery

import (
	"sync"

	"github.com/carillonhq/carillon/ids"
)

// How many providers a node asks at a time what they think of credentials. Each may
// hang for as long as a request may take.
const (
	askMost          = 64 // because of refusals, of all tenants
	askMostPerTenant = 4
	checkMost        = 8 // in a round through many credentials, one of a tenant at most
)

// slots are the room for what may hang, of which a tenant gets a part.
type slots struct {
	mu      sync.Mutex
	taken   int
	tenants map[ids.ID]int
}

// take finds room; leave must be called once if there is some.
func (s *slots) take(tenant ids.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken >= askMost || s.tenants[tenant] >= askMostPerTenant {
		return false
	}
	if s.tenants == nil {
		s.tenants = map[ids.ID]int{}
	}
	s.taken++
	s.tenants[tenant]++
	return true
}

func (s *slots) leave(tenant ids.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken--
	if s.tenants[tenant]--; s.tenants[tenant] == 0 {
		delete(s.tenants, tenant)
	}
}

// inTurn calls do for each of a list until one call says that there is no more time:
// a few at a time, of which no two are of one tenant. Tenants have their turns, so
// that many of one, which all hang, keep no other waiting for more than one of them.
func inTurn[T any](list []T, tenant func(*T) ids.ID, do func(*T) (goOn bool)) {
	var (
		mu      sync.Mutex
		waiting [][]*T // of a tenant each, but for those that are in hand
		place   = map[ids.ID]int{}
	)
	for i := range list {
		id := tenant(&list[i])
		n, known := place[id]
		if !known {
			n = len(waiting)
			place[id], waiting = n, append(waiting, nil)
		}
		waiting[n] = append(waiting[n], &list[i])
	}
	next := func() (its []*T) {
		mu.Lock()
		defer mu.Unlock()
		if len(waiting) > 0 {
			its, waiting = waiting[0], waiting[1:]
		}
		return its
	}
	var working sync.WaitGroup
	for range min(checkMost, len(waiting)) {
		working.Go(func() {
			for its := next(); its != nil; its = next() {
				goOn := do(its[0])
				mu.Lock()
				switch {
				case !goOn:
					waiting = nil
				case len(its) > 1:
					waiting = append(waiting, its[1:])
				}
				mu.Unlock()
			}
		})
	}
	working.Wait()
}
