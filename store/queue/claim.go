package queue

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
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

const selectDue = `SELECT ` + rowColumns + `, coalesce((SELECT n.flags FROM notifications n WHERE n.tenant_id=d.tenant_id AND n.id=d.notification_id),0), d.flags
 FROM deliveries d INDEXED BY deliveries_due WHERE d.lane=? AND d.tenant_id=? AND d.state<4 AND d.due_at<=? ORDER BY d.due_at LIMIT ?`

const lease = `UPDATE deliveries SET state=2, due_at=?, claim=?, hold_id=0, takeovers=?, flags=?, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND target_id=?`

// keepAttempt moves the newest attempt out of the row before another takes its place.
const keepAttempt = `INSERT INTO attempts
 (tenant_id,notification_id,target_id,number,at,ms,outcome,status,ambiguous,code,detail,provider_id)
 SELECT tenant_id,notification_id,target_id,attempts,att_at,att_ms,att_outcome,att_status,att_ambiguous,att_code,att_detail,att_provider_id
 FROM deliveries WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2 AND attempts>0 ON CONFLICT DO NOTHING`

// unknownAttempt makes an attempt whose end is not known the newest.
const unknownAttempt = `UPDATE deliveries SET attempts=attempts+1, renewed=0, att_at=?, att_ms=0, att_outcome=?, att_status=0, att_ambiguous=?,
 att_code=?, att_detail=?, att_provider_id='' WHERE tenant_id=? AND notification_id=? AND target_id=?`

// claims leases what is due.
type claims struct {
	db      *db.DB
	targets *targets
	hints   *hints
	turns   turns
	take    func(*claims, *db.Tx, delivery.ClaimOrder) ([]delivery.Claimed, error)
	renew   func(t *db.Tx, rows []delivery.Row, until time.Time, kept []bool) error
}

func newClaims(d *db.DB, t *targets, h *hints) *claims {
	s := &claims{db: d, targets: t, hints: h, take: db.Pick(d, (*claims).takeAlone, (*claims).takeShared), renew: db.Pick(d, renewEach, renewTogether)}
	d.TakeOver(s.lapseNode)
	return s
}

// Claim implements delivery.ClaimStore.
func (s *claims) Claim(ctx context.Context, o delivery.ClaimOrder) ([]delivery.Claimed, error) {
	var out []delivery.Claimed
	ran := false
	err := s.db.Do(context.WithoutCancel(ctx), o.Limit, func(t *db.Tx) (err error) {
		if ran { // what it found before was not committed
			s.turns.forget(o.Lane)
		}
		ran = true
		out, err = s.take(s, t, o)
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

func (s *claims) takeAlone(t *db.Tx, o delivery.ClaimOrder) (out []delivery.Claimed, err error) {
	s.turns.mu.Lock()
	defer s.turns.mu.Unlock()
	turn := &s.turns.lanes[o.Lane]
	list, err := tenantsDue(t, o.Lane, o.Now, 0)
	if err != nil {
		return nil, err
	}
	for _, tenant := range turn.from(list) {
		room := min(o.Limit-len(out), o.PerTenant)
		if room <= 0 {
			break
		}
		if slices.Contains(o.Full, tenant) {
			continue
		}
		if out, err = s.claimTenant(t, out, tenant, o, room); err != nil {
			return nil, err
		}
		turn.served = tenant
	}
	return out, nil
}

func tenantsDue(t *db.Tx, lane delivery.Lane, now time.Time, mark int64) ([]ids.ID, error) {
	rows, err := t.Query(dueTenants, lane, db.Millis(now), mark)
	if err != nil {
		return nil, err
	}
	due, err := db.Collect(rows, db.ScanID)
	if err != nil || len(due) == 0 {
		return due, err
	}
	// What is left of a tenant that is being deleted is to be removed, and cannot
	// be opened any more.
	if rows, err = t.Query("SELECT id FROM tenants WHERE deleted_at<>0"); err != nil {
		return nil, err
	}
	gone, err := db.Collect(rows, db.ScanID)
	return slices.DeleteFunc(due, func(id ids.ID) bool { return slices.Contains(gone, id) }), err
}

func (s *claims) claimTenant(t *db.Tx, out []delivery.Claimed, tenant ids.ID, o delivery.ClaimOrder, limit int) ([]delivery.Claimed, error) {
	rows, err := t.Query(selectDue, o.Lane, tenant, db.Millis(o.Now), limit)
	if err != nil {
		return out, err
	}
	found, err := db.Collect(rows, scanClaimed)
	if err != nil {
		return out, err
	}
	for _, c := range found {
		if err := recordLost(t, &c); err != nil {
			return out, err
		}
		if err := t.Exec(lease, db.Millis(o.Lease), o.Claim, c.Takeovers, c.leased(o), db.Millis(o.Now), c.Tenant, c.Notification, c.Target); err != nil {
			return out, err
		}
		if c.Now, err = s.targets.in(t, c.Tenant, c.Target, c.Channel); err != nil {
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
	c.Was, c.Begun, c.Asked = c.State, own&flagBegun != 0, own&flagAsked != 0
	c.AtMostOnce, c.Canceled = flags&flagAtMostOnce != 0, flags&flagCanceled != 0
	return c, err
}

// recordLost records what a node that died with the row may have done, unless it did
// nothing.
func recordLost(t *db.Tx, c *claimed) error {
	if !c.MayHaveBegun() {
		return nil
	}
	key := []any{c.Tenant, c.Notification, c.Target}
	if c.Attempts > 0 {
		if err := t.Exec(keepAttempt, append(key, c.Claim)...); err != nil {
			return err
		}
	}
	if err := RecordLostAttempt(t, db.Millis(c.UpdatedAt), c.Tenant, c.Notification, c.Target); err != nil {
		return err
	}
	c.Takeovers++
	c.Attempts++
	c.Unknown = true
	c.Renewed = channels.RenewNothing
	return nil
}

// RecordLostAttempt records the attempt that a node which died may have made, as
// its newest. at is in Unix milliseconds.
func RecordLostAttempt(t *db.Tx, at int64, tenant, notification, target ids.ID) error {
	lost := delivery.LostAttempt(0, db.FromMillis(at))
	return t.Exec(unknownAttempt, at, lost.Outcome, lost.Ambiguous, lost.Code, lost.Detail, tenant, notification, target)
}

// leased makes the row what the lease makes of it, and returns its flags.
func (c *claimed) leased(o delivery.ClaimOrder) (flags int) {
	c.State, c.Claim, c.DueAt, c.HoldID = delivery.Sending, o.Claim, o.Lease, 0
	if c.Unknown {
		flags = flagUnknown
	}
	if c.Was == delivery.Sending && c.Begun && c.AtMostOnce {
		flags |= flagBegun // until the takeover has ended; the others are sent again
	}
	return flags
}
