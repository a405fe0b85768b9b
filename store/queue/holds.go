package queue

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// Holds is how holds are opened and ended in the transactions of others.
type Holds struct{}

// Open finds or opens a hold.
func (Holds) Open(t *db.Tx, h delivery.Hold) (id ids.ID, opened bool, err error) {
	return openHold(t, h)
}

// End starts the end of the holds that stand and match: see registers.Holds.
func (Holds) End(t *db.Tx, match delivery.Hold, e delivery.Ending) error {
	where, args := "tenant_id=? AND scope=? AND subject_id=?", []any{e, match.Tenant, match.Scope, match.Subject}
	if match.Scope == delivery.HoldMissing {
		where, args = where+" AND app=? AND channel=?", append(args, match.App, match.Channel)
	}
	if match.Reason != delivery.NoReason {
		where, args = where+" AND reason=?", append(args, match.Reason)
	}
	return t.Exec("UPDATE holds SET ending=? WHERE ending=0 AND "+where, args...)
}

// heldRows are the deliveries of holds, and the holds themselves.
type heldRows struct{ db *db.DB }

// join finds or opens the hold that a finish names. Only a verdict or a missing
// credential opens one; a delivery that was put off without an attempt joins a
// hold that stands, and need not wait when it has ended since.
func join(t *db.Tx, f *delivery.Finish) (ids.ID, bool, error) {
	if err := t.LockTenant(f.Row.Tenant, true); err != nil {
		return 0, false, err
	}
	h := f.Hold
	h.Tenant, h.Scope, h.Reason, h.Since = f.Row.Tenant, f.Transition.Hold, f.Transition.Reason, f.Now
	if f.Attempt == nil && f.Transition.Reason != delivery.CredentialMissing {
		id, err := findHold(t, h)
		return id, false, err
	}
	switch f.Transition.Reason {
	case delivery.CredentialMissing:
		if n, err := t.Count(`SELECT count(*) FROM credentials WHERE tenant_id=? AND app=? AND channel=? AND (qualifier=? OR qualifier='' OR ?='')`,
			h.Tenant, h.App, h.Channel, h.Qualifier, h.Qualifier); err != nil || n > 0 {
			return 0, false, err
		}
	case delivery.CredentialDenied, delivery.InDoubt:
		current, err := t.Count(`SELECT count(*) FROM credentials WHERE id=? AND version=?`, h.Subject, f.Version)
		if err != nil || current == 0 {
			return 0, false, err // a newer version is there: it gives its own verdict
		}
		if h.Scope == delivery.HoldRefusal {
			denied, err := t.Count(`SELECT count(*) FROM holds WHERE tenant_id=? AND scope=? AND subject_id=? AND (qualifier='' OR qualifier=?) AND ending=0`,
				h.Tenant, delivery.HoldCredential, h.Subject, h.Qualifier)
			if err != nil || denied > 0 {
				return 0, false, err // the credential is to blame by now: the row finds its hold
			}
		}
	default:
	}
	if f.Transition.Reason == delivery.CredentialDenied {
		back, err := registers.WayBack(t, h.Subject, f.Version)
		if err != nil {
			return 0, false, err
		}
		h.Detail += back
	}
	id, opened, err := openHold(t, h)
	if opened {
		failpoint.Hit("hold.opened")
	}
	if err == nil && opened && f.Transition.Reason == delivery.CredentialDenied && h.Qualifier == "" {
		err = registers.PauseCredential(t, h.Tenant, h.Subject, h.Detail, "engine", f.Now)
	}
	return id, opened, err
}

func findHold(t *db.Tx, h delivery.Hold) (id ids.ID, err error) {
	_, err = t.One(`SELECT id FROM holds WHERE tenant_id=? AND scope=? AND subject_id=? AND version=? AND app=? AND channel=? AND qualifier=? AND ending=0`,
		[]any{h.Tenant, h.Scope, h.Subject, h.Version, h.App, h.Channel, h.Qualifier}, &id)
	return id, err
}

func openHold(t *db.Tx, h delivery.Hold) (id ids.ID, opened bool, err error) {
	if id, err = findHold(t, h); err != nil || id != 0 {
		return id, false, err
	}
	id = t.NextID()
	n, err := t.Affect(`INSERT INTO holds (id,tenant_id,scope,subject_id,version,app,channel,qualifier,reason,detail,since,ending)
 VALUES (?,?,?,?,?,?,?,?,?,?,?,0) ON CONFLICT DO NOTHING`,
		id, h.Tenant, h.Scope, h.Subject, h.Version, h.App, h.Channel, h.Qualifier, h.Reason, h.Detail, db.Millis(h.Since))
	if err == nil && n == 0 { // another node opened it at the same moment
		id, err = findHold(t, h)
	}
	return id, n == 1, err
}

