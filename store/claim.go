package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
)

var _ delivery.ClaimStore = (*Store)(nil)

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
 (SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE lane=?1 AND tenant_id=t.id AND state<4 AND due_at<=?2 AND due_at>=?3)`

const rowColumns = `d.tenant_id,d.notification_id,d.target_id,d.channel,d.lane,d.state,d.reason,coalesce(d.user_id,0),d.device_epoch,
 d.credential_id,d.due_at,d.expires_at,d.claim,d.hold_id,d.round,d.spent,d.attempts,d.takeovers,d.flags,d.renewed,d.updated_at`

const selectDue = `SELECT ` + rowColumns + `, coalesce((SELECT n.flags FROM notifications n WHERE n.tenant_id=d.tenant_id AND n.id=d.notification_id),0), d.flags
 FROM deliveries d INDEXED BY deliveries_due WHERE d.lane=? AND d.tenant_id=? AND d.state<4 AND d.due_at<=? ORDER BY d.due_at LIMIT ?`

const lease = `UPDATE deliveries SET state=2, due_at=?, claim=?, hold_id=0, takeovers=?, flags=?, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND target_id=?`

// keepAttempt moves the newest attempt out of the row before another takes its place.
const keepAttempt = `INSERT INTO attempts
 (tenant_id,notification_id,target_id,number,at,ms,outcome,status,ambiguous,code,detail,provider_id)
 SELECT tenant_id,notification_id,target_id,attempts,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id
 FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2 AND attempts>0 ON CONFLICT DO NOTHING`

// unknownAttempt records the attempt that a node which died may have made.
const unknownAttempt = `UPDATE deliveries SET attempts=attempts+1, renewed=0, att_at=?, att_ms=0, att_outcome=?, att_status=0, att_ambiguous=1,
 att_code='takeover', att_detail='The node that held the delivery stopped; whether it made the attempt is unknown.', att_provider_id=''
 WHERE tenant_id=? AND notification_id=? AND target_id=?`

// Claim implements delivery.QueueStore.
func (s *Store) Claim(ctx context.Context, o delivery.ClaimOrder) ([]delivery.Claimed, error) {
	var out []delivery.Claimed
	ran := false
	err := s.do(context.WithoutCancel(ctx), o.Limit, func(t *tx) (err error) {
		if ran { // what it found before was not committed
			s.turns.forget(o.Lane)
		}
		ran = true
		if s.onPostgres() {
			out, err = t.claimShared(o)
		} else {
			out, err = t.claim(o)
		}
		if len(out) > 0 {
			failpoint.Hit("claim.written")
		}
		return err
	})
	if err != nil {
		s.turns.forget(o.Lane)
		return nil, fmt.Errorf("claim due deliveries: %w", err)
	}
	return out, nil
}

// turns keeps, for each lane, what one claim tells the next.
type turns struct {
	mu    sync.Mutex
	lanes [delivery.LanesCount]turn
}

type turn struct {
	// served is the tenant that the last claim ended with. Each goes on behind
	// it, so that a full claim starves none.
	served ids.ID
	// On PostgreSQL: see claimShared.
	tenants []ids.ID
	lately  map[ids.ID]time.Time
	looked  time.Time
	took    time.Duration
	asOf    time.Time // of the last look, by the time that is due
	mark    int64
	wholeAt time.Time
}

// forget makes the next claim of a lane look at everything.
func (u *turns) forget(l delivery.Lane) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lanes[l].wholeAt = time.Time{}
}

// from puts the tenants in the order of this claim.
func (u *turn) from(list []ids.ID) []ids.ID {
	start := sort.Search(len(list), func(i int) bool { return list[i] > u.served })
	return append(slices.Clone(list[start:]), list[:start]...)
}

func (t *tx) claim(o delivery.ClaimOrder) (out []delivery.Claimed, err error) {
	t.s.turns.mu.Lock()
	defer t.s.turns.mu.Unlock()
	turn := &t.s.turns.lanes[o.Lane]
	list, err := t.tenantsDue(o.Lane, o.Now, 0)
	if err != nil {
		return nil, err
	}
	for _, tenant := range turn.from(list) {
		room := min(o.Limit-len(out), o.PerTenant)
		if room <= 0 {
			break
		}
		if out, err = t.claimTenant(out, tenant, o, room); err != nil {
			return nil, err
		}
		turn.served = tenant
	}
	return out, nil
}

func (t *tx) tenantsDue(lane delivery.Lane, now time.Time, mark int64) ([]ids.ID, error) {
	rows, err := t.query(dueTenants, lane, millis(now), mark)
	if err != nil {
		return nil, err
	}
	due, err := collect(rows, scanID)
	if err != nil || len(due) == 0 {
		return due, err
	}
	// What is left of a tenant that is being deleted is to be removed, and cannot
	// be opened any more.
	if rows, err = t.query("SELECT id FROM tenants WHERE deleted_at<>0"); err != nil {
		return nil, err
	}
	gone, err := collect(rows, scanID)
	return slices.DeleteFunc(due, func(id ids.ID) bool { return slices.Contains(gone, id) }), err
}

func (t *tx) claimTenant(out []delivery.Claimed, tenant ids.ID, o delivery.ClaimOrder, limit int) ([]delivery.Claimed, error) {
	rows, err := t.query(selectDue, o.Lane, tenant, millis(o.Now), limit)
	if err != nil {
		return out, err
	}
	found, err := collect(rows, scanClaimed)
	if err != nil {
		return out, err
	}
	for _, c := range found {
		if err := t.takeOver(&c); err != nil {
			return out, err
		}
		if err := t.exec(lease, millis(o.Lease), o.Claim, c.Takeovers, c.leased(o), millis(o.Now), c.Tenant, c.Notification, c.Target); err != nil {
			return out, err
		}
		if c.Now, err = t.target(c.Tenant, c.Target, c.Channel); err != nil {
			return out, err
		}
		out = append(out, c.Claimed)
	}
	return out, nil
}

// claimed is a due row on its way to a worker.
type claimed struct{ delivery.Claimed }

func scanClaimed(r *sql.Rows) (c claimed, err error) {
	var flags, own int
	c.Row, err = scanRow(r, &flags, &own)
	c.Was, c.Begun = c.State, own&flagBegun != 0
	c.AtMostOnce, c.Canceled = flags&flagAtMostOnce != 0, flags&flagCanceled != 0
	return c, err
}

// takeOver records what a node that died with the row may have done.
func (t *tx) takeOver(c *claimed) error {
	if c.Was != delivery.Sending {
		return nil
	}
	key := []any{c.Tenant, c.Notification, c.Target}
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
	return nil
}

// leased makes the row what the lease makes of it, and returns its flags.
func (c *claimed) leased(o delivery.ClaimOrder) (flags int) {
	c.State, c.Claim, c.DueAt, c.HoldID = delivery.Sending, o.Claim, o.Lease, 0
	if c.Unknown {
		flags = flagUnknown
	}
	if c.Was == delivery.Sending && c.Begun {
		flags |= flagBegun // until the takeover is settled
	}
	return flags
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
		if s.onPostgres() {
			return t.renewTogether(rows, until, kept)
		}
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
		now := millis(s.now())
		n, err = t.affect(`UPDATE deliveries INDEXED BY deliveries_due SET due_at=? WHERE state<4 AND state=2 AND due_at>?`, now, now)
		if err != nil {
			return err
		}
		return t.exec(`UPDATE jobs SET lease_until=?, claim=0 WHERE state<3 AND claim<>0`, now)
	})
	return n, err
}

// Unfinished implements delivery.QueueStore.
func (s *Store) Unfinished(ctx context.Context, limit int) (int, error) {
	var n int
	err := s.readDB.QueryRowContext(ctx,
		`SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE state<4 LIMIT ?) AS unfinished`, limit).Scan(&n)
	return n, err
}

// Content implements delivery.QueueStore.
func (s *Store) Content(ctx context.Context, tenant, notification ids.ID) ([]byte, error) {
	var sealed []byte
	if err := s.queryRow(ctx, "SELECT body FROM payloads WHERE notification_id=? AND tenant_id=?", notification, tenant).Scan(&sealed); err != nil {
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

const (
	deviceNow   = `SELECT id,user_id,epoch,status,app,vapid_key,expires_at,kind,address,environment,keys,os,registered_at,tenant_id FROM devices`
	endpointNow = `SELECT id,user_id,url,sealed,tenant_id FROM endpoints`
	byID        = ` WHERE id=? AND tenant_id=?`
)

// target reads a target as it is now.
func (t *tx) target(tenant, target ids.ID, k channels.Kind) (delivery.TargetNow, error) {
	return t.s.targetNow(t.queryRow, tenant, target, k)
}

// Target implements delivery.QueueStore.
func (s *Store) Target(ctx context.Context, tenant, target ids.ID, k channels.Kind) (delivery.TargetNow, error) {
	return s.targetNow(func(query string, args ...any) scanner { return s.queryRow(ctx, query, args...) }, tenant, target, k)
}

type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

func (s *Store) targetNow(row func(query string, args ...any) scanner, tenant, target ids.ID, k channels.Kind) (now delivery.TargetNow, err error) {
	if k == channels.Webhook {
		_, now, err = s.scanEndpointNow(row(endpointNow+byID, target, tenant))
	} else {
		_, now, err = s.scanDeviceNow(row(deviceNow+byID, target, tenant))
		now.Channel = k
	}
	if isNoRows(err) {
		return delivery.TargetNow{ReadAt: s.now(), Channel: k}, nil
	}
	return now, err
}

// owned is the id of a target with whose it is.
type owned struct{ tenant, id ids.ID }

func (s *Store) scanDeviceNow(r scanner) (o owned, now delivery.TargetNow, err error) {
	var (
		registered, expires int64
		keys                []byte
		t                   = &now.Target
	)
	err = r.Scan(&o.id, &now.UserID, &now.Epoch, &now.Device, &now.App, &now.VAPIDKey, &expires,
		&t.Kind, &t.Address, &t.Environment, &keys, &t.OS, &registered, &o.tenant)
	t.RegisteredAt, now.ExpiresAt = fromMillis(registered), fromMillis(expires)
	t.P256dh, t.Auth = splitKeys(keys)
	now.ReadAt, now.Exists = s.now(), err == nil
	return o, now, err
}

func (s *Store) scanEndpointNow(r scanner) (o owned, now delivery.TargetNow, err error) {
	var sealed []byte
	now.Target.Kind, now.Channel, now.ReadAt = channels.URL, channels.Webhook, s.now()
	err = r.Scan(&o.id, &now.UserID, &now.Target.Address, &sealed, &o.tenant)
	if err == nil {
		now.Target.Secrets, err = s.signingKeys(o.tenant, o.id, sealed, now.ReadAt)
	}
	now.Exists = err == nil
	return o, now, err
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
