package delivery_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
)

// second starts another engine on the database, with its own store.
func (k *kit) second(change func(*delivery.Options)) (*delivery.Engine, *store.Store) {
	k.t.Helper()
	generator := ids.NewGenerator(2, time.Now)
	s, err := store.Open(k.ctx, store.Options{URL: k.url, KeyRing: k.ring, IDs: generator, Connections: 8})
	require.NoError(k.t, err)
	o := k.opts
	o.Store, o.IDs = s, generator
	if change != nil {
		change(&o)
	}
	e := delivery.New(o)
	require.NoError(k.t, e.Start(k.ctx))
	k.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(k.ctx, 10*time.Second)
		defer cancel()
		_ = e.Stop(ctx)
		_ = s.Close()
	})
	return e, s
}

// TestNoDeliveryIsInTwoSends: two engines with full lanes and a provider that
// stalls renew their leases, and never have a delivery in hand twice.
func TestNoDeliveryIsInTwoSends(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) {
		o.Workers, o.LaneSize, o.SendTimeout, o.Lease, o.Beat = 8, 20, 200*time.Millisecond, 5*time.Second, 50*time.Millisecond
	})
	var (
		mu    sync.Mutex
		under = map[string]bool{}
		tries = map[string]int{}
		twice []string
	)
	k.channels[channels.FCM].answer(func(ctx context.Context, _ channels.Credential, _ channels.Target, l channels.Life) channels.Result {
		mu.Lock()
		if under[l.Delivery] {
			twice = append(twice, l.Delivery)
		}
		under[l.Delivery] = true
		tries[l.Delivery]++
		stall := tries[l.Delivery] == 1
		mu.Unlock()
		if stall {
			<-ctx.Done()
		}
		mu.Lock()
		defer mu.Unlock()
		under[l.Delivery] = false
		if stall {
			return channels.Result{Outcome: channels.Retry, Code: "timeout", Ambiguous: true}
		}
		return accepted()
	})
	other, _ := k.second(nil)
	engines := []*delivery.Engine{k.engine, other}
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)

	var all []delivery.Receipt
	for i := range 120 {
		e := k.engine
		k.engine = engines[i%2]
		all = append(all, k.post(toUser("alice")))
		k.engine = e
	}
	for _, r := range all {
		v := k.ends(r, 0, delivery.Sent, delivery.NoReason)
		require.Zero(t, v.Takeovers)
		require.False(t, v.Unknown)
	}
	mu.Lock()
	require.Empty(t, twice)
	require.Len(t, tries, len(all))
	mu.Unlock()
	k.sound()
}

// TestANodeOfItsRole: one that only takes requests leaves the sending to a worker.
func TestANodeOfItsRole(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	front, _ := k.second(func(o *delivery.Options) {
		o.Role, o.Channels = delivery.RoleAPI, map[channels.Kind]channels.Channel{}
		for kind := range k.channels { // with which it prepares, and must not send
			f := &fakeChannel{kind: kind, news: make(chan struct{}, 1)}
			f.answer(always(channels.Result{Outcome: channels.Rejected, Code: "sent_by_the_wrong_node"}))
			o.Channels[kind] = f
		}
	})
	own := k.engine
	k.engine = front
	var all []delivery.Receipt
	for range 10 {
		all = append(all, k.post(toUser("alice")))
	}
	k.engine = own
	for _, r := range all {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	require.NoError(t, front.Ready())
}

// TestAnotherNodesCredentialCountsWithinASecond: what one node changes the others
// see without being told.
func TestAnotherNodesCredentialCountsWithinASecond(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.device("alice", "token", channels.FCM, nil)
	other, _ := k.second(nil)
	held := k.post(toUser("alice"))
	k.ends(held, 0, delivery.Held, delivery.CredentialMissing)
	own := k.engine
	k.engine = other
	v := k.credential(channels.FCM, "")
	k.engine = own
	k.ends(held, 0, delivery.Sent, delivery.NoReason)
	again := k.post(toUser("alice"))
	k.ends(again, 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, 1, v.Version, fmt.Sprint(v.ID))
}
