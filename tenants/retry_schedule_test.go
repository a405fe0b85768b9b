package tenants_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/tenants"
)

func TestSchedules(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"default", "six-step", "standard-webhooks", "fast"}, tenants.Presets())
	sum := func(s tenants.Schedule) (total time.Duration) {
		for _, d := range s.Delays {
			total += d
		}
		return total
	}
	none := tenants.Settings{}
	for kind, want := range map[channels.Kind]time.Duration{
		channels.FCM: 38*time.Minute + 40*time.Second, channels.APNs: 51*time.Minute + 10*time.Second,
		channels.WebPush: 2*time.Hour + 36*time.Minute + 10*time.Second, channels.Webhook: 32*time.Hour + 36*time.Minute,
	} {
		require.Equal(t, want, sum(none.Schedule(kind)), kind.String())
		require.InDelta(t, 0.2, none.Schedule(kind).Jitter, 0)
		require.Nil(t, none.Schedule(kind).Floor)
	}
	chosen := tenants.Settings{Retry: map[channels.Kind]tenants.RetryPolicy{
		channels.FCM:     {Preset: "standard-webhooks"},
		channels.APNs:    {Jitter: new(0.0), Floor: new(int64(50))},
		channels.Webhook: {Delays: []int64{10, 20}},
	}}
	require.Equal(t, 75*time.Hour+35*time.Minute+5*time.Second, sum(chosen.Schedule(channels.FCM)))
	require.Equal(t, []time.Duration{10 * time.Millisecond, 20 * time.Millisecond}, chosen.Schedule(channels.Webhook).Delays)
	require.Equal(t, none.Schedule(channels.APNs).Delays, chosen.Schedule(channels.APNs).Delays)
	require.Equal(t, new(50*time.Millisecond), chosen.Schedule(channels.APNs).Floor)
	require.Zero(t, chosen.Schedule(channels.APNs).Jitter)
}
