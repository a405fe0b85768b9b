package delivery

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

func TestKeysOfFlows(t *testing.T) {
	t.Parallel()
	for name, x := range map[string]struct {
		row  Row
		addr string
		want flowKey
	}{
		"webhook": {Row{Channel: channels.Webhook, Target: 5, Credential: 9}, "https://e.example/x", flowKey{id: 5}},
		"fcm":     {Row{Channel: channels.FCM, Target: 5, Credential: 9}, "token", flowKey{id: 9}},
		"push":    {Row{Channel: channels.WebPush, Target: 5, Credential: 9}, "https://p.example/x/y", flowKey{id: 9, origin: "https://p.example"}},
	} {
		it := newInflight(x.row, false, TargetNow{Target: channels.Target{Address: x.addr}}, at)
		require.Equal(t, x.want, flowOf(it), name)
	}
	require.Equal(t, "https://p.example:8443", originOf("https://p.example:8443"))
	require.Empty(t, originOf("token"))
	it := newInflight(Row{}, false, TargetNow{}, at.Add(time.Minute))
	require.Equal(t, time.Minute, it.leaseLeft(at))
}
