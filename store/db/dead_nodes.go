package db

import (
	"context"
	"database/sql"
	"time"
)

// observation is what was last seen of another node.
type observation struct {
	token, beat int64
	since       time.Time
}

// reapDeadNodes takes over what nodes had in hand that do not beat any more. They must
// have stood still before this node's eyes as well: when the database's clock is
// set forward, all of them look as if they were dead.
func (n *nodes) reapDeadNodes(ctx context.Context, now time.Time) error {
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
