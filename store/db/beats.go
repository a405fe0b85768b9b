package db

import (
	"context"
	"database/sql"
	"time"
)

// Alive tells whether this node may begin to send: whether it has beaten so lately
// that no other node can have taken over what it has in hand.
func (n *nodes) Alive() bool {
	if n.stop == nil {
		return true // alone
	}
	return silence(*n.lastBeat.Load(), time.Now()) < DeadAfter-beatEvery
}

// silence is the time since a beat, by whichever of the machine's clocks says
// more: the monotonic one stands still while the machine sleeps, the other may be
// set. Times without a monotonic reading have only the other.
func silence(beat, now time.Time) time.Duration {
	return max(now.Sub(beat), now.Round(0).Sub(beat.Round(0)))
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
	return n.reapDead(ctx, now)
}

// observation is what was last seen of another node.
type observation struct {
	token, beat int64
	since       time.Time
}

// reapDead takes over what nodes had in hand that do not beat any more. They must
// have stood still before this node's eyes as well: when the database's clock is
// set forward, all of them look as if they were dead.
func (n *nodes) reapDead(ctx context.Context, now time.Time) error {
	rows, err := n.pools.writes.QueryContext(ctx, "SELECT id,token,beat_at,name FROM nodes WHERE token<>0")
	if err != nil {
		return err
	}
	type dead struct {
		id    int
		token int64
		name  string
	}
	var list []dead
	seen := map[int]observation{}
	if _, err := Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var (
			d  dead
			at observation
		)
		err = r.Scan(&d.id, &at.token, &at.beat, &d.name)
		d.token, at.since = at.token, time.Now()
		if old := n.seen[d.id]; old.token == at.token && old.beat == at.beat {
			at.since = old.since
		}
		seen[d.id] = at
		if at.beat < Millis(now.Add(-DeadAfter)) && time.Since(at.since) >= DeadAfter-2*beatEvery {
			list = append(list, d)
		}
		return none, err
	}); err != nil {
		return err
	}
	n.seen = seen
	for _, d := range list {
		// From here on it cannot beat under this number, and finds out.
		r, err := n.pools.writes.ExecContext(ctx, "UPDATE nodes SET token=0 WHERE id=? AND token=? AND beat_at<?", d.id, d.token, Millis(now.Add(-DeadAfter)))
		if err != nil {
			return err
		}
		if taken, err := r.RowsAffected(); err != nil || taken == 0 {
			continue // it came back, or another node was faster
		}
		rows := 0
		if n.takeOver != nil {
			rows, err = n.takeOver(context.WithoutCancel(ctx), d.id)
		}
		args := []any{"gone", d.name, "number", d.id, "deliveries", rows}
		if err != nil {
			args = append(args, "error", err)
		}
		n.pools.Log().Warn("a node is gone; what it had in hand is taken over", args...)
	}
	return nil
}
