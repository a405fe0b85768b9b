package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

var _ delivery.CommandStore = (*Store)(nil)

// DueScheduled implements delivery.CommandStore.
func (s *Store) DueScheduled(ctx context.Context, now time.Time, limit int) ([]delivery.Scheduled, error) {
	var due bool
	if err := s.queryRow(ctx, "SELECT EXISTS (SELECT 1 FROM fanouts WHERE due_at<=?)", millis(now)).Scan(&due); err != nil || !due {
		return nil, err
	}
	var out []delivery.Scheduled
	err := s.do(context.WithoutCancel(ctx), limit, func(t *tx) (err error) {
		out, err = t.leaseMarkers(now, limit)
		return err
	})
	return out, err
}

// markerLease is how long a marker is one node's; what could not be resolved is
// tried again after it. Two that resolve the same one do no harm: one is stored.
const markerLease = 3 * time.Second

func (t *tx) leaseMarkers(now time.Time, limit int) ([]delivery.Scheduled, error) {
	rows, err := t.query(t.locking(`SELECT f.tenant_id,f.notification_id,n.lane,n.send_at,n.flags,n.type FROM fanouts f
 JOIN notifications n ON n.tenant_id=f.tenant_id AND n.id=f.notification_id
 JOIN tenants t ON t.id=f.tenant_id AND t.deleted_at=0 WHERE f.due_at<=? ORDER BY f.due_at LIMIT ?`, "UPDATE OF f SKIP LOCKED"), millis(now), limit)
	if err != nil {
		return nil, err
	}
	list, err := collect(rows, func(r *sql.Rows) (m delivery.Scheduled, err error) {
		var (
			flags int
			at    int64
		)
		err = r.Scan(&m.Tenant, &m.Notification, &m.Lane, &at, &flags, &m.Type)
		m.SendAt, m.AtMostOnce = fromMillis(at), flags&flagAtMostOnce != 0
		return m, err
	})
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if err := t.exec("UPDATE fanouts SET due_at=? WHERE tenant_id=? AND notification_id=?",
			millis(now.Add(markerLease)), m.Tenant, m.Notification); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// ResolveScheduled implements delivery.CommandStore.
func (s *Store) ResolveScheduled(ctx context.Context, a delivery.Accepted) (bool, error) {
	there := false
	err := s.do(context.WithoutCancel(ctx), len(a.Rows)+1, func(t *tx) error {
		n, err := t.affect("DELETE FROM fanouts WHERE tenant_id=? AND notification_id=?", a.Tenant, a.ID)
		if there = n == 1; err != nil || !there {
			return err
		}
		if err := t.exec("UPDATE notifications SET flags=flags & ~8, targets=? WHERE tenant_id=? AND id=?", len(a.Rows), a.Tenant, a.ID); err != nil {
			return err
		}
		err = t.targets(&a)
		failpoint.Hit("unfold.written")
		return err
	})
	return there, err
}

// Cancel implements delivery.CommandStore.
func (s *Store) Cancel(ctx context.Context, tenant, notification ids.ID, now time.Time) (int, error) {
	var n int64
	err := s.change(ctx, func(t *tx) error {
		found, err := t.affect("UPDATE notifications SET flags=flags|4 WHERE tenant_id=? AND id=?", tenant, notification)
		if err != nil {
			return err
		}
		if found == 0 {
			return problem.New(problem.NotFound, "There is no such notification.")
		}
		marker, err := t.affect("DELETE FROM fanouts WHERE tenant_id=? AND notification_id=?", tenant, notification)
		if err != nil {
			return err
		}
		if marker > 0 {
			if err := t.exec("UPDATE notifications SET flags=flags & ~8 WHERE tenant_id=? AND id=?", tenant, notification); err != nil {
				return err
			}
		}
		n, err = t.affect(`UPDATE deliveries SET state=5, reason=?, due_at=0, hold_id=0, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND state IN (1,3)`, delivery.Canceled, millis(now), tenant, notification)
		failpoint.Hit("cancel.written")
		return err
	})
	return int(n), err
}

// Replay implements delivery.CommandStore.
func (s *Store) Replay(ctx context.Context, tenant, notification, target ids.ID, now time.Time,
	ttl func(delivery.Request, channels.Kind) time.Duration, actor string,
) error {
	body, err := s.Content(ctx, tenant, notification)
	if problem.CodeOf(err) == problem.NotFound {
		if _, derr := s.Delivery(ctx, tenant, notification, target); derr != nil {
			return derr
		}
		return problem.New(problem.Conflict, "The content of this notification has been erased, so it cannot be sent again.")
	}
	if err != nil {
		return err
	}
	var req delivery.Request
	if err := json.Unmarshal(body, &req); err != nil {
		return fmt.Errorf("read the stored content: %w", err)
	}
	return s.change(ctx, func(t *tx) error {
		var (
			state delivery.State
			kind  channels.Kind
		)
		key := []any{tenant, notification, target}
		found, err := t.one("SELECT state,channel FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=?", key, &state, &kind)
		switch {
		case err != nil:
			return err
		case !found:
			return problem.New(problem.NotFound, "There is no such delivery.")
		case state != delivery.Dead:
			return problem.New(problem.Conflict, "Only a dead letter can be replayed; this delivery is %s.", state)
		}
		if err := t.keepContents(tenant, notification); err != nil {
			return err
		}
		done, err := t.replay(tenant, notification, target, now, now.Add(ttl(req, kind)))
		switch {
		case err != nil:
			return err
		case !done:
			return problem.New(problem.Conflict, "The delivery, or its content, has changed at this moment; read it again.")
		}
		if err := t.uncancel(tenant, notification); err != nil {
			return err
		}
		failpoint.Hit("replay.written")
		return t.audit(tenant, actor, "delivery.replay", ids.FormatDelivery(notification, target))
	})
}

// EndHold implements delivery.CommandStore.
func (s *Store) EndHold(ctx context.Context, hold ids.ID, e delivery.Ending) (bool, error) {
	ended := false
	err := s.do(context.WithoutCancel(ctx), 1, func(t *tx) error {
		ended = false
		var tenant ids.ID
		if found, err := t.one("SELECT tenant_id FROM holds WHERE id=?", []any{hold}, &tenant); err != nil || !found {
			return err
		}
		if err := t.lockTenant(tenant, false); err != nil {
			return err
		}
		n, err := t.affect("UPDATE holds SET ending=? WHERE id=? AND ending=0", e, hold)
		ended = n == 1
		return err
	})
	return ended, err
}

// MoveHeld implements delivery.CommandStore.
func (s *Store) MoveHeld(ctx context.Context, h delivery.Hold, limit int, now time.Time) (moved int, done bool, err error) {
	err = s.do(context.WithoutCancel(ctx), limit, func(t *tx) error {
		done = false
		var err error
		if moved, err = t.moveHeld(h, limit, now); err != nil || moved == limit {
			return err
		}
		settled, err := t.settle(h, limit, now)
		if err != nil || settled == limit {
			moved += settled
			return err
		}
		// Another node may have moved those that were found, and left others.
		left, err := t.count("SELECT count(*) FROM deliveries INDEXED BY deliveries_hold WHERE hold_id=? AND hold_id<>0 AND state=3", h.ID)
		if err != nil || left > 0 {
			return err
		}
		done = true
		return t.exec("DELETE FROM holds WHERE id=?", h.ID)
	})
	return moved, done, err
}

func (t *tx) moveHeld(h delivery.Hold, limit int, now time.Time) (int, error) {
	state, reason, due, unspent := delivery.Pending, delivery.NoReason, millis(now), 0
	switch h.Ending {
	case delivery.Confirm:
		state, reason, due = delivery.Dropped, delivery.Gone, 0
	case delivery.Reverse:
		unspent = 1 // the fault was our credential's, so the attempt was free
	default:
	}
	at := millis(now)
	// The time on hold was not a webhook's own.
	moved, err := t.affect(`UPDATE deliveries SET state=?, reason=?, due_at=?,
 expires_at=CASE WHEN channel=? AND updated_at<? THEN expires_at+?-updated_at ELSE expires_at END,
 hold_id=0, spent=CASE WHEN spent>0 THEN spent-? ELSE 0 END, updated_at=?
 WHERE state=3 AND hold_id=? AND (tenant_id,notification_id,target_id) IN (SELECT tenant_id,notification_id,target_id FROM deliveries
 INDEXED BY deliveries_hold WHERE hold_id=? AND hold_id<>0 ORDER BY tenant_id,notification_id,target_id LIMIT ?)`,
		state, reason, due, channels.Webhook, at, at, unspent, at, h.ID, h.ID, limit)
	if err != nil {
		return 0, fmt.Errorf("move held deliveries: %w", err)
	}
	if moved > 0 {
		failpoint.Hit("resume.written")
	}
	return int(moved), nil
}

// settle ends the doubt about up to limit devices that a credential version
// called gone.
func (t *tx) settle(h delivery.Hold, limit int, now time.Time) (int, error) {
	if h.Scope != delivery.HoldDoubt {
		return 0, nil
	}
	set := `status=1, reason=''`
	if h.Ending == delivery.Confirm {
		set = `status=3`
	}
	// What the app has registered again since it was found is in doubt no more.
	n, err := t.affect(`UPDATE devices SET `+set+`, status_at=?, updated_at=? WHERE status=2 AND credential_id=? AND version=? AND id IN
 (SELECT id FROM devices INDEXED BY devices_doubt WHERE credential_id=? AND version=? AND status>1 AND status=2 LIMIT ?)`,
		millis(now), millis(now), h.Subject, h.Version, h.Subject, h.Version, limit)
	return int(n), err
}

// UnretireDevices implements delivery.CommandStore.
func (s *Store) UnretireDevices(ctx context.Context, credential ids.ID, version int, since, now time.Time) (int, error) {
	var n int64
	err := s.do(context.WithoutCancel(ctx), 1, func(t *tx) (err error) {
		n, err = t.affect(`UPDATE devices SET status=?, status_at=?, updated_at=? WHERE credential_id=? AND version=? AND status>1 AND status=? AND status_at>=?`,
			devices.Suspect, millis(now), millis(now), credential, version, devices.Retired, millis(since))
		return err
	})
	return int(n), err
}
