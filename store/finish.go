package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

const fence = ` WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2`

const finishAttempt = `UPDATE deliveries SET state=?, reason=?, due_at=?, expires_at=?, hold_id=?, spent=?, renewed=?, updated_at=?,
 attempts=?, credential_id=?, att_at=?, att_ms=?, att_outcome=?, att_status=?, att_ambiguous=?, att_code=?, att_detail=?, att_provider_id=?` + fence

const finishOnly = `UPDATE deliveries SET state=?, reason=?, due_at=?, expires_at=?, hold_id=?, spent=?, renewed=?, updated_at=?` + fence

// finishing is an outcome on its way into the database.
type finishing struct {
	f   delivery.Finish
	res delivery.FinishResult
}

// Finish implements delivery.QueueStore.
func (s *Store) Finish(f delivery.Finish, done func(delivery.FinishResult)) {
	x := &finishing{f: f}
	o := op{
		weight: 1, patient: true, finish: x,
		run:  func(t *tx) (err error) { x.res, err = t.finish(&x.f); return err },
		done: func(err error) { x.res.Err = err; done(x.res) },
	}
	if err := s.writer.offer(context.Background(), o); err != nil {
		done(delivery.FinishResult{Err: err})
	}
}

func (t *tx) finish(f *delivery.Finish) (res delivery.FinishResult, err error) {
	r, n := &f.Row, f.Transition // a copy: an op may be run again
	key := [4]any{r.Tenant, r.Notification, r.Target, r.Claim}
	var hold ids.ID
	if n.Hold != 0 {
		// The hold may have ended since the row was looked at: then there is
		// nothing to wait for.
		if hold, res.Opened, err = t.hold(f); err != nil {
			return res, err
		}
	}
	if n, err = t.settled(f, n, hold); err != nil {
		return res, err
	}
	res.Written = n
	if n.State != delivery.Held {
		hold = 0
	}
	args := []any{n.State, n.Reason, millis(n.DueAt), millis(f.ExpiresAt), hold, n.Spent, n.Renew, millis(f.Now)}
	var changed int64
	if a := f.Attempt; a != nil {
		if r.Attempts > 0 {
			if err := t.lockDelivery(key); err != nil {
				return res, err
			}
			if err := t.exec(keepAttempt, key[:]...); err != nil {
				return res, err
			}
		}
		args = append(args, a.Number, f.Credential, millis(a.At), a.Duration.Milliseconds(), a.Outcome, a.Status,
			a.Ambiguous, a.Code, a.Detail, a.ProviderID)
		changed, err = t.affect(finishAttempt, append(args, key[:]...)...)
	} else {
		changed, err = t.affect(finishOnly, append(args, key[:]...)...)
	}
	if err != nil {
		return res, fmt.Errorf("finish a delivery: %w", err)
	}
	if changed == 0 {
		res.Lost = true // another node has taken it over: its word counts
	}
	return res, t.effects(f)
}

// settled fits a transition to what is stored by now: the hold may have ended,
// and nothing of a canceled notification is tried again.
func (t *tx) settled(f *delivery.Finish, n delivery.Transition, hold ids.ID) (delivery.Transition, error) {
	if blames := n.Device == delivery.DeviceRetired || n.Device == delivery.DeviceSuspect; blames && f.Row.Channel != channels.Webhook {
		again, err := t.count(`SELECT count(*) FROM devices WHERE id=? AND tenant_id=? AND epoch=? AND status=1 AND status_at>?`,
			f.Row.Target, f.Row.Tenant, f.Row.Epoch, millis(f.StartedAt))
		if err != nil {
			return n, err
		}
		if again > 0 { // it was registered again meanwhile: the verdict is about the address before
			n = delivery.Transition{State: delivery.Pending, DueAt: f.Now, Spent: f.Row.Spent}
		}
	}
	if !n.State.Unfinished() {
		n.DueAt = time.Time{}
		return n, nil
	}
	flags := 0
	if _, err := t.one(t.locking("SELECT flags FROM notifications WHERE tenant_id=? AND id=?", "SHARE"), []any{f.Row.Tenant, f.Row.Notification}, &flags); err != nil {
		return n, err
	}
	switch {
	case flags&flagCanceled != 0:
		n = delivery.Transition{State: delivery.Dropped, Reason: delivery.Canceled, Spent: n.Spent, Device: n.Device}
	case n.State == delivery.Held && hold == 0:
		n.State, n.Reason, n.Hold, n.DueAt = delivery.Pending, delivery.NoReason, 0, f.Now
	case n.State == delivery.Held:
		n.DueAt = f.ExpiresAt // its deadline is found by the same claim
		if f.Row.Channel == channels.Webhook {
			n.DueAt = f.Now.Add(tenants.MaxWebhookTTL) // a hold does not spend a webhook's time
		}
	}
	return n, nil
}

