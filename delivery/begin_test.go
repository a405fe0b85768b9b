package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
)

func TestWhatWasOnlyQueuedSurvivesACrashThoughItMustNotBeSentTwice(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers = 1 })
	k.credential(channels.FCM, "")
	k.device("alice", "first", channels.FCM, nil)
	k.device("bob", "second", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "first", accepted())
	k.post(toUser("alice"))
	k.sends(fcm, 1)
	code := toUser("bob")
	code.OnAmbiguous = delivery.OnAmbiguousStop
	r := k.post(code) // waits behind alice's
	k.lapses(r)
	release()
	v := k.ends(r, 0, delivery.Sent, delivery.NoReason)
	require.False(t, v.Unknown, "it was sent once")
	require.Len(t, v.Attempts, 1)
}

// lapses lets the leases of all end, as those of a node that died, and waits until one
// is taken over.
func (k *kit) lapses(r delivery.Receipt) {
	k.t.Helper()
	before := k.until(r.Notification, r.Deliveries[0].Target, "to be in hand", func(v delivery.View) bool { return v.State == delivery.Sending })
	eventually(k.t, "another millisecond", func() bool { return k.store.Now().Truncate(time.Millisecond).After(before.UpdatedAt) })
	_, err := k.store.LapseLeases(k.ctx)
	require.NoError(k.t, err)
	k.until(r.Notification, r.Deliveries[0].Target, "to be taken over", func(v delivery.View) bool {
		return v.State == delivery.Sending && v.UpdatedAt.After(before.UpdatedAt)
	})
}

// TestCrashesEndNothingThatWasNotSent, however many there are: those do not count in
// which a delivery was only queued, as far as that is known.
func TestCrashesEndNothingThatWasNotSent(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers = 1 })
	k.credential(channels.FCM, "")
	k.device("alice", "first", channels.FCM, nil)
	k.device("bob", "second", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "first", accepted())
	k.post(toUser("alice"))
	k.sends(fcm, 1)
	r := k.post(toUser("bob")) // waits behind alice's
	for range 2 * 5 {
		k.lapses(r)
	}
	release()
	v := k.ends(r, 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, 1, v.Takeovers, "of the first it is not known")
	require.True(t, v.Unknown)
	require.Len(t, v.Attempts, 2)
}

// TestWhatWasBeingSentInFiveCrashesIsDead: it may be what causes them.
func TestWhatWasBeingSentInFiveCrashesIsDead(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "token", accepted())
	defer release()
	r := k.post(toUser("alice"))
	for n := range 5 {
		k.sends(fcm, n+1)
		_, err := k.store.LapseLeases(k.ctx)
		require.NoError(t, err)
	}
	v := k.ends(r, 0, delivery.Dead, delivery.Crashed)
	require.Equal(t, 5, v.Takeovers)
	require.Len(t, v.Attempts, 5)
}
