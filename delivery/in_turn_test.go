package delivery

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
)

// TestTenantsHaveTheirTurns: one that has many, which all hang, has one in hand at a
// time, and keeps no other waiting.
func TestTenantsHaveTheirTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type item struct{ tenant ids.ID }
		var list []item
		for range 100 {
			list = append(list, item{1})
		}
		for i := range ids.ID(3 * checkMost) {
			list = append(list, item{2 + i}, item{2 + i})
		}
		start := time.Now()
		var (
			mu     sync.Mutex
			inHand = map[ids.ID]int{}
			most   int
			ended  = map[ids.ID]time.Duration{}
		)
		inTurn(list, func(x *item) ids.ID { return x.tenant }, func(x *item) bool {
			mu.Lock()
			inHand[x.tenant]++
			require.Equal(t, 1, inHand[x.tenant])
			most = max(most, len(inHand))
			mu.Unlock()
			if x.tenant == 1 {
				time.Sleep(5 * time.Second)
			} else {
				time.Sleep(time.Millisecond)
			}
			mu.Lock()
			delete(inHand, x.tenant)
			ended[x.tenant] = time.Since(start)
			mu.Unlock()
			return true
		})
		require.Equal(t, checkMost, most)
		require.Equal(t, 500*time.Second, ended[1])
		delete(ended, 1)
		require.Len(t, ended, 3*checkMost)
		for _, d := range ended {
			require.Less(t, d, 5*time.Second)
		}
	})
}

func TestNoMoreTurnsWhenTimeIsOver(t *testing.T) {
	t.Parallel()
	calls := 0
	inTurn([]ids.ID{1, 1, 1}, func(x *ids.ID) ids.ID { return *x }, func(*ids.ID) bool { calls++; return calls < 2 })
	require.Equal(t, 2, calls)
	inTurn(nil, func(x *ids.ID) ids.ID { return *x }, func(*ids.ID) bool { panic("there is none") })
}

func TestATenantTakesAPartOfTheSlots(t *testing.T) {
	t.Parallel()
	var s slots
	take := func(tenant ids.ID) (n int) {
		for s.take(tenant) {
			n++
		}
		return n
	}
	require.Equal(t, askMostPerTenant, take(1))
	total := askMostPerTenant
	for i := range ids.ID(100) {
		total += take(2 + i)
	}
	require.Equal(t, askMost, total)
	s.leave(1)
	require.Equal(t, 1, take(1))
	require.Zero(t, take(1000))
}