// effects writes what a verdict says beyond its delivery. It holds even when the
// delivery itself was lost to another node: the provider did answer.
func (t *tx) effects(f *delivery.Finish) error {
	if f.Prove {
		if err := t.exec(`UPDATE credential_versions SET proven_at=? WHERE credential_id=? AND version=? AND proven_at=0`,
			millis(f.Now), f.Credential, f.Version); err != nil {
			return err
		}
	}
	if f.Learned != "" {
		if err := t.exec(`UPDATE devices SET environment=?, updated_at=? WHERE id=? AND tenant_id=? AND epoch=? AND environment='auto'`,
			f.Learned, millis(f.Now), f.Row.Target, f.Row.Tenant, f.Row.Epoch); err != nil {
			return err
		}
	}
	r := f.Row
	code := ""
	if f.Attempt != nil {
		code = f.Attempt.Code
	}
	switch f.Transition.Device {
	case delivery.DeviceUntouched:
	case delivery.DeviceConfirmed:
		if r.Channel != channels.Webhook {
			return t.exec(`UPDATE devices SET status=1, reason='', status_at=?, updated_at=? WHERE id=? AND tenant_id=? AND epoch=? AND status=2`,
				millis(f.Now), millis(f.Now), r.Target, r.Tenant, r.Epoch)
		}
	case delivery.DeviceSuspect:
		return t.mark(f, devices.Suspect, devices.Active, code)
	case delivery.DeviceRetired:
		if r.Channel == channels.Webhook {
			return t.disable(f, code)
		}
		return t.mark(f, devices.Retired, devices.Suspect, code)
	}
	return nil
}

// mark makes a device suspect or retired, unless it was registered again after
// the attempt began or belongs to another user by now.
func (t *tx) mark(f *delivery.Finish, to, atMost devices.Status, code string) error {
	r := f.Row
	return t.exec(`UPDATE devices SET status=?, reason=?, status_at=?, credential_id=?, version=?, updated_at=?
 WHERE id=? AND tenant_id=? AND epoch=? AND status<=? AND registered_at<=? AND status_at<=?
 AND NOT EXISTS (SELECT 1 FROM credentials c WHERE c.id=? AND c.version>?)`,
		to, code, millis(f.Now), f.Credential, f.Version, millis(f.Now),
		r.Target, r.Tenant, r.Epoch, atMost, millis(f.StartedAt), millis(f.StartedAt), f.Credential, f.Version)
}

// disable ends an endpoint that said it is gone, unless it was changed after the
// attempt began; what else waits for it is held.
func (t *tx) disable(f *delivery.Finish, code string) error {
	n, err := t.affect(`UPDATE endpoints SET status=?, reason=?, updated_at=CASE WHEN updated_at>=? THEN updated_at+1 ELSE ? END
 WHERE id=? AND tenant_id=? AND status<>? AND updated_at<=?`,
		webhooks.Disabled, code, millis(f.Now), millis(f.Now), f.Row.Target, f.Row.Tenant, webhooks.Disabled, millis(f.StartedAt))
	if err != nil || n == 0 {
		return err
	}
	if err := t.audit(f.Row.Tenant, "engine", "endpoint.disable", f.Row.Target.Format(ids.Endpoint)); err != nil {
		return err
	}
	_, _, err = t.openHold(delivery.Hold{Tenant: f.Row.Tenant, Scope: delivery.HoldEndpoint, Subject: f.Row.Target,
		Channel: channels.Webhook, Reason: delivery.EndpointPaused, Detail: code, Since: f.Now})
	return err
}

