package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTakeover(t *testing.T) {
	t.Parallel()
	for takeovers := 1; takeovers < 7; takeovers++ {
		for _, once := range []bool{false, true} {
			for _, begun := range []bool{false, true} {
				got, over := takeover(Progress{Spent: 2, AtMostOnce: once}, takeovers, begun)
				switch {
				case takeovers >= 5:
					require.Equal(t, Transition{State: Dead, Reason: Crashed, Spent: 2}, got)
				case once && begun:
					require.Equal(t, Transition{State: Dead, Reason: Ambiguous, Spent: 2}, got)
				default:
					require.Zero(t, got)
				}
				require.Equal(t, takeovers >= 5 || once && begun, over)
			}
		}
	}
}

// TestOnlyWhatMayHaveBegunCounts: of what was queued only, a node that dies takes
// nothing with it, as far as that is known.
func TestOnlyWhatMayHaveBegunCounts(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		was                  State
		once, unknown, begun bool
		want                 bool
	}{
		{was: Sending, want: true},
		{was: Sending, once: true},
		{was: Sending, unknown: true},
		{was: Sending, once: true, begun: true, want: true},
		{was: Sending, unknown: true, begun: true, want: true},
		{was: Pending}, {was: Held}, {was: Pending, unknown: true, begun: true},
	} {
		c := &Claimed{Was: x.was, AtMostOnce: x.once, Begun: x.begun}
		c.Unknown = x.unknown
		require.Equal(t, x.want, c.MayHaveBegun(), "%+v", x)
	}
}

func TestAtClaim(t *testing.T) {
	t.Parallel()
	d := Progress{Spent: 2}
	for was, over := range map[State]bool{Pending: false, Held: false, Sending: true} {
		c := &Claimed{Was: was, Canceled: true}
		c.Takeovers = maxTakeovers
		got, ok := endsAtClaim(c, d)
		require.True(t, ok)
		require.Equal(t, Transition{State: Dropped, Reason: Canceled, Spent: 2}, got)
		c.Canceled = false
		got, ok = endsAtClaim(c, d)
		require.Equal(t, over, ok, "only what was in a node's hands is taken over")
		require.Equal(t, over, got == Transition{State: Dead, Reason: Crashed, Spent: 2})
	}
}
