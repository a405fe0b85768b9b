package delivery_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// many registers so many phones of a user.
func (k *kit) many(user string, n int) (list []ids.ID) {
	k.t.Helper()
	for i := range n {
		list = append(list, k.device(user, fmt.Sprint(user, "-phone-", i), channels.FCM, nil).ID)
	}
	return list
}

// whole waits until all of a fan-out is stored, and finished: as long as it goes on.
func (k *kit) whole(ntf ids.ID) delivery.NotificationView {
	k.t.Helper()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	sent, give := -1, time.Time{}
	for ; ; <-poll.C {
		v, err := k.store.Notification(k.ctx, k.tenant, ntf)
		require.NoError(k.t, err)
		if !v.FansOut && v.Counts[delivery.Pending]+v.Counts[delivery.Sending] == 0 {
			return v
		}
		if n := v.Counts[delivery.Sent]; n != sent {
			sent, give = n, time.Now().Add(20*time.Second)
		}
		require.True(k.t, time.Now().Before(give), "nothing goes on: %v", v.Counts)
	}
}

// TestWhatLeadsToManyIsFannedOut: each target gets one, whatever names it, and in however
// many parts.
func TestWhatLeadsToManyIsFannedOut(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	fcm := k.channels[channels.FCM]
	kiosks := k.many("kiosk", delivery.MaxTargets+2) // more than a part
	k.many("alice", 2)
	k.many("bob", 1)
	lone := k.many("carol", 2)[1]
	r := toUser("alice", "nobody", "kiosk", "bob", "alice")
	r.To.Devices = []ids.ID{kiosks[1000], lone, 12345}
	got := k.post(r)
	require.True(t, got.FansOut)
	require.Empty(t, got.Deliveries)
	v := k.whole(got.Notification)
	require.Equal(t, map[delivery.State]int{delivery.Sent: len(kiosks) + 4}, v.Counts)
	require.ElementsMatch(t, []delivery.Skip{{User: "nobody", Reason: delivery.SkipUnknownUser}, {Target: 12345, Reason: delivery.SkipUnknownTarget}}, v.Skips)
	seen := map[string]bool{}
	for _, s := range fcm.attempts() {
		require.False(t, seen[s.Address], s.Address)
		seen[s.Address] = true
	}
	require.Len(t, seen, len(kiosks)+4)
	preview, err := k.engine.DryRun(k.ctx, k.tenant, r)
	require.NoError(t, err)
	require.True(t, preview.FansOut)
	require.NotEmpty(t, preview.Deliveries)
	require.LessOrEqual(t, len(preview.Deliveries), delivery.MaxTargets)
	r.Urgent = true
	require.Equal(t, "urgent", k.refused(r).Fields[0].Path)
	k.sound()
}

// TestAFanOutWaitsForItsTenantsPart: the rest comes when there is room again.
func TestAFanOutWaitsForItsTenantsPart(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	clock.advance(time.Hour) // ids are made by the machine's clock
	k := newKitAt(t, clock.now, func(o *delivery.Options) { o.MaxBacklog, o.LaneSize = 100, 64 })
	k.credential(channels.FCM, "")
	k.many("alice", 510)
	k.many("bob", 510)
	s := &delays{Store: k.store, delayed: make(chan struct{}, 1)}
	k.restart(s)
	fcm := k.channels[channels.FCM]
	release := make(chan struct{})
	fcm.answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		<-release
		return accepted()
	})
	got := k.post(toUser("alice", "bob"))
	require.True(t, got.FansOut)
	counted := func() int {
		v, err := k.store.Notification(k.ctx, k.tenant, got.Notification)
		require.NoError(t, err)
		n := 0
		for _, of := range v.Counts {
			n += of
		}
		return n
	}
	eventually(t, "the first part to be stored", func() bool { return counted() == 510 })
	<-s.delayed
	require.Equal(t, 510, counted())
	close(release)
	eventually(t, "the second to follow", func() bool { clock.advance(50 * time.Millisecond); return counted() == 1020 })
	eventually(t, "all to be sent", func() bool {
		clock.advance(50 * time.Millisecond)
		v, err := k.store.Notification(k.ctx, k.tenant, got.Notification)
		return err == nil && v.Counts[delivery.Sent] == 1020 && !v.FansOut
	})
	k.sound()
}

// restart begins anew with another store.
func (k *kit) restart(s delivery.Store) {
	k.t.Helper()
	require.NoError(k.t, k.engine.Stop(k.ctx))
	o := k.opts
	o.Store, o.Now = s, k.clock
	k.engine = delivery.New(o)
	require.NoError(k.t, k.engine.Start(k.ctx))
}

// delays tells when a fan-out is put off.
type delays struct {
	delivery.Store
	delayed chan struct{}
}

func (s *delays) DelayScheduled(ctx context.Context, m delivery.Scheduled, until time.Time) error {
	err := s.Store.DelayScheduled(ctx, m, until)
	select {
	case s.delayed <- struct{}{}:
	default:
	}
	return err
}

// slowLookups are answered when the test says so, once they are slow.
type slowLookups struct {
	delivery.Store
	slow  atomic.Bool
	asked chan struct{}
	goOn  chan struct{}
}

func (s *slowLookups) Resolve(ctx context.Context, tenant ids.ID, l delivery.Lookup) (delivery.Resolution, error) {
	if s.slow.Load() {
		s.asked <- struct{}{}
		<-s.goOn
		s.slow.Store(false)
	}
	return s.Store.Resolve(ctx, tenant, l)
}

// TestLookingUpTargetsHoldsUpNobody: what is due goes on meanwhile.
func TestLookingUpTargetsHoldsUpNobody(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, nil)
	s := &slowLookups{Store: k.store, asked: make(chan struct{}, 1), goOn: make(chan struct{})}
	k.restart(s)
	k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	k.device("bob", "phone-of-bob", channels.FCM, nil)
	later := toUser("alice")
	later.SendAt = clock.now().Add(time.Hour)
	scheduled := k.post(later)
	require.True(t, scheduled.Scheduled)
	fcm := k.channels[channels.FCM]
	fcm.answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		return channels.Result{Outcome: channels.Retry, Code: "busy"}
	})
	retried := k.post(toUser("bob"))
	k.sends(fcm, 1)
	fcm.answer(nil)
	s.slow.Store(true)
	clock.advance(time.Hour)
	<-s.asked
	k.ends(retried, 0, delivery.Sent, delivery.NoReason)
	close(s.goOn)
	k.whole(scheduled.Notification)
}
