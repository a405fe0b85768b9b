package delivery_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/webhooks"
)

// waits tells that a delivery is pending and was never attempted.
func (k *kit) waits(r delivery.Receipt, n int) {
	k.t.Helper()
	v, err := k.store.Delivery(k.ctx, k.tenant, r.Notification, r.Deliveries[n].Target)
	require.NoError(k.t, err)
	require.Equal(k.t, delivery.Pending, v.State)
	require.Empty(k.t, v.Attempts)
}

// rounds waits until the claim loop has come round twice, so that whatever it
// would have claimed is claimed.
func (k *kit) rounds() {
	k.t.Helper()
	for range 2 {
		last := k.engine.ClaimBeat()
		require.Eventually(k.t, func() bool { return k.engine.ClaimBeat().After(last) }, 20*time.Second, time.Millisecond)
	}
}

func TestNothingIsSentWhilePaused(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	k.endpoint(func(e *webhooks.Endpoint) { e.User = "alice" })
	p, err := k.engine.PauseSending(k.ctx, "the provider asked us to", "key_1")
	require.NoError(t, err)
	require.True(t, p.On())
	require.Equal(t, "the provider asked us to", p.Reason)
	require.Equal(t, "key_1", p.Actor)

	r := k.post(toUser("alice"))
	require.Len(t, r.Deliveries, 2)
	soon := toUser("alice")
	soon.SendAt = time.Now().Add(50 * time.Millisecond)
	later := k.post(soon)
	k.rounds()
	require.NoError(t, k.engine.Ready(), "a pause is no reason to send requests elsewhere")
	for n := range 2 {
		k.waits(r, n)
		k.waits(later, n)
	}
	k.sound()
	require.Empty(t, k.channels[channels.FCM].attempts())
	require.Empty(t, k.channels[channels.Webhook].attempts())

	p, err = k.engine.ResumeSending(k.ctx, "key_1")
	require.NoError(t, err)
	require.False(t, p.On())
	for n := range 2 {
		k.ends(r, n, delivery.Sent, delivery.NoReason)
		k.ends(later, n, delivery.Sent, delivery.NoReason)
	}
	require.Len(t, k.channels[channels.FCM].attempts(), 2, "each once")
}

// TestAnotherProcessPauses: what is in the queue of a node goes back unspent when
// it sees the pause.
func TestAnotherProcessPauses(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.Workers = 1 })
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	free := make(chan struct{})
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		<-free
		return accepted()
	})
	first := k.post(toUser("alice"))
	<-k.channels[channels.FCM].news
	second := k.post(toUser("alice"))
	k.until(second.Notification, second.Deliveries[0].Target, "leased", func(v delivery.View) bool { return v.State == delivery.Sending })

	require.NoError(t, k.store.PauseSending(k.ctx, "", "cli"))
	require.Eventually(t, func() bool { return k.engine.Sending().On() }, 20*time.Second, time.Millisecond)
	close(free)
	k.ends(first, 0, delivery.Sent, delivery.NoReason)
	v := k.until(second.Notification, second.Deliveries[0].Target, "pending", func(v delivery.View) bool { return v.State == delivery.Pending })
	require.Zero(t, v.Spent)
	require.Len(t, k.channels[channels.FCM].attempts(), 1)

	require.NoError(t, k.store.ResumeSending(k.ctx, "cli"))
	v = k.ends(second, 0, delivery.Sent, delivery.NoReason)
	require.Len(t, v.Attempts, 1)
	k.sound()
}

// lines is a log that tests read.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// TestAPauseIsThereBeforeTheFirstClaim, and the log says so at the start and again.
func TestAPauseIsThereBeforeTheFirstClaim(t *testing.T) {
	t.Parallel()
	log := &lines{}
	var (
		mu     sync.Mutex
		offset time.Duration
	)
	k := newKit(t, func(o *delivery.Options) {
		o.Log = slog.New(slog.NewTextHandler(log, nil))
		o.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(offset) }
	})
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	_, err := k.engine.PauseSending(k.ctx, "moved", "cli")
	require.NoError(t, err)
	r := k.post(toUser("alice"))
	k.close()
	before := log.count("sending is paused")
	k.open()
	require.Equal(t, before+1, log.count("sending is paused"), "said at the start")
	k.rounds()
	k.waits(r, 0)
	mu.Lock()
	offset = time.Minute
	mu.Unlock()
	require.Eventually(t, func() bool { return log.count("sending is paused") > before+1 }, 20*time.Second, time.Millisecond, "and after a minute")
	require.NoError(t, k.store.ResumeSending(k.ctx, "cli"))
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, 1, log.count("sending is resumed"))
}
