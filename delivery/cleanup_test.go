package delivery_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/webhooks"
)

// TestCleanupComesRound: secrets and devices whose time is over go without anybody
// asking.
func TestCleanupComesRound(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, func(o *delivery.Options) { o.CleanupEvery, o.StaleAfter = 5*time.Millisecond, 60*24*time.Hour })
	key := make([]byte, 32)
	e := k.endpoint(func(e *webhooks.Endpoint) {
		e.Secrets = []webhooks.Secret{{Key: key}, {Key: key, ExpiresAt: clock.now().Add(time.Hour)}}
	})
	d := k.device("alice", "token", channels.FCM, nil)
	clock.advance(61 * 24 * time.Hour)
	eventually(t, "the secret is removed", func() bool {
		got, err := k.store.Endpoint(k.ctx, k.tenant, e.ID)
		return err == nil && len(got.Secrets) == 1
	})
	eventually(t, "the device is retired", func() bool {
		got, err := k.store.Device(k.ctx, k.tenant, d.ID)
		return err == nil && got.Status == devices.Retired && got.Reason == "stale"
	})
}

// TestTheSizeIsNoted: at the start, so that a server that is often restarted does so too,
// and once in a while.
func TestTheSizeIsNoted(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, func(o *delivery.Options) { o.CleanupEvery = 5 * time.Millisecond })
	noted := func() time.Time {
		facts, err := registers.Facts(k.ctx, k.store.Reads())
		require.NoError(t, err)
		return facts[registers.FactSizes].At
	}
	eventually(t, "a first note", func() bool { return !noted().IsZero() })
	clock.advance(time.Hour)
	eventually(t, "the next", func() bool { return !noted().Before(clock.now().Truncate(time.Millisecond)) })
}
