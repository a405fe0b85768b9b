package queue

import (
	"context"
	"database/sql"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

// What is unfinished, by tenant. Each walks an index in its order, and keeps one
// sum at a time: rows that are final cost nothing.
const (
	unfinishedDeliveries = `SELECT tenant_id,count(*),sum(CASE WHEN due_at<=? THEN 1 ELSE 0 END)
 FROM deliveries INDEXED BY deliveries_due WHERE state<4 GROUP BY lane,tenant_id`
	unfinishedScheduled = `SELECT tenant_id,count(*),0 FROM fanouts GROUP BY tenant_id`
)

// Unfinished implements delivery.BacklogStore.
func (s *claims) Unfinished(ctx context.Context, now time.Time) (map[ids.ID]delivery.Unfinished, error) {
	all := map[ids.ID]delivery.Unfinished{}
	note := func(r *sql.Rows) (_ struct{}, err error) {
		var (
			tenant      ids.ID
			stored, due int
		)
		err = r.Scan(&tenant, &stored, &due)
		n := all[tenant]
		all[tenant] = delivery.Unfinished{Due: n.Due + due, Stored: n.Stored + stored}
		return struct{}{}, err
	}
	rows, err := s.db.Lists().QueryContext(ctx, unfinishedDeliveries, db.Millis(now))
	if err != nil {
		return nil, err
	}
	if _, err := db.Collect(rows, note); err != nil {
		return nil, err
	}
	if rows, err = s.db.Lists().QueryContext(ctx, unfinishedScheduled); err != nil {
		return nil, err
	}
	_, err = db.Collect(rows, note)
	return all, err
}
