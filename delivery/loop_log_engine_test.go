package delivery_test

import (
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
)

// TestAStopIsNoTrouble: what a change of a tenant would have read anew is read after the
// next start.
func TestAStopIsNoTrouble(t *testing.T) {
	t.Parallel()
	log := &lines{}
	k := newKit(t, func(o *delivery.Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	k.credential(channels.FCM, "")
	k.device("alice", "token-1", channels.FCM, nil)
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	require.NoError(t, k.engine.Stop(k.ctx))
	k.engine.CredentialsChanged(k.tenant)
	require.Zero(t, log.count("level=WARN"))
	require.Zero(t, log.count("level=ERROR"))
}
