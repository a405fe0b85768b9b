package queue

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// sentNow makes due what a person does not want to wait for.
type sentNow struct{ db *db.DB }

const sendNow = `UPDATE deliveries SET due_at=?, flags=flags|4 WHERE tenant_id=? AND notification_id=? AND target_id=? AND state=1 AND expires_at>?`

// SendNow implements delivery.CommandStore.
func (s *sentNow) SendNow(ctx context.Context, tenant, notification, target ids.ID, now time.Time, actor string) error {
	return s.db.Change(ctx, func(t *db.Tx) error {
		n, err := t.Affect(sendNow, db.Millis(now), tenant, notification, target, db.Millis(now))
		switch {
		case err != nil:
			return err
		case n == 0:
			return whyNotNow(t, tenant, notification, target)
		}
		return t.Audit(tenant, actor, "delivery.send", ids.FormatDelivery(notification, target))
	})
}

// whyNotNow says what keeps a delivery from being sent now.
func whyNotNow(t *db.Tx, tenant, notification, target ids.ID) error {
	var (
		state delivery.State
		hold  ids.ID
	)
	found, err := t.One("SELECT state,hold_id FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=?", []any{tenant, notification, target}, &state, &hold)
	if err != nil {
		return err
	}
	conflict := func(format string, args ...any) error { return problem.New(problem.Conflict, format, args...) }
	switch {
	case !found:
		return problem.New(problem.NotFound, "There is no such delivery.")
	case state == delivery.Pending:
		return conflict("The time to live of this delivery is over; it expires. Send the notification anew.")
	case state == delivery.Sending:
		return conflict("This delivery is being sent, or is about to be.")
	case state == delivery.Held:
		return conflict("This delivery is held by %s; GET /v1/holds names the call that releases it.", hold.Format(ids.Hold))
	case state == delivery.Dead:
		return conflict("This delivery is a dead letter; POST /v1/deliveries/%s/replay sends it again.", ids.FormatDelivery(notification, target))
	}
	return conflict("This delivery has ended: it is %s.", state)
}
