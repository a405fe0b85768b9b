package delivery_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// TestReceiversThatHangStopNobody: one tenant's endpoints never answer, and have more to
// get than there are workers and room in memory. What others send, urgent or not, goes on.
func TestReceiversThatHangStopNobody(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers, o.LaneSize = 32, 200 })
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	k.channels[channels.Webhook].answer(func(ctx context.Context, _ channels.Credential, _ channels.Target, _ channels.Life) channels.Result {
		select {
		case <-over:
			return accepted()
		case <-ctx.Done():
			return channels.FromTransport(ctx, ctx.Err(), true)
		}
	})
	for n := range 60 {
		k.endpoint(func(e *webhooks.Endpoint) {
			e.URL = fmt.Sprintf("https://hooks-%d.example.com/in", n)
			if n < 50 {
				e.EventTypes = []string{"order.paid"}
			}
		})
	}
	for range 20 {
		k.post(delivery.Request{Type: "login.code", Title: "hello", Urgent: true})
		k.post(delivery.Request{Type: "order.paid", Title: "hello"})
	}
	k.sends(k.channels[channels.Webhook], 32)

	other := *k
	other.tenant = k.ids.Next()
	require.NoError(t, k.store.CreateTenant(k.ctx, tenants.Tenant{ID: other.tenant, Name: "other", CreatedAt: time.Now()}, tenants.Change{Actor: "test", Action: "tenant.create"}))
	other.credential(channels.FCM, "")
	other.device("alice", "a", channels.FCM, nil)
	for n := range 50 {
		r := toUser("alice")
		r.Urgent = n%5 == 0
		other.ends(other.post(r), 0, delivery.Sent, delivery.NoReason)
	}
}

// TestWhoWasFullGoesOn: what found no room in memory follows as soon as there is some,
// and does not wait until somebody looks again.
func TestWhoWasFullGoesOn(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers, o.LaneSize, o.Poll = 4, 20, time.Hour })
	k.credential(channels.FCM, "")
	users := make([]string, 200)
	for n := range users {
		users[n] = fmt.Sprint("user-", n)
		k.device(users[n], users[n], channels.FCM, nil)
	}
	r := k.post(toUser(users...))
	for n := range r.Deliveries {
		k.ends(r, n, delivery.Sent, delivery.NoReason)
	}
}
