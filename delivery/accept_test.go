package delivery_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
)

// TestAnAcceptThatMeetsTheStopLosesNothing: whatever was answered with success
// is in the database, unspent or sent, and none is left leased.
func TestAnAcceptThatMeetsTheStopLosesNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	var (
		mu       sync.Mutex
		accepted []delivery.Receipt
		wg       sync.WaitGroup
		some     = make(chan struct{})
		once     sync.Once
	)
	for range 8 {
		wg.Go(func() {
			for {
				var got delivery.Receipt
				_, err := k.engine.Accept(k.ctx, delivery.Submission{Tenant: k.tenant, Requests: []delivery.Request{toUser("alice")},
					Render: func(rs []delivery.Receipt) (int, []byte, error) { got = rs[0]; return 202, nil, nil }})
				if err != nil {
					if problem.CodeOf(err) != problem.Unavailable {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				accepted = append(accepted, got)
				if len(accepted) > 50 {
					once.Do(func() { close(some) })
				}
				mu.Unlock()
			}
		})
	}
	<-some
	require.NoError(t, k.engine.Stop(k.ctx))
	wg.Wait()
	states := map[delivery.State]int{}
	for _, r := range accepted {
		v, err := k.store.Delivery(k.ctx, k.tenant, r.Notification, r.Deliveries[0].Target)
		require.NoError(t, err)
		states[v.State]++
	}
	require.Equal(t, len(accepted), states[delivery.Sent]+states[delivery.Pending], "%v", states)
}
