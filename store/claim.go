package store

import (
	"context"
	"database/sql"
	"fmt"
	"sort"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
)

var _ delivery.QueueStore = (*Store)(nil)

// Flags of a delivery.
const (
	flagUnknown = 1 // a node died with it, so it may have been sent
	flagBegun   = 2 // its attempt has begun; written only where it must not be made twice
)

// dueTenants walks the index from tenant to tenant (a skip scan), so its cost
// follows the tenants that have something due, not the rows.
const dueTenants = `WITH RECURSIVE t(id) AS (
  SELECT min(tenant_id) FROM deliveries INDEXED BY deliveries_due WHERE lane=?1 AND state<4
  UNION ALL
  SELECT (SELECT min(tenant_id) FROM deliveries INDEXED BY deliveries_due WHERE lane=?1 AND state<4 AND tenant_id>t.id)
  FROM t WHERE t.id IS NOT NULL)
SELECT id FROM t WHERE id IS NOT NULL AND EXISTS
 (SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE lane=?1 AND tenant_id=t.id AND state<4 AND due_at<=?2)`

const rowColumns = `d.tenant_id,d.notification_id,d.target_id,d.channel,d.lane,d.state,d.reason,coalesce(d.user_id,0),d.device_epoch,
 d.credential_id,d.due_at,d.expires_at,d.claim,d.hold_id,d.round,d.spent,d.attempts,d.takeovers,d.flags,d.renewed,d.updated_at`

const selectDue = `SELECT ` + rowColumns + `, coalesce((SELECT n.flags FROM notifications n WHERE n.tenant_id=d.tenant_id AND n.id=d.notification_id),0), d.flags
 FROM deliveries d INDEXED BY deliveries_due WHERE d.lane=? AND d.tenant_id=? AND d.state<4 AND d.due_at<=? ORDER BY d.due_at LIMIT ?`

const lease = `UPDATE deliveries SET state=2, due_at=?, claim=?, hold_id=0, takeovers=?, flags=?, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND target_id=?`

// keepAttempt moves the newest attempt out of the row before another takes its place.
const keepAttempt = `INSERT OR IGNORE INTO attempts
 (tenant_id,notification_id,target_id,number,at,ms,outcome,status,ambiguous,code,detail,provider_id)
 SELECT tenant_id,notification_id,target_id,attempts,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id
 FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2 AND attempts>0`

// unknownAttempt records the attempt that a node which died may have made.
const unknownAttempt = `UPDATE deliveries SET attempts=attempts+1, renewed=0, att_at=?, att_ms=0, att_outcome=?, att_status=0, att_ambiguous=1,
 att_code='takeover', att_detail='The node that held the delivery stopped; whether it made the attempt is unknown.', att_provider_id=''
 WHERE tenant_id=? AND notification_id=? AND target_id=?`