// hold finds or opens the hold that a finish names. Only a verdict or a missing
// credential opens one; a delivery that was put off without an attempt joins a
// hold that stands, and need not wait when it has ended since.
func (t *tx) hold(f *delivery.Finish) (ids.ID, bool, error) {
	if err := t.lockTenant(f.Row.Tenant, true); err != nil {
		return 0, false, err
	}
	h := f.Hold
	h.Tenant, h.Scope, h.Reason, h.Since = f.Row.Tenant, f.Transition.Hold, f.Transition.Reason, f.Now
	if f.Attempt == nil && f.Transition.Reason != delivery.CredentialMissing {
		id, err := t.findHold(h)
		return id, false, err
	}
	switch f.Transition.Reason {
	case delivery.CredentialMissing:
		if n, err := t.count(`SELECT count(*) FROM credentials WHERE tenant_id=? AND app=? AND channel=? AND (qualifier=? OR qualifier='' OR ?='')`,
			h.Tenant, h.App, h.Channel, h.Qualifier, h.Qualifier); err != nil || n > 0 {
			return 0, false, err
		}
	case delivery.CredentialDenied, delivery.InDoubt:
		current, err := t.count(`SELECT count(*) FROM credentials WHERE id=? AND version=?`, h.Subject, f.Version)
		if err != nil || current == 0 {
			return 0, false, err // a newer version is there: it gives its own verdict
		}
	default:
	}
	id, opened, err := t.openHold(h)
	if opened {
		failpoint.Hit("hold.opened")
	}
	if err == nil && opened && f.Transition.Reason == delivery.CredentialDenied && h.Qualifier == "" {
		err = t.pauseCredential(h.Tenant, h.Subject, h.Detail, "engine", f.Now)
	}
	return id, opened, err
}

func (t *tx) findHold(h delivery.Hold) (id ids.ID, err error) {
	_, err = t.one(`SELECT id FROM holds WHERE tenant_id=? AND scope=? AND subject_id=? AND version=? AND app=? AND channel=? AND qualifier=? AND ending=0`,
		[]any{h.Tenant, h.Scope, h.Subject, h.Version, h.App, h.Channel, h.Qualifier}, &id)
	return id, err
}

func (t *tx) openHold(h delivery.Hold) (id ids.ID, opened bool, err error) {
	if id, err = t.findHold(h); err != nil || id != 0 {
		return id, false, err
	}
	id = t.s.opts.IDs.Next()
	n, err := t.affect(`INSERT INTO holds (id,tenant_id,scope,subject_id,version,app,channel,qualifier,reason,detail,since,ending)
 VALUES (?,?,?,?,?,?,?,?,?,?,?,0) ON CONFLICT DO NOTHING`,
		id, h.Tenant, h.Scope, h.Subject, h.Version, h.App, h.Channel, h.Qualifier, h.Reason, h.Detail, millis(h.Since))
	if err == nil && n == 0 { // another node opened it at the same moment
		id, err = t.findHold(h)
	}
	return id, n == 1, err
}

func (t *tx) pauseCredential(tenant, id ids.ID, why, actor string, now time.Time) error {
	if err := t.exec(`UPDATE credentials SET status=?, reason=?, updated_at=? WHERE id=? AND tenant_id=?`,
		tenants.CredentialPaused, why, millis(now), id, tenant); err != nil {
		return err
	}
	return t.audit(tenant, actor, "credential.pause", id.Format(ids.Credential))
}

// lockDelivery locks a leased row before a part of it is copied: an erasure must
// come before the copy, or find it.
func (t *tx) lockDelivery(key [4]any) error {
	if !t.s.onPostgres() {
		return nil
	}
	return t.exec("SELECT 1 FROM deliveries"+fence+" FOR UPDATE", key[:]...)
}

// locking makes a query lock the rows that it reads, where others may write at the
// same time. SHARE keeps them as they are until the commit; UPDATE OF a table takes
// them for this transaction, as they are by the time that others have let go of
// them; with SKIP LOCKED it passes over those that others have taken.
func (t *tx) locking(query, clause string) string {
	if t.s.onPostgres() {
		query += " FOR " + clause
	}
	return query
}

func (t *tx) count(query string, args ...any) (n int64, err error) {
	_, err = t.one(query, args, &n)
	return n, err
}

// audit records a change in the transaction that makes it.
func (t *tx) audit(tenant ids.ID, actor, action, subject string) error {
	return t.exec(`INSERT INTO audit (id,tenant_id,at,actor,action,subject) VALUES (?,?,?,?,?,?)`,
		t.s.opts.IDs.Next(), tenant, millis(t.s.now()), actor, action, subject)
}

func isNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// notFoundOr makes "no rows" a problem that callers may see.
func notFoundOr(err error, what string) error {
	if isNoRows(err) {
		return problem.New(problem.NotFound, "There is no such %s.", what)
	}
	return err
}
