package delivery_test

import (
	"encoding/json"
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

func TestBatchMembersStandAlone(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	bad := toUser("alice")
	bad.Overrides = map[channels.Kind]json.RawMessage{channels.FCM: json.RawMessage(`{"unknown":1}`)}
	var got []delivery.Receipt
	_, err := k.engine.Accept(k.ctx, delivery.Submission{Tenant: k.tenant, Requests: []delivery.Request{toUser("alice"), bad, {}, toUser("nobody")}, Refused: make([]error, 4),
		Render: func(r []delivery.Receipt) (int, []byte, error) { got = r; return 202, nil, nil }})
	require.NoError(t, err)
	require.NoError(t, got[0].Err)
	require.ErrorContains(t, got[1].Err, "overrides.fcm.unknown")
	require.ErrorContains(t, got[2].Err, "to")
	require.NoError(t, got[3].Err)
	require.Equal(t, delivery.SkipUnknownUser, got[3].Skips[0].Reason)
	k.ends(got[0], 0, delivery.Sent, delivery.NoReason)
	list, err := k.store.UserNotifications(k.ctx, k.tenant, "nobody", 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 1, "a skip is found under its user")
}