// Claim implements delivery.QueueStore.
func (s *Store) Claim(ctx context.Context, o delivery.ClaimOrder) ([]delivery.Claimed, error) {
	var out []delivery.Claimed
	err := s.do(context.WithoutCancel(ctx), o.Limit, func(t *tx) error {
		out = out[:0]
		list, err := t.tenantsDue(o.Lane, o.Now)
		if err != nil {
			return err
		}
		// Each claim goes on behind the tenant that the one before ended with, so
		// that a full claim starves none.
		start := sort.Search(len(list), func(i int) bool { return list[i] > t.served[o.Lane] })
		for i := range list {
			room := min(o.Limit-len(out), o.PerTenant)
			if room <= 0 {
				break
			}
			tenant := list[(start+i)%len(list)]
			if out, err = t.claimTenant(out, tenant, o, room); err != nil {
				return err
			}
			t.served[o.Lane] = tenant
		}
		if len(out) > 0 {
			failpoint.Hit("claim.written")
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim due deliveries: %w", err)
	}
	return out, nil
}

func (t *tx) tenantsDue(lane delivery.Lane, now time.Time) ([]ids.ID, error) {
	rows, err := t.query(dueTenants, lane, millis(now))
	if err != nil {
		return nil, err
	}
	return collect(rows, scanID)
}

func (t *tx) claimTenant(out []delivery.Claimed, tenant ids.ID, o delivery.ClaimOrder, limit int) ([]delivery.Claimed, error) {
	rows, err := t.query(selectDue, o.Lane, tenant, millis(o.Now), limit)
	if err != nil {
		return out, err
	}
	found, err := collect(rows, func(r *sql.Rows) (c delivery.Claimed, err error) {
		var flags, own int
		c.Row, err = scanRow(r, &flags, &own)
		c.Begun = own&flagBegun != 0
		c.AtMostOnce, c.Canceled = flags&flagAtMostOnce != 0, flags&flagCanceled != 0
		return c, err
	})
	if err != nil {
		return out, err
	}
	for _, c := range found {
		if err := t.lease(&c, o); err != nil {
			return out, err
		}
		if c.Now, err = t.target(c.Tenant, c.Target, c.Channel); err != nil {
			return out, err
		}
		out = append(out, c)
	}
	return out, nil
}

func (t *tx) lease(c *delivery.Claimed, o delivery.ClaimOrder) error {
	c.Was = c.State
	key := []any{c.Tenant, c.Notification, c.Target}
	if c.Was == delivery.Sending {
		if c.Attempts > 0 {
			if err := t.exec(keepAttempt, append(key, c.Claim)...); err != nil {
				return err
			}
		}
		if err := t.exec(unknownAttempt, append([]any{millis(c.UpdatedAt), channels.Unknown}, key...)...); err != nil {
			return err
		}
		c.Takeovers++
		c.Attempts++
		c.Unknown = true
		c.Renewed = channels.RenewNothing
	}
	c.State, c.Claim, c.DueAt, c.HoldID = delivery.Sending, o.Claim, o.Lease, 0
	flags := 0
	if c.Unknown {
		flags = flagUnknown
	}
	if c.Was == delivery.Sending && c.Begun {
		flags |= flagBegun // until the takeover is settled
	}
	return t.exec(lease, append([]any{millis(o.Lease), o.Claim, c.Takeovers, flags, millis(o.Now)}, key...)...)
}

// Begin implements delivery.QueueStore. The flag stays through takeovers, until one
// is settled, and goes when the row is claimed from another state.
func (s *Store) Begin(ctx context.Context, r delivery.Row) (ours bool, err error) {
	err = s.do(ctx, 1, func(t *tx) error {
		n, err := t.affect(`UPDATE deliveries SET flags=flags|2 WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2`,
			r.Tenant, r.Notification, r.Target, r.Claim)
		ours = n == 1
		return err
	})
	return ours, err
}

// Renew implements delivery.QueueStore.
func (s *Store) Renew(ctx context.Context, rows []delivery.Row, until time.Time) ([]bool, error) {
	kept := make([]bool, len(rows))
	err := s.do(context.WithoutCancel(ctx), len(rows), func(t *tx) error {
		for i, r := range rows {
			n, err := t.affect(`UPDATE deliveries SET due_at=? WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2`,
				millis(until), r.Tenant, r.Notification, r.Target, r.Claim)
			if err != nil {
				return err
			}
			kept[i] = n == 1
		}
		return nil
	})
	return kept, err
}

// LapseLeases makes every lease on this database end now. It is called once,
// when the engine starts with the lock in hand: no other process can hold one.
func (s *Store) LapseLeases(ctx context.Context) (int64, error) {
	var n int64
	err := s.do(ctx, maxBatch, func(t *tx) (err error) {
		n, err = t.affect(`UPDATE deliveries INDEXED BY deliveries_due SET due_at=0 WHERE state<4 AND state=2 AND due_at>0`)
		return err
	})
	return n, err
}

// Unfinished implements delivery.QueueStore.
func (s *Store) Unfinished(ctx context.Context, limit int) (int, error) {
	var n int
	err := s.readDB.QueryRowContext(ctx,
		`SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE state<4 LIMIT ?)`, limit).Scan(&n)
	return n, err
}

// Content implements delivery.QueueStore.
func (s *Store) Content(ctx context.Context, tenant, notification ids.ID) ([]byte, error) {
	st, err := s.stmt("SELECT body FROM payloads WHERE notification_id=? AND tenant_id=?")
	if err != nil {
		return nil, err
	}
	var sealed []byte
	if err := st.QueryRowContext(ctx, notification, tenant).Scan(&sealed); err != nil {
		return nil, notFoundOr(err, "content")
	}
	return s.unseal(sealPayload, tenant, notification, sealed)
}

// scanner is a row to scan from, single or of a list.
type scanner interface{ Scan(into ...any) error }

func scanRow(r scanner, more ...any) (delivery.Row, error) {
	var (
		d                     delivery.Row
		due, expires, updated int64
		flags                 int
	)
	err := r.Scan(append([]any{&d.Tenant, &d.Notification, &d.Target, &d.Channel, &d.Lane, &d.State, &d.Reason, &d.UserID, &d.Epoch,
		&d.Credential, &due, &expires, &d.Claim, &d.HoldID, &d.Round, &d.Spent, &d.Attempts, &d.Takeovers, &flags, &d.Renewed, &updated},
		more...)...)
	d.DueAt, d.ExpiresAt, d.UpdatedAt = time.UnixMilli(due), time.UnixMilli(expires), time.UnixMilli(updated)
	d.Unknown = flags&flagUnknown != 0
	return d, err
}

func scanID(r *sql.Rows) (id ids.ID, err error) {
	err = r.Scan(&id)
	return id, err
}

// collect scans all rows and closes them.
func collect[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) (out []T, err error) {
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return out, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

const selectDeviceNow = `SELECT user_id,epoch,status,app,vapid_key,expires_at,kind,address,environment,keys,os,registered_at
 FROM devices WHERE id=? AND tenant_id=?`

const selectEndpointNow = `SELECT user_id,url,sealed FROM endpoints WHERE id=? AND tenant_id=?`

// target reads a target as it is now.
func (t *tx) target(tenant, target ids.ID, k channels.Kind) (delivery.TargetNow, error) {
	return t.s.targetNow(tenant, target, k, func(query string) scanner {
		st, err := t.prepare(query)
		if err != nil {
			return failed{err}
		}
		return st.QueryRowContext(t.ctx, target, tenant)
	})
}

// Target implements delivery.QueueStore.
func (s *Store) Target(ctx context.Context, tenant, target ids.ID, k channels.Kind) (delivery.TargetNow, error) {
	return s.targetNow(tenant, target, k, func(query string) scanner {
		st, err := s.stmt(query)
		if err != nil {
			return failed{err}
		}
		return st.QueryRowContext(ctx, target, tenant)
	})
}

type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

func (s *Store) targetNow(tenant, target ids.ID, k channels.Kind, row func(query string) scanner) (delivery.TargetNow, error) {
	now := delivery.TargetNow{ReadAt: s.now(), Channel: k}
	var err error
	if k == channels.Webhook {
		var sealed []byte
		now.Target.Kind = channels.URL
		err = row(selectEndpointNow).Scan(&now.UserID, &now.Target.Address, &sealed)
		if err == nil {
			now.Target.Secrets, err = s.signingKeys(tenant, target, sealed, now.ReadAt)
		}
	} else {
		var (
			registered, expires int64
			keys                []byte
			t                   = &now.Target
		)
		err = row(selectDeviceNow).Scan(&now.UserID, &now.Epoch, &now.Device, &now.App, &now.VAPIDKey, &expires,
			&t.Kind, &t.Address, &t.Environment, &keys, &t.OS, &registered)
		t.RegisteredAt, now.ExpiresAt = fromMillis(registered), fromMillis(expires)
		t.P256dh, t.Auth = splitKeys(keys)
	}
	if isNoRows(err) {
		return now, nil
	}
	now.Exists = err == nil
	return now, err
}

// splitKeys parts the stored keys of a subscription: p256dh (65 octets), auth (16).
func splitKeys(keys []byte) (p256dh, auth []byte) {
	const point = 65
	if len(keys) <= point {
		return nil, nil
	}
	return keys[:point:point], keys[point:]
}

func joinKeys(t channels.Target) []byte {
	return append(append(make([]byte, 0, len(t.P256dh)+len(t.Auth)), t.P256dh...), t.Auth...)
}
