package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

// scheduled keeps notifications whose targets are resolved when they are due.
type scheduled struct {
	db      *db.DB
	accepts *accepts
	mu      sync.Mutex
	turn    turn
}

// DueScheduled implements delivery.ScheduledStore.
func (s *scheduled) DueScheduled(ctx context.Context, now time.Time, limit int) ([]delivery.Scheduled, error) {
	var due bool
	if err := s.db.QueryRow(ctx, "SELECT EXISTS (SELECT 1 FROM fanouts WHERE due_at<=?)", db.Millis(now)).Scan(&due); err != nil || !due {
		return nil, err
	}
	var out []delivery.Scheduled
	err := s.db.Do(context.WithoutCancel(ctx), limit, func(t *db.Tx) (err error) {
		out, err = s.lease(t, now, limit)
		return err
	})
	return out, err
}

// scheduledLease is how long one is a node's; what could not be resolved is
// tried again after it. Two that resolve the same one do no harm: one is stored.
const scheduledLease = 5 * time.Second

const (
	// dueScheduledTenants walks the index from tenant to tenant.
	dueScheduledTenants = `WITH RECURSIVE t(id) AS (
  SELECT min(tenant_id) FROM fanouts INDEXED BY fanouts_tenant
  UNION ALL
  SELECT (SELECT min(tenant_id) FROM fanouts INDEXED BY fanouts_tenant WHERE tenant_id>t.id) FROM t WHERE t.id IS NOT NULL)
SELECT id FROM t WHERE id IS NOT NULL AND EXISTS (SELECT 1 FROM fanouts INDEXED BY fanouts_tenant WHERE tenant_id=t.id AND due_at<=?)
 AND EXISTS (SELECT 1 FROM tenants WHERE tenants.id=t.id AND deleted_at=0) ORDER BY id`

	dueScheduled = `SELECT f.tenant_id,f.notification_id,n.lane,n.send_at,n.flags,n.type,f.stage,f.users_left,f.after_id
 FROM fanouts f INDEXED BY fanouts_tenant CROSS JOIN notifications n ON n.tenant_id=f.tenant_id AND n.id=f.notification_id
 WHERE f.tenant_id=? AND f.due_at<=? ORDER BY f.due_at LIMIT ?`
)

// lease takes of each tenant the same number, and begins behind the tenant that the last
// round ended with.
func (s *scheduled) lease(t *db.Tx, now time.Time, limit int) (list []delivery.Scheduled, err error) {
	rows, err := t.Query(dueScheduledTenants, db.Millis(now))
	if err != nil {
		return nil, err
	}
	tenants, err := db.Collect(rows, db.ScanID)
	if err != nil || len(tenants) == 0 {
		return nil, err
	}
	s.mu.Lock()
	tenants = s.turn.from(tenants)
	s.mu.Unlock()
	each := max(limit/len(tenants), 1)
	for _, tenant := range tenants[:min(limit, len(tenants))] {
		rows, err := t.Query(t.Locking(dueScheduled, "UPDATE OF f SKIP LOCKED"), tenant, db.Millis(now), each)
		if err != nil {
			return nil, err
		}
		its, err := db.Collect(rows, scanScheduled)
		if err != nil {
			return nil, err
		}
		list = append(list, its...)
		s.mu.Lock()
		s.turn.served = tenant
		s.mu.Unlock()
	}
	for _, m := range list {
		if err := t.Exec("UPDATE fanouts SET due_at=? WHERE tenant_id=? AND notification_id=?",
			db.Millis(now.Add(scheduledLease)), m.Tenant, m.Notification); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func scanScheduled(r *sql.Rows) (m delivery.Scheduled, err error) {
	var (
		flags int
		at    int64
	)
	err = r.Scan(&m.Tenant, &m.Notification, &m.Lane, &at, &flags, &m.Type, &m.FanOut.Stage, &m.FanOut.Left, &m.FanOut.After)
	m.SendAt, m.AtMostOnce = db.FromMillis(at), flags&flagAtMostOnce != 0
	return m, err
}

// DelayScheduled implements delivery.ScheduledStore.
func (s *scheduled) DelayScheduled(ctx context.Context, m delivery.Scheduled, until time.Time) error {
	return s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		return t.Exec("UPDATE fanouts SET due_at=?, moved_at=? WHERE tenant_id=? AND notification_id=?",
			db.Millis(until), db.Millis(t.Now()), m.Tenant, m.Notification)
	})
}

// ResolveScheduled implements delivery.ScheduledStore.
func (s *scheduled) ResolveScheduled(ctx context.Context, p delivery.Part) (bool, error) {
	there := false
	err := s.db.Do(context.WithoutCancel(ctx), len(p.Rows)+1, func(t *db.Tx) (err error) {
		a := p.Accepted // its rows change, and it may run again
		if there, err = advance(t, &p); err != nil || !there {
			return err
		}
		if p.At.Stage != delivery.FanOutBegins {
			if a.Rows, err = unstored(t, &a); err != nil {
				return err
			}
		}
		resolved := "UPDATE notifications SET targets=targets+?"
		if p.Next == nil {
			resolved += ", flags=flags & ~8"
		}
		if err := t.Exec(resolved+" WHERE tenant_id=? AND id=?", len(a.Rows), a.Tenant, a.ID); err != nil {
			return err
		}
		if err := s.accepts.part(t, &a, &p); err != nil {
			return err
		}
		failpoint.Hit("unfold.written")
		return nil
	})
	return there, err
}

// advance moves a fan-out on, or ends it; false: it is not where it was found.
func advance(t *db.Tx, p *delivery.Part) (bool, error) {
	const found = " WHERE tenant_id=? AND notification_id=? AND stage=? AND users_left=? AND after_id=?"
	at := []any{p.Tenant, p.ID, p.At.Stage, p.At.Left, p.At.After}
	if p.Next == nil {
		n, err := t.Affect("DELETE FROM fanouts"+found, at...)
		return n == 1, err
	}
	now := db.Millis(t.Now())
	n, err := t.Affect("UPDATE fanouts SET stage=?, users_left=?, after_id=?, due_at=?, moved_at=?"+found,
		append([]any{p.Next.Stage, p.Next.Left, p.Next.After, now, now}, at...)...)
	return n == 1, err
}

const storedTargets = `SELECT d.target_id FROM json_each(?3) x CROSS JOIN deliveries d ON d.tenant_id=?1 AND d.notification_id=?2 AND d.target_id=CAST(x.value AS BIGINT)`

// unstored leaves out what an earlier part has stored: of a device that was named twice, or
// has changed hands meanwhile.
func unstored(t *db.Tx, a *delivery.Accepted) ([]delivery.Row, error) {
	list, err := targetList(a)
	if err != nil {
		return nil, err
	}
	rows, err := t.Query(storedTargets, a.Tenant, a.ID, list)
	if err != nil {
		return nil, err
	}
	known, err := db.Collect(rows, db.ScanID)
	return slices.DeleteFunc(slices.Clone(a.Rows), func(r delivery.Row) bool { return slices.Contains(known, r.Target) }), err
}

func targetList(a *delivery.Accepted) (string, error) {
	list := make([]ids.ID, len(a.Rows))
	for i := range a.Rows {
		list[i] = a.Rows[i].Target
	}
	raw, err := json.Marshal(list)
	return string(raw), err
}
