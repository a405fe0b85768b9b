package queue

import (
	"context"
	"database/sql"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/store/db"
)

// scheduled keeps notifications whose targets are resolved when they are due.
type scheduled struct {
	db      *db.DB
	accepts *accepts
}

// DueScheduled implements delivery.ScheduledStore.
func (s *scheduled) DueScheduled(ctx context.Context, now time.Time, limit int) ([]delivery.Scheduled, error) {
	var due bool
	if err := s.db.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM fanouts WHERE due_at<=?)", db.Millis(now)).Scan(&due); err != nil || !due {
		return nil, err
	}
	var out []delivery.Scheduled
	err := s.db.Do(context.WithoutCancel(ctx), limit, func(t *db.Tx) (err error) {
		out, err = leaseScheduled(t, now, limit)
		return err
	})
	return out, err
}

// scheduledLease is how long one is a node's; what could not be resolved is
// tried again after it. Two that resolve the same one do no harm: one is stored.
const scheduledLease = 3 * time.Second

func leaseScheduled(t *db.Tx, now time.Time, limit int) ([]delivery.Scheduled, error) {
	rows, err := t.Query(t.Locking(`SELECT f.tenant_id,f.notification_id,n.lane,n.send_at,n.flags,n.type FROM fanouts f
 JOIN notifications n ON n.tenant_id=f.tenant_id AND n.id=f.notification_id
 JOIN tenants t ON t.id=f.tenant_id AND t.deleted_at=0 WHERE f.due_at<=? ORDER BY f.due_at LIMIT ?`, "UPDATE OF f SKIP LOCKED"), db.Millis(now), limit)
	if err != nil {
		return nil, err
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (m delivery.Scheduled, err error) {
		var (
			flags int
			at    int64
		)
		err = r.Scan(&m.Tenant, &m.Notification, &m.Lane, &at, &flags, &m.Type)
		m.SendAt, m.AtMostOnce = db.FromMillis(at), flags&flagAtMostOnce != 0
		return m, err
	})
	if err != nil {
		return nil, err
	}
	for _, m := range list {
		if err := t.Exec("UPDATE fanouts SET due_at=? WHERE tenant_id=? AND notification_id=?",
			db.Millis(now.Add(scheduledLease)), m.Tenant, m.Notification); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// ResolveScheduled implements delivery.ScheduledStore.
func (s *scheduled) ResolveScheduled(ctx context.Context, a delivery.Accepted) (bool, error) {
	there := false
	err := s.db.Do(context.WithoutCancel(ctx), len(a.Rows)+1, func(t *db.Tx) error {
		n, err := t.Affect("DELETE FROM fanouts WHERE tenant_id=? AND notification_id=?", a.Tenant, a.ID)
		if there = n == 1; err != nil || !there {
			return err
		}
		if err := t.Exec("UPDATE notifications SET flags=flags & ~8, targets=? WHERE tenant_id=? AND id=?", len(a.Rows), a.Tenant, a.ID); err != nil {
			return err
		}
		err = s.accepts.targets(t, &a)
		failpoint.Hit("unfold.written")
		return err
	})
	return there, err
}
