package delivery

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// TestTheLoadShowsWorkersThatHang: and how long others wait behind them.
func TestTheLoadShowsWorkersThatHang(t *testing.T) {
	t.Parallel()
	atDesk(t, 32, 1000, func(t *testing.T, k *desk) {
		load := func() [LanesCount]Load {
			k.dispatcher.mu.Lock()
			defer k.dispatcher.mu.Unlock()
			return k.dispatcher.queue.load(in(3 * time.Minute))
		}
		require.Equal(t, [LanesCount]Load{{Limit: 32}, {Limit: 30}, {Limit: 30}}, load())
		for flow := range ids.ID(2) {
			items, keys := itemsOf(1, Regular, flow+1, channels.FCM, 20)
			for _, it := range items {
				it.Claim = int64(ids.Before(in(time.Duration(flow+1) * time.Minute)))
			}
			require.True(t, k.promise(Regular, 1, len(items)))
			require.Empty(t, k.push(Regular, items, keys, true))
			synctest.Wait()
		}
		require.Equal(t, Load{Busy: 30, Limit: 30, Queued: 10, Longest: time.Minute}, load()[Regular])
		require.Zero(t, load()[Urgent].Busy)
		k.ends(Regular, 40, true)
		require.Equal(t, Load{Limit: 30}, load()[Regular])
	})
}
