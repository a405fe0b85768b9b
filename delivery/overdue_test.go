package delivery_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// stuck makes sends to an address wait until release is called, whatever their context
// says, which no channel should do.
func stuck(c *fakeChannel, address string) (release func()) {
	gate := make(chan struct{})
	c.answer(func(_ context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		if t.Address == address {
			<-gate
		}
		return accepted()
	})
	return sync.OnceFunc(func() { close(gate) })
}

func gauge(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	require.Fail(t, "no such metric", name)
	return 0
}

func TestASendThatDoesNotEndIsReported(t *testing.T) {
	t.Parallel()
	clock, log, registry := newHandClock(), &lines{}, prometheus.NewRegistry()
	k := newKitAt(t, clock.now, func(o *delivery.Options) {
		o.Workers, o.SendTimeout, o.Beat, o.Lease = 2, time.Second, time.Millisecond, time.Hour
		o.Log, o.Metrics = slog.New(slog.NewTextHandler(log, nil)), registry
	})
	k.credential(channels.FCM, "")
	fcm := k.channels[channels.FCM]
	release := stuck(fcm, "secret-address")
	t.Cleanup(release)
	k.device("alice", "secret-address", channels.FCM, nil)
	k.device("bob", "other", channels.FCM, nil)
	r := k.post(toUser("alice"))
	k.sends(fcm, 1)
	require.Zero(t, k.engine.Overdue())
	clock.advance(5 * time.Second) // its time is over, and the channel is still given some
	k.ends(k.post(toUser("bob")), 0, delivery.Sent, delivery.NoReason)
	require.Zero(t, k.engine.Overdue())

	clock.advance(7 * time.Second)
	eventually(t, "it is seen", func() bool { return k.engine.Overdue() == 1 })
	require.NoError(t, k.engine.Ready(), "there are other workers")
	k.ends(k.post(toUser("bob")), 0, delivery.Sent, delivery.NoReason)
	require.InDelta(t, 1, gauge(t, registry, "carillon_overdue_sends"), 0)
	require.Equal(t, 1, log.count("a send does not end"), "it is said once")
	require.Equal(t, 1, log.count("tenant.name=acme tenant.id="+k.tenant.Format(ids.Tenant)+" delivery="+ids.FormatDelivery(r.Notification, r.Deliveries[0].Target)+" channel=fcm"))
	require.Zero(t, log.count("secret-address"))

	k.post(toUser("alice")) // keeps the other worker
	k.sends(fcm, 4)
	clock.advance(12 * time.Second)
	eventually(t, "that no worker is left", func() bool { return k.engine.Ready() != nil })
	require.ErrorContains(t, k.engine.Ready(), "2 sends do not end")

	release()
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	eventually(t, "they have ended", func() bool { return k.engine.Overdue() == 0 })
	require.NoError(t, k.engine.Ready())
}

// A send that hangs keeps no server from ending: it is left behind, and the next start
// takes it over.
func TestStopLeavesBehindWhatDoesNotEnd(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.GiveUp = 10 * time.Millisecond })
	k.credential(channels.FCM, "")
	fcm := k.channels[channels.FCM]
	release := stuck(fcm, "hangs")
	t.Cleanup(release)
	k.device("alice", "hangs", channels.FCM, nil)
	r := k.post(toUser("alice"))
	k.sends(fcm, 1)

	over, cancel := context.WithCancel(k.ctx)
	cancel()
	require.ErrorContains(t, k.engine.Stop(over), "1 deliveries were still in hand")
	k.close()
	fcm.answer(always(accepted()))
	k.open()
	v := k.ends(r, 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, 1, v.Takeovers)
}
