package db

import (
	"context"
	"time"
)

// Alive tells whether this node may begin to send: whether it has beaten so lately
// that no other node can have taken over what it has in hand.
func (n *nodes) Alive() bool {
	if !n.pools.Shared() || n.stop == nil {
		return !n.lost.Load() // alone
	}
	return silence(*n.lastBeat.Load(), time.Now()) < DeadAfter-beatEvery
}

// silence is the time since a beat, by whichever of the machine's clocks says
// more: the monotonic one stands still while the machine sleeps, the other may be
// set. Times without a monotonic reading have only the other.
func silence(beat, now time.Time) time.Duration {
	return max(now.Sub(beat), now.Round(0).Sub(beat.Round(0)))
}

// watchFile looks whether the file is still the one that was opened. The writer looks
// too; this one notices where nothing is written.
func (n *nodes) watchFile(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := n.pools.dialect.lost()
		switch was := n.lost.Swap(err != nil); {
		case err != nil && !was:
			n.pools.Log().Error("the database is lost; nothing is accepted or sent", "error", err)
		case err == nil && was:
			n.pools.Log().Info("the database is back where it was")
		}
	}
}

func (n *nodes) beatLoop(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	silent := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := n.beat(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && !silent:
			n.pools.Log().Warn("this node cannot reach the database; it sends nothing until it can", "error", err)
		case err == nil && silent:
			n.pools.Log().Info("this node reaches the database again")
		}
		silent = err != nil
	}
}

// beat says that this node lives, and looks for those that do not.
func (n *nodes) beat(ctx context.Context) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, beatWithin)
	defer cancel()
	if err := n.pools.dialect.readClock(ctx, n.pools.writes); err != nil {
		return err
	}
	now := n.pools.Now()
	r, err := n.pools.writes.ExecContext(ctx, "UPDATE nodes SET beat_at=?, horizon=? WHERE id=? AND token=?",
		Millis(now), Millis(now.Add(ahead)), n.pools.IDs().Node(), n.token.Load())
	if err != nil {
		return err
	}
	beaten, err := r.RowsAffected()
	if err != nil {
		return err
	}
	if beaten == 0 {
		// The others have given this node up. What it had in hand is theirs; it
		// begins anew with another number, which tells its leases apart.
		n.pools.Log().Warn("this node was silent for so long that the others have taken over its work; it joins anew")
		return n.register(ctx)
	}
	n.lastBeat.Store(&began)
	return n.reapDeadNodes(ctx, now)
}
