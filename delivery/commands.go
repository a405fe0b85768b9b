package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
)

// CommandStore does what people ask for of one notification or delivery.
type CommandStore interface {
	// Cancel drops what is pending or held of a notification, and takes it off the
	// schedule.
	Cancel(ctx context.Context, tenant, notification ids.ID, now time.Time) (int, error)
	// Replay moves a dead letter, or a webhook that was sent or dropped, to pending with
	// a new round and deadline. A notification that was canceled is not any more.
	Replay(ctx context.Context, tenant, notification, target ids.ID, now time.Time, ttl func(Request, channels.Kind) time.Duration, actor string) error
	// SendNow makes a pending delivery due, whatever it waits for.
	SendNow(ctx context.Context, tenant, notification, target ids.ID, now time.Time, actor string) error
}

// commands are what people ask for of one notification or delivery.
type commands struct {
	*env
	store   CommandStore
	tenants *tenantCache
	backlog *backlog
	hints   *hints
}

// Cancel drops what has not been sent of a notification, and counts it.
func (c *commands) Cancel(ctx context.Context, tenant, notification ids.ID) (int, error) {
	n, err := c.store.Cancel(ctx, tenant, notification, c.now())
	if err != nil {
		return 0, err
	}
	failpoint.Hit("cancel.committed")
	c.backlog.canceled(tenant, n)
	c.hints.canceled(tenant, notification)
	return n, nil
}

// Replay sends a dead letter, or a webhook that has ended, again, as a new round with a
// new deadline.
func (c *commands) Replay(ctx context.Context, tenant, notification, target ids.ID, actor string) error {
	s, err := c.tenants.get(ctx, tenant)
	if err != nil {
		return err
	}
	failpoint.Hit("replay.begin")
	err = c.store.Replay(ctx, tenant, notification, target, c.now(), func(r Request, k channels.Kind) time.Duration {
		return life(ttlOf(k, r.TTL, s.settings))
	}, actor)
	if err == nil {
		failpoint.Hit("replay.committed")
		c.backlog.add(tenant, Unfinished{Due: 1, Stored: 1})
		c.hints.due()
	}
	return err
}

// SendNow sends a pending delivery now, whatever it waits for. It spends no more than
// the attempt that it makes.
func (c *commands) SendNow(ctx context.Context, tenant, notification, target ids.ID, actor string) error {
	err := c.store.SendNow(ctx, tenant, notification, target, c.now(), actor)
	if err == nil {
		c.hints.due()
	}
	return err
}
