package queue

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
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
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

// turns keeps, for each lane, what one claim tells the next.
type turns struct {
	mu    sync.Mutex
	lanes [delivery.LanesCount]turn
}

type turn struct {
	// served is the tenant that the last claim ended with. Each goes on behind
	// it, so that a full claim starves none.
	served ids.ID
	// On PostgreSQL: see takeShared.
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
	c.Was, c.Begun = c.State, own&flagBegun != 0
	c.AtMostOnce, c.Canceled = flags&flagAtMostOnce != 0, flags&flagCanceled != 0
	return c, err
}

// recordLost records what a node that died with the row may have done.
func recordLost(t *db.Tx, c *claimed) error {
	if c.Was != delivery.Sending {
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
	if c.Was == delivery.Sending && c.Begun {
		flags |= flagBegun // until the takeover is settled
	}
	return flags
}

// Begin implements delivery.BeginStore. The flag stays through takeovers, until one
// is settled, and goes when the row is claimed from another state.
func (s *claims) Begin(ctx context.Context, r delivery.Row) (ours bool, err error) {
	err = s.db.Do(ctx, 1, func(t *db.Tx) error {
		n, err := t.Affect(`UPDATE deliveries SET flags=flags|2 WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2`,
			r.Tenant, r.Notification, r.Target, r.Claim)
		ours = n == 1
		return err
	})
	return ours, err
}

// Renew implements delivery.LeaseStore.
func (s *claims) Renew(ctx context.Context, rows []delivery.Row, until time.Time) ([]bool, error) {
	kept := make([]bool, len(rows))
	err := s.db.Do(context.WithoutCancel(ctx), len(rows), func(t *db.Tx) error {
		return s.renew(t, rows, until, kept)
	})
	return kept, err
}

func renewEach(t *db.Tx, rows []delivery.Row, until time.Time, kept []bool) error {
	for i, r := range rows {
		n, err := t.Affect(`UPDATE deliveries SET due_at=? WHERE tenant_id=? AND notification_id=? AND target_id=? AND claim=? AND state=2`,
			db.Millis(until), r.Tenant, r.Notification, r.Target, r.Claim)
		if err != nil {
			return err
		}
		kept[i] = n == 1
	}
	return nil
}

// LapseLeases makes every lease on this database end now. It is called once,
// when the engine starts with the lock in hand: no other process can hold one.
func (s *claims) LapseLeases(ctx context.Context) (int64, error) {
	var n int64
	err := s.db.Do(ctx, db.MaxBatch, func(t *db.Tx) (err error) {
		now := db.Millis(s.db.Now())
		n, err = t.Affect(`UPDATE deliveries INDEXED BY deliveries_due SET due_at=? WHERE state<4 AND state=2 AND due_at>?`, now, now)
		if err != nil {
			return err
		}
		return registers.LapseJobs(t, now)
	})
	return n, err
}

// Unfinished implements delivery.BacklogStore.
func (s *claims) Unfinished(ctx context.Context, limit int) (int, error) {
	var n int
	err := s.db.Reads().QueryRowContext(ctx,
		`SELECT count(*) FROM (SELECT 1 FROM deliveries INDEXED BY deliveries_due WHERE state<4 LIMIT ?) AS unfinished`, limit).Scan(&n)
	return n, err
}

// lapseAtOnce is how many leases of a dead node end in one transaction.
const lapseAtOnce = 1000

// lapseNode ends the leases of a node: its number is in the claims. Should that be
// cut short, they end by themselves.
func (s *claims) lapseNode(ctx context.Context, node int) (lapsed int, err error) {
	defer s.hints.Hint(delivery.Hint{Kind: delivery.HintDue})
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT tenant_id,notification_id,target_id,claim FROM deliveries
 WHERE state<4 AND state=2 AND (claim>>12)&1023=?`, node)
	if err != nil {
		return 0, err
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (d delivery.Row, err error) {
		return d, r.Scan(&d.Tenant, &d.Notification, &d.Target, &d.Claim)
	})
	if err != nil {
		return 0, err
	}
	for part := range slices.Chunk(list, lapseAtOnce) {
		if _, err := s.Renew(ctx, part, s.db.Now()); err != nil { // for no time at all
			return lapsed, err
		}
		lapsed += len(part)
	}
	return lapsed, nil
}
