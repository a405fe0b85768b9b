package queue

import (
	"context"
	"database/sql"
	"slices"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// Begin implements delivery.BeginStore. The flag goes when the row is claimed again; of
// what must not be sent twice it stays through takeovers, until one has ended.
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
