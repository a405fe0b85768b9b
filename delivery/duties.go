package delivery

import (
	"context"
	"time"
)

// DutyStore shares background work among the nodes of a database.
type DutyStore interface {
	// TakeDuty makes background work that one node does this node's for a while.
	TakeDuty(ctx context.Context, name string, every time.Duration) (bool, error)
}

// duties are background work that one node does for all.
type duties struct {
	*env
	store DutyStore
}

// take makes a duty this node's for a while, unless it is another's.
func (d *duties) take(name string, every time.Duration) bool {
	mine, err := d.store.TakeDuty(d.running, name, every*9/10) // so that it is due again when the timer is
	if err != nil {
		d.log.Error("take a duty", "duty", name, "error", err)
	}
	return mine
}
