package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

func TestWaitForGate(t *testing.T) {
	t.Parallel()
	d := Progress{Channel: channels.FCM, Spent: 1, ExpiresAt: in(time.Hour), Renewed: channels.RenewToken}
	wait := func(d Progress, opens time.Duration, jitter float64) Transition {
		return waitForGate(d, in(opens), at, jitter)
	}
	pending := func(due time.Duration) Transition {
		return Transition{State: Pending, DueAt: in(due), Spent: 1, Renew: channels.RenewToken}
	}
	require.Equal(t, pending(time.Minute), wait(d, time.Minute, 0))
	require.Equal(t, pending(90*time.Second), wait(d, time.Minute, 0.5), "over as long as it was closed")
	require.Equal(t, pending(time.Hour-time.Second), wait(d, 59*time.Minute, 1), "but within the deadline")
	require.Equal(t, Transition{State: Dropped, Reason: Expired, Spent: 1}, wait(d, time.Hour, 1))
	d.Channel = channels.Webhook
	require.Equal(t, Transition{State: Dead, Reason: Expired, Spent: 1}, wait(d, 2*time.Hour, 0))
}

func TestCrowdOut(t *testing.T) {
	t.Parallel()
	d := Progress{Channel: channels.FCM, Spent: 1, ExpiresAt: in(time.Hour), Renewed: channels.RenewToken}
	pending := func(due time.Duration) Transition {
		return Transition{State: Pending, DueAt: in(due), Spent: 1, Renew: channels.RenewToken}
	}
	require.Equal(t, pending(crowdedLeast), crowdOut(d, at, at, 0))
	require.Equal(t, pending(time.Minute), crowdOut(d, in(-time.Minute), at, 0), "the longer it has waited, the longer")
	require.Equal(t, pending(90*time.Second), crowdOut(d, in(-time.Minute), at, 0.5))
	require.Equal(t, pending(crowdedMost), crowdOut(d, in(-time.Hour), at, 0), "but not for ever")
	d.ExpiresAt = in(time.Second)
	require.Equal(t, pending(time.Second), crowdOut(d, at, at, 1), "it is expired at its deadline")
}

func TestExpire(t *testing.T) {
	t.Parallel()
	for _, k := range channels.Kinds() {
		want := Transition{State: Dropped, Reason: Expired, Spent: 3}
		if k == channels.Webhook {
			want.State = Dead
		}
		require.Equal(t, want, expire(k, 3))
	}
}
