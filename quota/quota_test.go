package quota

import (
	"context"
	"errors"
	"maps"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// register is what is counted.
type register struct {
	mu    sync.Mutex
	rows  map[ids.ID]int
	asked int
	err   error
	takes time.Duration
}

func (r *register) count(context.Context) (map[ids.ID]int, error) {
	time.Sleep(r.takes) // virtual time
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	return maps.Clone(r.rows), r.err
}

func TestAQuota(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &register{rows: map[ids.ID]int{1: 10, 2: 9, 3: 500}}
		q := New("devices", 10, r.count, time.Now)
		require.NoError(t, q.Check(1), "nobody waits for the first count")
		left, full := q.Room(1)
		require.Equal(t, math.MaxInt, left)
		require.NoError(t, full)
		synctest.Wait()

		var p *problem.Error
		require.ErrorAs(t, q.Check(1), &p)
		require.Equal(t, problem.Throttled, p.Code)
		require.Equal(t, "This tenant has 10 devices, and this server allows it 10; delete some first.", p.Detail)
		require.Error(t, q.Check(3), "who is above a bound adds nothing")
		require.NoError(t, q.Check(2))
		for tenant, want := range map[ids.ID]int{1: 0, 2: 1, 3: 0, 4: 10} {
			left, full = q.Room(tenant)
			require.Equal(t, want, left)
			require.Equal(t, problem.Throttled, problem.CodeOf(full), "what is answered to those beyond")
		}
		require.ErrorContains(t, full, "this server allows it 10")
		q.Add(2, 1)
		require.Error(t, q.Check(2))
		q.Add(2, -1)
		require.NoError(t, q.Check(2))
		require.NoError(t, q.Check(4))
		what, used, most, known := q.Usage(3)
		require.Equal(t, []any{"devices", 500, 10, true}, []any{what, used, most, known})
		require.Equal(t, 1, r.asked)

		r.rows[2] = 20 // by another node
		time.Sleep(every)
		require.NoError(t, q.Check(2))
		synctest.Wait()
		require.Error(t, q.Check(2))

		r.err, r.rows = errors.New("the database is away"), nil
		time.Sleep(every)
		_ = q.Check(1)
		synctest.Wait()
		require.Error(t, q.Check(1), "what was known stays known")
	})
}

func TestCountingIsPaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &register{takes: 30 * time.Second}
		q := New("devices", 10, r.count, time.Now)
		for range 5 {
			_ = q.Check(1)
		}
		time.Sleep(r.takes)
		synctest.Wait()
		require.Equal(t, 1, r.asked, "one at a time")
		time.Sleep(share * r.takes / 2)
		_ = q.Check(1)
		synctest.Wait()
		require.Equal(t, 1, r.asked, "the longer it takes, the rarer it is")
		time.Sleep(share*r.takes/2 + r.takes)
		_ = q.Check(1)
		time.Sleep(r.takes)
		synctest.Wait()
		require.Equal(t, 2, r.asked)
	})
}