// EndHold implements delivery.HoldEnder.
func (s *heldRows) EndHold(ctx context.Context, hold ids.ID, e delivery.Ending) (bool, error) {
	ended := false
	err := s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		ended = false
		var tenant ids.ID
		if found, err := t.One("SELECT tenant_id FROM holds WHERE id=?", []any{hold}, &tenant); err != nil || !found {
			return err
		}
		if err := t.LockTenant(tenant, false); err != nil {
			return err
		}
		n, err := t.Affect("UPDATE holds SET ending=? WHERE id=? AND ending=0", e, hold)
		ended = n == 1
		return err
	})
	return ended, err
}

// RefuseCredential implements delivery.DoubtStore.
func (s *heldRows) RefuseCredential(ctx context.Context, h delivery.Hold) (opened bool, err error) {
	err = s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		opened = false
		if err := t.LockTenant(h.Tenant, false); err != nil {
			return err
		}
		current, err := t.Count(`SELECT count(*) FROM credentials WHERE id=? AND tenant_id=? AND version=?`, h.Subject, h.Tenant, h.Version)
		if err != nil || current == 0 {
			return err // a newer version is there: it gives its own verdict
		}
		denied := h
		denied.Version = 0
		back, err := registers.WayBack(t, h.Subject, h.Version)
		if err != nil {
			return err
		}
		denied.Detail += back
		h.Detail = denied.Detail
		if _, opened, err = openHold(t, denied); err != nil || !opened {
			return err
		}
		if h.Qualifier == "" {
			if err := registers.PauseCredential(t, h.Tenant, h.Subject, h.Detail, "engine", h.Since); err != nil {
				return err
			}
		}
		// What is in doubt because of it has something to wait for by now.
		return t.Exec("UPDATE holds SET ending=? WHERE ending=0 AND tenant_id=? AND scope=? AND subject_id=? AND (qualifier=? OR ?='')",
			delivery.Resume, h.Tenant, delivery.HoldRefusal, h.Subject, h.Qualifier, h.Qualifier)
	})
	return opened, err
}

// MoveHeld implements delivery.HoldStore.
func (s *heldRows) MoveHeld(ctx context.Context, h delivery.Hold, limit int, now time.Time) (moved int, done bool, err error) {
	err = s.db.Do(context.WithoutCancel(ctx), limit, func(t *db.Tx) error {
		done = false
		var err error
		if moved, err = moveHeld(t, h, limit, now); err != nil || moved == limit {
			return err
		}
		judged, err := endDoubt(t, h, limit, now)
		if err != nil || judged == limit {
			moved += judged
			return err
		}
		// Another node may have moved those that were found, and left others.
		left, err := t.Count("SELECT count(*) FROM deliveries INDEXED BY deliveries_hold WHERE hold_id=? AND hold_id<>0 AND state=3", h.ID)
		if err != nil || left > 0 {
			return err
		}
		done = true
		return t.Exec("DELETE FROM holds WHERE id=?", h.ID)
	})
	return moved, done, err
}

func moveHeld(t *db.Tx, h delivery.Hold, limit int, now time.Time) (int, error) {
	to, refund := delivery.Release(h.Ending, now)
	at := db.Millis(now)
	// The time on hold was not a webhook's own.
	moved, err := t.Affect(`UPDATE deliveries SET state=?, reason=?, due_at=?,
 expires_at=CASE WHEN channel=? AND updated_at<? THEN expires_at+?-updated_at ELSE expires_at END,
 hold_id=0, spent=CASE WHEN spent>0 THEN spent-? ELSE 0 END, updated_at=?
 WHERE state=3 AND hold_id=? AND (tenant_id,notification_id,target_id) IN (SELECT tenant_id,notification_id,target_id FROM deliveries
 INDEXED BY deliveries_hold WHERE hold_id=? AND hold_id<>0 ORDER BY tenant_id,notification_id,target_id LIMIT ?)`,
		to.State, to.Reason, db.Millis(to.DueAt), channels.Webhook, at, at, refund, at, h.ID, h.ID, limit)
	if err != nil {
		return 0, fmt.Errorf("move held deliveries: %w", err)
	}
	if moved > 0 {
		failpoint.Hit("resume.written")
	}
	return int(moved), nil
}

