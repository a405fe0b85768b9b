package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

const (
	// targetAge is how old a target may be when it is sent to. What waited longer is
	// read again, so that a device which changed hands meanwhile is not served.
	targetAge    = 2 * time.Second
	maxEndpoints = 1024 // in memory
)

// TargetStore reads targets.
type TargetStore interface {
	Target(ctx context.Context, tenant, target ids.ID, k channels.Kind) (TargetNow, error)
}

// targets reads what is sent to, and keeps endpoints for a moment: the same few are
// read again and again.
type targets struct {
	store     TargetStore
	endpoints cache[ids.ID, TargetNow]
}

func newTargets(s TargetStore) *targets {
	return &targets{store: s, endpoints: cache[ids.ID, TargetNow]{most: maxEndpoints}}
}

// refresh reads the target of a delivery again when what is in hand is old.
func (t *targets) refresh(ctx context.Context, it *inflight, now time.Time) error {
	if now.Sub(it.target.ReadAt) < targetAge {
		return nil
	}
	webhook := it.Channel == channels.Webhook
	if webhook {
		if known, ok := t.endpoints.get(it.Target); ok && now.Sub(known.ReadAt) < targetAge {
			it.target = known
			return nil
		}
	}
	read, err := t.store.Target(ctx, it.Tenant, it.Target, it.Channel)
	if err != nil {
		return err
	}
	it.target = read
	if webhook {
		t.endpoints.put(it.Target, read)
	}
	return nil
}

// forget makes an endpoint be read again.
func (t *targets) forget(endpoint ids.ID) { t.endpoints.forget(endpoint) }

// clear forgets all: what was erased must not be sent to from memory.
func (t *targets) clear() { t.endpoints.clear() }
