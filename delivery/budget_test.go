package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
)

func TestAllowance(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		others float64
		nodes  int
		want   float64
	}{
		"alone":                          {0, 1, 100},
		"the others use nothing":         {0, 4, 100},
		"what the others leave":          {30, 4, 70},
		"never less than the even share": {90, 4, 25},
		"when the others use too much":   {400, 4, 25},
		"of two":                         {100, 2, 50},
	} {
		require.InDelta(t, x.want, allowance(100, x.others, x.nodes), 1e-9, name)
	}
}

// spend takes as much as there is, and says how much it was.
func spend(b *Budget, who ids.ID, now time.Time) (n int) {
	for b.Take(who, now).OK {
		n++
	}
	return n
}

func TestABudgetSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	b := NewBudget(RequestBudget, 2, 3)
	require.Equal(t, Taken{OK: true, Left: 2, Full: 500 * time.Millisecond}, b.Take(1, at))
	require.Equal(t, 2, spend(b, 1, at))
	require.Equal(t, Taken{Full: 1500 * time.Millisecond, Wait: 500 * time.Millisecond}, b.Take(1, at))
	require.Equal(t, 3, spend(b, 2, at), "another subject has its own")
	require.Equal(t, 1, spend(b, 1, in(500*time.Millisecond)))
}

func TestSubjectsOfABudgetAreBounded(t *testing.T) {
	t.Parallel()
	b := NewBudget(RequestBudget, 1, 1)
	for id := ids.ID(1); id <= maxBuckets; id++ {
		require.True(t, b.Take(id, at).OK)
	}
	require.Len(t, b.buckets, maxBuckets)
	require.True(t, b.Take(maxBuckets+1, at).OK)
	require.Len(t, b.buckets, maxBuckets, "none is idle, so one had to go")
	require.True(t, b.Take(maxBuckets+2, in(time.Minute)).OK)
	require.Len(t, b.buckets, 1, "all were idle")
}

func TestOnlyWhatMattersIsShared(t *testing.T) {
	t.Parallel()
	b := NewBudget(UrgentBudget, 100, 200)
	require.Equal(t, 200, spend(b, 1, at))
	require.Empty(t, b.pending(in(time.Second)), "there is nobody to tell")
	b.merge(2, nil, in(time.Second))
	require.Equal(t, []Use{{UrgentBudget, 1, 200}}, b.pending(in(time.Second)))
	require.Equal(t, []Use{{UrgentBudget, 1, 200}}, b.pending(in(time.Second+time.Second/2)), "as long as it is not measured again")
	for range 5 {
		require.True(t, b.Take(2, in(time.Second)).OK)
	}
	uses := b.pending(in(2 * time.Second))
	require.Len(t, uses, 1, "5 a second are a tenth of the even share")
	require.InDelta(t, 160, uses[0].PerSecond, 1e-9, "a burst is not forgotten at once")
}

func TestABudgetIsWhatTheOthersLeave(t *testing.T) {
	t.Parallel()
	b := NewBudget(UrgentBudget, 100, 200)
	require.Equal(t, 200, spend(b, 1, at))
	b.merge(3, []Use{{UrgentBudget, 1, 40}, {RequestBudget, 1, 50}, {UrgentBudget, 2, 1000}, {RequestBudget, 3, 1000}}, at)
	require.Equal(t, 60, spend(b, 1, in(time.Second)))
	require.Equal(t, 67, spend(b, 2, at), "nor are more at once than two seconds' worth of a third")
	require.Equal(t, 200, spend(b, 3, at), "that was of another budget")
	b.merge(3, nil, in(time.Second))
	require.Equal(t, 100, spend(b, 1, in(2*time.Second)), "the others have stopped")
	b.merge(0, nil, in(2*time.Second))
	require.Equal(t, 100, spend(b, 1, in(3*time.Second)))
}

// together runs nodes that exchange once a second, each of which is asked for as
// much as wants says, and counts what all of them allow.
func together(nodes, seconds int, wants func(second, node int) int) (total int) {
	const who ids.ID = 1
	list := make([]*Budget, nodes)
	for i := range list {
		list[i] = NewBudget(UrgentBudget, 100, 200)
		list[i].merge(nodes, nil, at)
	}
	for s := range seconds {
		const steps = 10
		for step := range steps {
			now := in(time.Duration(s*steps+step) * time.Second / steps)
			for i, b := range list {
				for range wants(s, i) / steps {
					if b.Take(who, now).OK {
						total++
					}
				}
			}
		}
		now := in(time.Duration(s+1) * time.Second)
		uses := make([][]Use, nodes)
		for i, b := range list {
			uses[i] = b.pending(now)
		}
		for i, b := range list {
			var others []Use
			for j := range uses {
				if j != i {
					others = append(others, uses[j]...)
				}
			}
			b.merge(nodes, others, now)
		}
	}
	return total
}

func TestNodesTogetherKeepTheLimit(t *testing.T) {
	t.Parallel()
	const seconds, limit = 120, 100 * 120
	for name, x := range map[string]struct {
		nodes       int
		wants       func(second, node int) int
		least, most float64 // of the limit
	}{
		"alone": {1, func(int, int) int { return 1000 }, 1, 1.02},
		// Until they know of each other every node may take its burst: once.
		"all want everything":  {5, func(int, int) int { return 1000 }, 0.95, 1.15},
		"one wants everything": {5, func(_, n int) int { return 1000 * max(1-n, 0) }, 0.98, 1.02},
		"some want little":     {3, func(_, n int) int { return []int{1000, 20, 10}[n] }, 0.85, 1.05},
		"one after the other":  {3, func(s, n int) int { return 1000 * max(1-(n+s/30)%3, 0) }, 0.8, 1.1},
		"bursts with pauses":   {5, func(s, _ int) int { return 1000 * max(1-s%8, 0) }, 0, 1.15},
		"within the limit":     {4, func(int, int) int { return 20 }, 0.8, 0.8},
	} {
		got := float64(together(x.nodes, seconds, x.wants)) / limit
		require.GreaterOrEqual(t, got, x.least, name)
		require.LessOrEqual(t, got, x.most, name)
	}
}
