package delivery_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// TestAnErasureStopsWhatIsInHand: what is on the wire ends without a trace, and
// what waits behind it is not sent.
func TestAnErasureStopsWhatIsInHand(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, func(o *delivery.Options) { o.Workers = 1 })
	k.credential(channels.FCM, "")
	d := k.device("alice", "token", channels.FCM, nil)
	began, answer := make(chan struct{}), make(chan struct{})
	var sends atomic.Int32
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		if sends.Add(1) == 1 {
			close(began)
			<-answer
		}
		return channels.Result{Outcome: channels.Accepted, Code: "ok", Status: 200, ProviderID: "projects/p/messages/1"}
	})
	first := k.post(toUser("alice"))
	<-began
	second := k.post(toUser("alice"))
	e, err := k.engine.EraseUser(k.ctx, k.tenant, "alice", "key_1")
	require.NoError(t, err)
	close(answer)
	for _, n := range []delivery.Receipt{first, second} {
		v := k.until(n.Notification, d.ID, "to be dropped", func(v delivery.View) bool { return v.State == delivery.Dropped && v.User == "" })
		require.Equal(t, delivery.Erased, v.Reason)
		require.Empty(t, v.Last.ProviderID)
		eventually(t, "the content is gone", func() bool {
			_, err := k.store.Content(k.ctx, k.tenant, n.Notification)
			return err != nil && problem.CodeOf(err) == problem.NotFound
		})
	}
	clock.advance(delivery.EraseGrace)
	eventually(t, "the receipt is complete", func() bool {
		got, err := k.store.Erasure(k.ctx, k.tenant, e.ID)
		return err == nil && !got.FinishedAt.IsZero()
	})
	require.EqualValues(t, 1, sends.Load())

	_, err = k.engine.EraseUser(k.ctx, k.tenant, "a\x00", "key_1")
	require.Equal(t, problem.Invalid, problem.CodeOf(err))
}

// TestNothingOfADeletedTenantIsSent: the engine stops at once and the rest is
// removed, while others go on.
func TestNothingOfADeletedTenantIsSent(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	e := k.endpoint(nil)
	later := toUser("alice")
	later.SendAt = clock.now().Add(30 * time.Second) // pending
	k.post(later)
	later.To = delivery.To{Users: []string{"alice"}}
	later.SendAt = clock.now().Add(time.Hour) // resolved when it is due
	k.post(later)
	hook := delivery.Request{To: delivery.To{Endpoints: []ids.ID{e.ID}}, Type: "order.shipped", Title: "Hello", SendAt: clock.now().Add(30 * time.Second)}
	k.post(hook)
	var sends atomic.Int32
	for _, c := range k.channels {
		c.answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
			sends.Add(1)
			return accepted()
		})
	}

	gone := k.tenant
	deleted, err := k.store.DeleteTenant(k.ctx, gone, tenants.Change{Actor: "cli", Action: "tenant.delete"})
	require.NoError(t, err)
	require.True(t, deleted.Deleting())
	k.engine.CredentialsChanged(gone)
	require.Equal(t, problem.Conflict, k.refused(toUser("alice")).Code)
	clock.advance(2 * time.Hour)
	eventually(t, "the tenant is gone", func() bool {
		_, err := k.store.Tenant(k.ctx, gone)
		return problem.CodeOf(err) == problem.NotFound
	})
	require.Zero(t, sends.Load())
	eventually(t, "the claim loop has come round since", func() bool { return k.engine.Ready() == nil })

	k.tenant = k.ids.Next()
	require.NoError(t, k.store.CreateTenant(k.ctx, tenants.Tenant{ID: k.tenant, Name: "acme"}, tenants.Change{Actor: "test", Action: "tenant.create"}))
	k.credential(channels.FCM, "")
	d := k.device("alice", "token", channels.FCM, nil)
	r := k.post(toUser("alice"))
	k.until(r.Notification, d.ID, "to be sent", func(v delivery.View) bool { return v.State == delivery.Sent })
}
