package delivery_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/webhooks"
)

func TestATokenReplacedDuringASendIsNotRetired(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("bob", "other", channels.FCM, nil)
	phone := func(d *devices.Device) { d.InstallationID = "phone" }
	d := k.device("alice", "old", channels.FCM, phone)
	fcm := k.channels[channels.FCM]
	release := blocked(fcm, "old", channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered", Status: 404})
	k.ends(k.post(toUser("bob")), 0, delivery.Sent, delivery.NoReason) // the credential is proven
	r := k.post(toUser("alice"))
	k.sends(fcm, 2)
	began := time.Now().UnixMilli() // times are kept in milliseconds
	require.Eventually(t, func() bool { return time.Now().UnixMilli() > began }, time.Second, time.Millisecond)
	k.device("alice", "new", channels.FCM, phone)
	release()
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	now, err := k.store.Device(k.ctx, k.tenant, d.ID)
	require.NoError(t, err)
	require.Equal(t, devices.Active, now.Status)
	sends := fcm.attempts()
	require.Equal(t, "new", sends[len(sends)-1].Address)
}

func TestAWebhookIsTheSameOnEveryAttempt(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	e := k.endpoint(func(e *webhooks.Endpoint) { e.EventTypes = []string{"order.shipped"} })
	hook := k.channels[channels.Webhook]
	var (
		mu    sync.Mutex
		times []time.Time
	)
	hook.prepared = func(m channels.Message) {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, m.CreatedAt)
	}
	hook.answer(func(_ context.Context, _ channels.Credential, _ channels.Target, l channels.Life) channels.Result {
		if l.Attempt == 1 {
			return channels.Result{Outcome: channels.Retry, Code: "webhook.status", Status: 500}
		}
		return accepted()
	})
	r := k.post(delivery.Request{Type: "order.shipped", Data: json.RawMessage(`{}`)})
	require.Equal(t, e.ID, r.Deliveries[0].Target)
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, times, 2, "once when accepted, once when claimed again")
	require.True(t, times[0].Equal(times[1]), "%v %v", times[0], times[1])
}

func TestAnEndpointThatIsGoneIsDisabled(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	e := k.endpoint(nil)
	k.channels[channels.Webhook].answer(always(channels.Result{Outcome: channels.Gone, Code: "webhook.gone", Status: 410}))
	r := k.post(delivery.Request{To: delivery.To{Endpoints: []ids.ID{e.ID}}, Title: "x"})
	k.ends(r, 0, delivery.Dropped, delivery.Gone)
	got, err := k.store.Endpoint(k.ctx, k.tenant, e.ID)
	require.NoError(t, err)
	require.Equal(t, webhooks.Disabled, got.Status)
	require.Eventually(t, func() bool {
		r := k.post(delivery.Request{To: delivery.To{Endpoints: []ids.ID{e.ID}}, Title: "x"})
		v := k.until(r.Notification, e.ID, "to end or wait", func(v delivery.View) bool { return v.State != delivery.Sending && v.State != delivery.Pending })
		return v.State == delivery.Held
	}, 10*time.Second, 10*time.Millisecond)
	k.sound()
}
