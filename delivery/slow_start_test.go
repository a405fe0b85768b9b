package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestASlowStartDoubles(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	var none slowStart
	require.Equal(t, claimLimit, none.room(Regular, now))
	s := slowStart{on: true}
	for most := slowFirst; most < claimLimit; most *= 2 {
		for l := range Lane(LanesCount) {
			require.Equal(t, most, s.room(l, now), "each lane has its own")
			s.took(l, 10)
			require.Equal(t, most-10, s.room(l, now.Add(slowWindow-1)))
			s.took(l, most-10)
			require.Zero(t, s.room(l, now.Add(slowWindow-1)))
		}
		now = now.Add(slowWindow)
	}
	for range 3 {
		require.Equal(t, claimLimit, s.room(Regular, now))
		s.took(Regular, claimLimit)
	}
}
