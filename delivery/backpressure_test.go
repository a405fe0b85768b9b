package delivery_test

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

func TestAHangingEndpointDoesNotStopALane(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.LaneSize = 400; o.Beat = 20 * time.Millisecond })
	k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	bad := k.endpoint(nil)
	release := blocked(k.channels[channels.Webhook], bad.URL, channels.Result{Outcome: channels.Retry, Code: "transport.timeout"})
	defer release()
	for i := range 600 { // more than the lane holds
		k.post(delivery.Request{To: delivery.To{Endpoints: []ids.ID{bad.ID}}, Title: strconv.Itoa(i)})
	}
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
}

func TestAGateDropsNothingThatCanStillBeSent(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Jitter = func() float64 { return 0.9 } })
	k.credential(channels.FCM, "")
	k.device("alice", "first", channels.FCM, nil)
	k.device("bob", "second", channels.FCM, nil)
	var refused atomic.Bool
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		if refused.CompareAndSwap(false, true) {
			return channels.Result{Outcome: channels.Throttled, Scope: channels.ScopeCredential, Code: "fcm.quota", NotBefore: time.Now().Add(3 * time.Second)}
		}
		return accepted()
	})
	k.post(toUser("alice"))
	require.Eventually(t, refused.Load, 10*time.Second, time.Millisecond)
	code := toUser("bob")
	ttl := int64(5) // the gate opens in 3 s; spread over as much again it would come too late
	code.TTL = &ttl
	k.ends(k.post(code), 0, delivery.Sent, delivery.NoReason)
}
