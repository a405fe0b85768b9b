package delivery_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
)

func TestDryRunStoresNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.device("alice", "token", channels.FCM, nil)
	p, err := k.engine.DryRun(k.ctx, k.tenant, toUser("alice", "ghost"))
	require.NoError(t, err)
	require.Len(t, p.Deliveries, 1)
	require.Len(t, p.Skips, 1)
	require.Len(t, p.Payloads, 1)
	require.Contains(t, string(p.Payloads[0].Payload), "dlv_")
	list, err := k.store.Deliveries(k.ctx, k.tenant, delivery.Query{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, list)
}
