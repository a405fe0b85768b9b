package delivery

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

type weightyPayload string

func (p weightyPayload) Size() int                      { return len(p) }
func (p weightyPayload) Preview(string) json.RawMessage { return nil }

// Thousands of deliveries that wait for their turn do not fill the memory: what is larger
// than a push is read again when the turn comes.
func TestWhatWaitsHoldsNoLargePayload(t *testing.T) {
	t.Parallel()
	p := newPayloads(nil, nil)
	small := weightyPayload(strings.Repeat("x", heldPayload))
	require.Equal(t, small, p.hold(1, channels.FCM, small))
	large := weightyPayload(strings.Repeat("x", 256<<10))
	for i := range ids.ID(1000) {
		require.Nil(t, p.hold(i, channels.Webhook, large))
	}
	require.LessOrEqual(t, p.prepared.weight, maxPayloadBytes)
	got, unmappable, err := p.get(t.Context(), &inflight{Row: Row{Notification: 999, Channel: channels.Webhook}})
	require.NoError(t, err)
	require.False(t, unmappable)
	require.Equal(t, large, got, "the newest are still known")
}
