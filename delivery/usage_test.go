package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
)

// used is what the tenant has of a limit.
func (k *kit) used(limit string) delivery.Usage {
	k.t.Helper()
	for _, u := range k.engine.Usage(k.tenant) {
		if u.Limit == limit {
			return u
		}
	}
	require.Fail(k.t, "not told", limit)
	return delivery.Usage{}
}

// TestWhatWaitsInMemoryIsDue: in a lane, and for an older one of its collapse key.
func TestWhatWaitsInMemoryIsDue(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers, o.CountEvery = 2, time.Hour })
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "token", accepted())
	list := []delivery.Receipt{k.post(scoreTo("alice"))}
	k.sends(fcm, 1)
	newest := k.post(scoreTo("alice")) // waits for the first
	list = append(list, k.post(toUser("alice")))
	k.sends(fcm, 2)
	eventually(t, "the newer one to wait", func() bool { return k.used(delivery.LimitDue).Used == 1 })
	for range 3 { // wait for a place
		list = append(list, k.post(toUser("alice")))
	}
	require.Equal(t, 4, k.used(delivery.LimitDue).Used)
	sends := k.used(delivery.LimitSends)
	require.Equal(t, []int{2, 3}, []int{sends.Used, sends.Waiting})
	require.Equal(t, 6, k.used(delivery.LimitStored).Used)
	fcm.answer(nil)
	release()
	for _, r := range append(list, newest) {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	eventually(t, "nothing to be due", func() bool { return k.used(delivery.LimitDue).Used == 0 })
}

// TestARateIsToldAsItIsSet, and what may come at once beside it.
func TestARateIsToldAsItIsSet(t *testing.T) {
	t.Parallel()
	k, clock, _ := waitKit(t)
	require.Equal(t, delivery.Usage{Limit: delivery.LimitUrgent, Most: 200, Rate: 100}, k.used(delivery.LimitUrgent))
	r := toUser("alice")
	r.Urgent = true
	for range 3 {
		k.post(r)
	}
	require.Equal(t, delivery.Usage{Limit: delivery.LimitUrgent, Used: 3, Most: 200, Rate: 100, Clears: 30 * time.Millisecond}, k.used(delivery.LimitUrgent))
	clock.advance(time.Second)
	require.Zero(t, k.used(delivery.LimitUrgent).Used)
}
