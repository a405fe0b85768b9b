package delivery_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
)

func TestAPanicInAChannelEndsNothingElse(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		panic("a nil somewhere")
	})
	v := k.ends(k.post(toUser("alice")), 0, delivery.Dead, delivery.Rejected)
	require.Equal(t, "engine.panic", v.Last.Code)
	require.NotContains(t, v.Last.Detail, "nil somewhere", "what a panic says is not for callers")
}
