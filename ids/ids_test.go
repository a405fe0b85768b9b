package ids_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/ids"
)

func clock(at *time.Time) func() time.Time { return func() time.Time { return *at } }

func TestIDsGrowWhateverTheClockDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		g := ids.NewGenerator(rapid.IntRange(0, ids.MaxNode).Draw(t, "node"), clock(&at))
		last := ids.ID(0)
		for range 200 {
			at = at.Add(time.Duration(rapid.IntRange(-2000, 2000).Draw(t, "ms")) * time.Millisecond)
			id := g.Next()
			require.Greater(t, id, last)
			require.Positive(t, id)
			last = id
		}
	})
}

func TestAnIDTellsItsTimeAndNode(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.UTC)
	a, b := ids.NewGenerator(5, clock(&at)), ids.NewGenerator(6, clock(&at))
	x := a.Next()
	require.Equal(t, at, x.Time())
	require.NotEqual(t, x, b.Next(), "nodes never make the same")
	require.EqualValues(t, 5, x>>12&ids.MaxNode)
	require.GreaterOrEqual(t, x, ids.Before(at))
	require.Less(t, x, ids.Before(at.Add(time.Millisecond)))
	require.Zero(t, ids.Before(time.Unix(0, 0)))

	for range 4095 {
		require.Equal(t, at, a.Next().Time())
	}
	require.Equal(t, at.Add(time.Millisecond), a.Next().Time(), "more than 4,096 borrow from the next millisecond")

	early := time.Unix(0, 0)
	require.Positive(t, ids.NewGenerator(0, clock(&early)).Next(), "a clock that is wrong makes ids all the same")
}

func TestConcurrentIDsAreDistinct(t *testing.T) {
	t.Parallel()
	g := ids.NewGenerator(1, time.Now)
	const n, each = 8, 2000
	made := make([][]ids.ID, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			for range each {
				made[i] = append(made[i], g.Next())
			}
		})
	}
	wg.Wait()
	seen := map[ids.ID]bool{}
	for _, list := range made {
		for k, id := range list {
			require.True(t, k == 0 || id > list[k-1])
			seen[id] = true
		}
	}
	require.Len(t, seen, n*each)
}

func TestTextIsReadBackAndSorts(t *testing.T) {
	t.Parallel()
	id := rapid.Custom(func(t *rapid.T) ids.ID { return ids.ID(rapid.Int64Range(1, 1<<63-1).Draw(t, "id")) })
	rapid.Check(t, func(t *rapid.T) {
		a, b := id.Draw(t, "a"), id.Draw(t, "b")
		text := a.Format(ids.Device)
		require.Len(t, text, 17)
		back, err := ids.Parse(ids.Device, text)
		require.NoError(t, err)
		require.Equal(t, a, back)
		require.Equal(t, a < b, text < b.Format(ids.Device), "text order is number order")

		text = ids.FormatDelivery(a, b)
		require.Len(t, text, ids.DeliveryLen)
		ntf, target, err := ids.ParseDelivery(text)
		require.NoError(t, err)
		require.Equal(t, []ids.ID{a, b}, []ids.ID{ntf, target})
	})
	require.Equal(t, "ntf_0000000000001", ids.ID(1).Format(ids.Notification))
	require.Equal(t, "ntf_7zzzzzzzzzzzz", ids.ID(1<<63-1).Format(ids.Notification))
}

func TestWhatIsNoID(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "dev", "dev_", "dev_000000000000", "dev_00000000000001", "ntf_0000000000001", "dev-0000000000001", "DEV_0000000000001",
		"dev_0000000000000", "dev_8000000000000", "dev_zzzzzzzzzzzzz", "dev_000000000000A", "dev_000000000000i", "dev_000000000000u", "dev_00000000000é",
		" dev_0000000000001", "dev_0000000000001\n",
	} {
		_, err := ids.Parse(ids.Device, s)
		require.ErrorIs(t, err, ids.ErrBadID, s)
	}
	one := strings.Repeat("0", 12) + "1"
	for _, s := range []string{"", "dlv_", "dlv_" + one, "dlv_" + one + one + "1", "ntf_" + one + one, "dlv_" + one + strings.Repeat("0", 13),
		"dlv_" + strings.Repeat("0", 13) + one, "dlv_" + one + "z" + one[1:]} {
		_, _, err := ids.ParseDelivery(s)
		require.ErrorIs(t, err, ids.ErrBadID, s)
	}
}

// FuzzParse: what is read is printed as it was.
func FuzzParse(f *testing.F) {
	f.Add("dev_0d1kq3w8r000c")
	f.Add("dlv_0d1kq3w8r000c0d1kq3w8r000d")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := ids.Parse(ids.Device, s); err == nil && id.Format(ids.Device) != s {
			t.Errorf("%q is read as %d", s, id)
		}
		if ntf, target, err := ids.ParseDelivery(s); err == nil && ids.FormatDelivery(ntf, target) != s {
			t.Errorf("%q is read as %d and %d", s, ntf, target)
		}
	})
}
