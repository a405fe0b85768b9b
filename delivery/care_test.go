package delivery_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// faulty is a store whose look-ups fail while broken is set.
type faulty struct {
	delivery.Store
	broken atomic.Bool
	failed chan struct{}
}

func (f *faulty) Resolve(ctx context.Context, tenant ids.ID, to delivery.To, subscribers bool) (delivery.Resolution, error) {
	if f.broken.Load() {
		select {
		case f.failed <- struct{}{}:
		default:
		}
		return delivery.Resolution{}, errors.New("disk on fire")
	}
	return f.Store.Resolve(ctx, tenant, to, subscribers)
}

// TestAScheduledNotificationOutlivesTrouble: when its targets cannot be looked
// up, its marker stays until they can.
func TestAScheduledNotificationOutlivesTrouble(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	clock.Store(time.Now().UnixMilli())
	k := newKit(t, func(o *delivery.Options) { o.Now = func() time.Time { return time.UnixMilli(clock.Load()) } })
	require.NoError(t, k.engine.Stop(k.ctx))
	f := &faulty{Store: k.store, failed: make(chan struct{}, 1)}
	o := k.opts
	o.Store = f
	k.engine = delivery.New(o)
	require.NoError(t, k.engine.Start(k.ctx))
	k.credential(channels.FCM, "")
	d := k.device("alice", "token", channels.FCM, nil)
	r := toUser("alice")
	r.SendAt = time.UnixMilli(clock.Load()).Add(time.Hour)
	got := k.post(r)
	require.True(t, got.Scheduled)

	f.broken.Store(true)
	clock.Add(time.Hour.Milliseconds())
	<-f.failed
	view, err := k.store.Notification(k.ctx, k.tenant, got.Notification)
	require.NoError(t, err)
	require.True(t, view.Scheduled)
	f.broken.Store(false)
	clock.Add(time.Minute.Milliseconds()) // the marker was this node's for a while
	k.until(got.Notification, d.ID, "to be sent", func(v delivery.View) bool { return v.State == delivery.Sent })
}

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
