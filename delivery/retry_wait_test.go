package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/tenants"
)

func TestJitterKeepsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		_, _, p, _, jitter := anything(t)
		spent := rapid.IntRange(0, len(p.Delays)+1).Draw(t, "spent")
		wait, ok := p.wait(spent, jitter)
		require.Equal(t, spent >= 1 && spent <= len(p.Delays), ok)
		if ok {
			d := float64(p.Delays[spent-1])
			require.InDelta(t, d, float64(wait), d*p.Jitter+1)
		}
	})
}

func TestPolicyOfATenant(t *testing.T) {
	t.Parallel()
	floor := int64(500)
	s := tenants.Settings{Retry: map[channels.Kind]tenants.RetryPolicy{channels.FCM: {Delays: []int64{1000}, Floor: &floor}}}
	p := PolicyOf(channels.FCM, s)
	require.Equal(t, []time.Duration{time.Second}, p.Delays)
	require.Equal(t, 500*time.Millisecond, *p.Floor)
	for _, k := range channels.Kinds() { // the defaults fit into the default life
		total := time.Duration(0)
		for _, d := range PolicyOf(k, tenants.Settings{}).Delays {
			total += d
		}
		require.Less(t, total, DefaultTTL(k))
	}
}

func TestTTLOf(t *testing.T) {
	t.Parallel()
	asked := func(s int64) *int64 { return &s }
	own := tenants.Settings{TTL: map[channels.Kind]int64{channels.FCM: 60}}
	const day = 24 * time.Hour
	for name, x := range map[string]struct {
		k     channels.Kind
		asked *int64
		s     tenants.Settings
		want  time.Duration
	}{
		"push":          {channels.APNs, nil, own, day},
		"webhook":       {channels.Webhook, nil, own, 3 * day},
		"the tenant's":  {channels.FCM, nil, own, time.Minute},
		"asked for":     {channels.FCM, asked(5), own, 5 * time.Second},
		"now or never":  {channels.FCM, asked(0), own, 0},
		"more than can": {channels.WebPush, asked(30 * 86400), own, 28 * day},
		"a webhook can": {channels.Webhook, asked(30 * 86400), own, 30 * day},
	} {
		require.Equal(t, x.want, ttlOf(x.k, x.asked, x.s), name)
	}
	require.Equal(t, 999*time.Millisecond, life(0), "less than a second is told to the provider as 0")
	require.Equal(t, time.Second, life(time.Second))
}
