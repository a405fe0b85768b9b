package delivery_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store"
)

// rounds counts how often an engine looks for what is due.
type rounds struct {
	*store.Store
	n *atomic.Int64
}

func (s rounds) DueScheduled(ctx context.Context, now time.Time, limit int) ([]delivery.Scheduled, error) {
	s.n.Add(1)
	return s.Store.DueScheduled(ctx, now, limit)
}

// TestAfterACrashFewAreClaimedFirst, and all within seconds if the process lives on.
func TestAfterACrashFewAreClaimedFirst(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, func(o *delivery.Options) { o.Role = delivery.RoleAPI })
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	all := make([]delivery.Receipt, 100)
	for i := range all {
		all[i] = k.post(toUser("alice"))
	}
	k.close()
	var looked atomic.Int64
	k.wrap = func(s *store.Store) delivery.Store { return rounds{s, &looked} }
	k.opts.Role, k.opts.AfterCrash = delivery.RoleAll, true
	k.open()
	fcm := k.channels[channels.FCM]
	for _, sent := range []int{16, 16 + 32, 100} {
		k.sends(fcm, sent)
		before := looked.Load()
		eventually(t, "to look again", func() bool { return looked.Load() > before+2 })
		require.Len(t, fcm.attempts(), sent)
		clock.advance(time.Second)
	}
	for _, r := range all {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
}
