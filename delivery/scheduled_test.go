package delivery_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// faulty is a store whose look-ups fail while broken is set.
type faulty struct {
	delivery.Store
	broken atomic.Bool
	failed chan struct{}
}

func (f *faulty) Resolve(ctx context.Context, tenant ids.ID, l delivery.Lookup) (delivery.Resolution, error) {
	if f.broken.Load() {
		select {
		case f.failed <- struct{}{}:
		default:
		}
		return delivery.Resolution{}, errors.New("disk on fire")
	}
	return f.Store.Resolve(ctx, tenant, l)
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
	require.True(t, view.Scheduled || view.FansOut)
	f.broken.Store(false)
	clock.Add(time.Minute.Milliseconds()) // the marker was this node's for a while
	k.until(got.Notification, d.ID, "to be sent", func(v delivery.View) bool { return v.State == delivery.Sent })
}

func TestAMarkerThatIsUnfoldedLateKeepsItsDeadline(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	k := newKit(t, func(o *delivery.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	k.credential(channels.FCM, "")
	d := k.device("alice", "phone", channels.FCM, nil)
	req := toUser("alice")
	ttl := int64(60)
	req.TTL, req.SendAt = &ttl, time.Now().Add(2*time.Minute)
	r := k.post(req)
	require.True(t, r.Scheduled)
	ahead.Store(int64(3 * time.Hour)) // the server was down meanwhile
	v := k.until(r.Notification, d.ID, "to end", func(v delivery.View) bool { return !v.State.Unfinished() })
	require.Equal(t, delivery.Expired, v.Reason)
	require.Empty(t, k.channels[channels.FCM].attempts())
}
