package delivery

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

func TestDecisionsOfCommands(t *testing.T) {
	t.Parallel()
	require.Equal(t, Transition{State: Dropped, Reason: Canceled}, Cancellation())
	require.Equal(t, Transition{State: Dropped, Reason: Erased}, EraseDelivery())
	require.Equal(t, Transition{State: Pending, DueAt: at}, Revival(at))
	require.Equal(t, Transition{State: Dropped, Reason: Stale}, Staleness(Dropped))
	require.Equal(t, Transition{State: Dead, Reason: Stale}, Staleness(Dead))
	require.Equal(t, Attempt{Number: 3, At: at, Outcome: channels.Unknown, Ambiguous: true, Code: "takeover",
		Detail: "The node that held the delivery stopped; whether it made the attempt is unknown."}, LostAttempt(3, at))
}

func TestRelease(t *testing.T) {
	t.Parallel()
	pending := Transition{State: Pending, DueAt: at}
	for e, x := range map[Ending]struct {
		want   Transition
		refund int
	}{
		Resume:  {want: pending},
		Confirm: {want: Transition{State: Dropped, Reason: Gone}},
		Reverse: {want: pending, refund: 1},
	} {
		got, refund := Release(e, at)
		require.Equal(t, x.want, got)
		require.Equal(t, x.refund, refund)
	}
}
