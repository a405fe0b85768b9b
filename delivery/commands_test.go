package delivery_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
)

func TestWhatIsBeingSentIsNotTriedAgainAfterCancel(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	began, answer := make(chan struct{}), make(chan struct{})
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		close(began)
		<-answer
		return channels.Result{Outcome: channels.Retry, Code: "fcm.unavailable", Status: 503}
	})
	r := k.post(toUser("alice"))
	<-began
	n, err := k.engine.Cancel(k.ctx, k.tenant, r.Notification)
	require.NoError(t, err)
	require.Zero(t, n)
	close(answer)
	v := k.ends(r, 0, delivery.Dropped, delivery.Canceled)
	require.Len(t, v.Attempts, 1)
	k.sound()
}

func TestCancelStopsWhatIsQueued(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers = 1 })
	k.credential(channels.FCM, "")
	k.device("alice", "first", channels.FCM, nil)
	k.device("bob", "second", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "first", accepted())
	k.post(toUser("alice"))
	k.sends(fcm, 1)
	r := k.post(toUser("bob"))
	_, err := k.engine.Cancel(k.ctx, k.tenant, r.Notification)
	require.NoError(t, err)
	release()
	k.ends(r, 0, delivery.Dropped, delivery.Canceled)
	require.Len(t, fcm.attempts(), 1)
}
