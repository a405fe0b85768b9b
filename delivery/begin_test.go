package delivery_test

import (
	"testing"

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
	_, err := k.store.LapseLeases(k.ctx)
	require.NoError(t, err)
	k.until(r.Notification, r.Deliveries[0].Target, "to be taken over", func(v delivery.View) bool { return v.Takeovers == 1 })
	release()
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
}
