package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

const (
	moveNewestTogether = `INSERT INTO newest AS w (tenant_id,target_id,order_key,notification_id,previous_id,moved_at)
 SELECT v.tenant,v.target,v.key,v.notification,0,$5 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::bigint[]) WITH ORDINALITY
  AS v(tenant,target,key,notification,n) ORDER BY v.n` + moved + `$6` + returned + `,tenant_id,target_id,order_key`

	lockDeliveries = `SELECT 1 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[]) AS v(tenant,notification,target)
 JOIN deliveries d ON d.tenant_id=v.tenant AND d.notification_id=v.notification AND d.target_id=v.target
 ORDER BY d.tenant_id,d.notification_id,d.target_id FOR UPDATE OF d`

	dropSupersededTogether = `UPDATE deliveries d SET state=$5, reason=$6, due_at=0, hold_id=0, superseded_by=v.newer, updated_at=$7
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::bigint[]) AS v(tenant,notification,target,newer)
 WHERE d.tenant_id=v.tenant AND d.notification_id=v.notification AND d.target_id=v.target AND d.state IN (1,3)`

	// olderInHand walks from a delivery to the one that it replaced, and on, until one
	// that has made an attempt: it began when none before it was in hand any more. An
	// attempt that is only supposed, of a node that died, says nothing.
	olderInHand = `WITH RECURSIVE older(id,n) AS (SELECT $3::bigint,1
 UNION ALL SELECT d.replaces,o.n+1 FROM older o JOIN deliveries d ON d.tenant_id=$1 AND d.notification_id=o.id AND d.target_id=$2
  WHERE d.replaces IS NOT NULL AND (d.attempts=0 OR d.flags&1<>0) AND o.n<$5)
SELECT count(*) FROM older o JOIN deliveries d ON d.tenant_id=$1 AND d.notification_id=o.id AND d.target_id=$2
 WHERE d.state=2 AND (d.claim>>12)&1023<>$4`
)

// mostOlder is how far olderInHand walks.
const mostOlder = 100

// OlderInHand implements delivery.NewestStore. Where nobody else sends the engine knows
// itself what it has in hand.
func (s *newest) OlderInHand(ctx context.Context, r delivery.Row) (bool, error) {
	if !s.db.Shared() || r.Replaces == 0 {
		return false, nil
	}
	n := 0
	if err := s.db.Reads().QueryRowContext(ctx, olderInHand, r.Tenant, r.Target, r.Replaces, s.db.IDs().Node(), mostOlder).Scan(&n); err != nil {
		return false, fmt.Errorf("look for older deliveries of a collapse key: %w", err)
	}
	return n > 0, nil
}

// superseding are deliveries and the newer notification of each.
type superseding map[rowKey]ids.ID

func (s superseding) add(rows []*delivery.Row) {
	for _, r := range rows {
		if r.Replaces != 0 {
			s[rowKey{int64(r.Tenant), int64(r.Replaces), int64(r.Target)}] = r.Notification
		}
	}
}

// dropTogether drops what rows supersede. Others that this transaction changes are
// locked with them, in one order: two transactions may supersede what the other
// finishes.
func dropTogether(t *db.Tx, older superseding, others []rowKey) error {
	if len(older) == 0 {
		return nil
	}
	var tenants, notifications, targets, newer []int64
	for _, k := range slices.Concat(slices.Collect(maps.Keys(older)), others) {
		tenants, notifications, targets = append(tenants, k.tenant), append(notifications, k.notification), append(targets, k.target)
	}
	if err := t.Exec(lockDeliveries, tenants, notifications, targets); err != nil {
		return fmt.Errorf("lock what is superseded: %w", err)
	}
	n := len(older)
	for i := range n {
		newer = append(newer, int64(older[rowKey{tenants[i], notifications[i], targets[i]}]))
	}
	to := delivery.Supersession(0)
	if err := t.Exec(dropSupersededTogether, tenants[:n], notifications[:n], targets[:n], newer, to.State, to.Reason, db.Millis(t.Now())); err != nil {
		return fmt.Errorf("drop what is superseded: %w", err)
	}
	return nil
}

func dropOlderTogether(t *db.Tx, rows []*delivery.Row) error {
	older := superseding{}
	older.add(rows)
	return dropTogether(t, older, nil)
}
