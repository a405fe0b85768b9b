package db

import (
	"context"
	"time"
)

// TakeDuty makes background work this node's for a while: false while it is
// another's.
func (n *nodes) TakeDuty(ctx context.Context, name string, every time.Duration) (bool, error) {
	var mine bool
	err := n.writer.Do(ctx, 1, func(t *Tx) error {
		now := n.pools.Now()
		taken, err := t.Affect(`INSERT INTO duties (name,until) VALUES (?,?)
 ON CONFLICT (name) DO UPDATE SET until=excluded.until WHERE duties.until<=?`, name, Millis(now.Add(every)), Millis(now))
		mine = taken == 1
		return err
	})
	return mine, err
}