// endDoubt ends the doubt about up to limit devices that a credential version
// called gone.
func endDoubt(t *db.Tx, h delivery.Hold, limit int, now time.Time) (int, error) {
	if h.Scope != delivery.HoldDoubt {
		return 0, nil
	}
	set := `status=1, reason=''`
	e := devices.Event{Kind: devices.EventRestored, Reason: devices.ByReversal, Credential: h.Subject, Version: h.Version, Actor: devices.EngineActor}
	if h.Ending == delivery.Confirm {
		set = `status=3`
		e.Kind, e.Reason = devices.EventRetired, devices.ByConfirmation
	}
	// What the app has registered again since it was found is in doubt no more.
	changed, err := registers.RecordDevices(t, e, `UPDATE devices SET `+set+`, status_at=?, updated_at=? WHERE status=2 AND credential_id=? AND version=? AND id IN
 (SELECT id FROM devices INDEXED BY devices_doubt WHERE credential_id=? AND version=? AND status>1 AND status=2 LIMIT ?)`,
		db.Millis(now), db.Millis(now), h.Subject, h.Version, h.Subject, h.Version, limit)
	return len(changed), err
}

const holdColumns = `h.id,h.tenant_id,h.scope,h.subject_id,h.version,h.app,h.channel,h.qualifier,h.reason,h.detail,h.since,h.ending`

func scanHold(r *sql.Rows, more ...any) (delivery.Hold, error) {
	var (
		h     delivery.Hold
		since int64
	)
	err := r.Scan(append([]any{&h.ID, &h.Tenant, &h.Scope, &h.Subject, &h.Version, &h.App, &h.Channel, &h.Qualifier, &h.Reason, &h.Detail, &since, &h.Ending}, more...)...)
	h.Since = db.FromMillis(since)
	return h, err
}

// Holds implements delivery.DeliveryReader.
func (s *heldRows) Holds(ctx context.Context, tenant ids.ID) ([]delivery.Hold, error) {
	return s.holdsUpTo(ctx, tenant, delivery.HeldMost)
}

// countHolds and listHolds count no further than the list has room for.
const (
	mostHolds  = 1000
	countHolds = `SELECT count(*) FROM (SELECT 1 FROM holds INDEXED BY holds_tenant WHERE tenant_id=? LIMIT ?) x`
	listHolds  = `SELECT ` + holdColumns + `,
 (SELECT count(*) FROM (SELECT 1 FROM deliveries d INDEXED BY deliveries_hold WHERE d.hold_id=h.id AND d.hold_id<>0 LIMIT ?) x)
 FROM holds h WHERE h.tenant_id=? ORDER BY h.id LIMIT ?`
)

// holdsUpTo counts up to so many deliveries in all, and a tenth of them in one hold.
func (s *heldRows) holdsUpTo(ctx context.Context, tenant ids.ID, held int) ([]delivery.Hold, error) {
	n := 0
	if err := s.db.Lists().QueryRowContext(ctx, countHolds, tenant, mostHolds).Scan(&n); err != nil {
		return nil, fmt.Errorf("count holds: %w", err)
	}
	most := held / max(n, 10)
	rows, err := s.db.Lists().QueryContext(ctx, listHolds, most+1, tenant, mostHolds)
	if err != nil {
		return nil, fmt.Errorf("read holds: %w", err)
	}
	return db.Collect(rows, func(r *sql.Rows) (delivery.Hold, error) {
		held := 0
		h, err := scanHold(r, &held)
		h.Held, h.More = min(held, most), held > most
		return h, err
	})
}

// StandingHolds implements delivery.SnapshotStore.
func (s *heldRows) StandingHolds(ctx context.Context, tenant ids.ID) ([]delivery.Hold, error) {
	return s.holds(ctx, `h.tenant_id=? AND h.ending=0`, tenant)
}

// HoldsEndingOrDenied implements delivery.HoldStore.
func (s *heldRows) HoldsEndingOrDenied(ctx context.Context) ([]delivery.Hold, error) {
	return s.holds(ctx, `h.ending<>0 OR h.reason=?`, delivery.CredentialDenied)
}

func (s *heldRows) holds(ctx context.Context, where string, arg any) ([]delivery.Hold, error) {
	rows, err := s.db.Reads().QueryContext(ctx, `SELECT `+holdColumns+` FROM holds h WHERE `+where+` ORDER BY h.id`, arg)
	if err != nil {
		return nil, fmt.Errorf("read holds: %w", err)
	}
	return db.Collect(rows, func(r *sql.Rows) (delivery.Hold, error) { return scanHold(r) })
}
