package queue

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

const (
	// moveNewest makes a delivery the newest of its order key, and says which was
	// before. The lock of the row is what orders accepts that come at the same time.
	moveNewest = `INSERT INTO newest AS w (tenant_id,target_id,order_key,notification_id,previous_id,moved_at) VALUES (?,?,?,?,0,?)` + moved + `?` + returned

	// What has been accepted since it began is newer than a part of a fan-out.
	moved = ` ON CONFLICT (tenant_id,target_id,order_key) DO UPDATE SET previous_id=w.notification_id, notification_id=excluded.notification_id,
 moved_at=excluded.moved_at WHERE w.moved_at<=`
	returned = ` RETURNING previous_id`

	// dropSuperseded leaves alone what is in somebody's hands, who finds out before it
	// is sent, and what has ended.
	dropSuperseded = `UPDATE deliveries SET state=?, reason=?, due_at=0, hold_id=0, superseded_by=?, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND target_id=? AND state IN (1,3)`

	setSuperseded = `UPDATE deliveries SET superseded_by=? WHERE tenant_id=? AND notification_id=? AND target_id=?`

	selectNewest = `SELECT notification_id,moved_at FROM newest WHERE tenant_id=? AND target_id=? AND order_key=?`
)

// newest keeps the newest of the deliveries of a device that share an order key.
type newest struct{ db *db.DB }

// OrderKey implements delivery.ResolveStore.
func (s *newest) OrderKey(tenant ids.ID, collapseKey string) (int64, error) {
	return s.db.KeyedHash(tenant, collapseKey)
}

// Newest implements delivery.NewestStore.
func (s *newest) Newest(ctx context.Context, r delivery.Row) (n delivery.Newest, err error) {
	var at int64
	err = s.db.QueryRow(ctx, selectNewest, r.Tenant, r.Target, r.OrderKey).Scan(&n.Notification, &at)
	if db.IsNoRows(err) { // it has been purged, with whatever it spoke of
		return delivery.Newest{Notification: r.Notification}, nil
	}
	n.Since = db.FromMillis(at)
	return n, err
}

// newerThan finds the notification that took the place of a delivery; 0: none did.
// The lock of the delivery comes first: whoever accepts a newer one takes it, too, so
// that either of them sees the other.
func newerThan(t *db.Tx, r *delivery.Row) (newer ids.ID, err error) {
	if r.OrderKey == 0 {
		return 0, nil
	}
	if err := t.LockRows("SELECT 1 FROM deliveries"+fence, "UPDATE", r.Tenant, r.Notification, r.Target, r.Claim); err != nil {
		return 0, err
	}
	var at int64
	_, err = t.One(selectNewest, []any{r.Tenant, r.Target, r.OrderKey}, &newer, &at)
	if newer == r.Notification {
		newer = 0
	}
	return newer, err
}

// ordered lists the rows that have an order key.
func ordered(a *delivery.Accepted, list []*delivery.Row) []*delivery.Row {
	for i := range a.Rows {
		if a.Rows[i].OrderKey != 0 {
			list = append(list, &a.Rows[i])
		}
	}
	return list
}

// always is after everything.
const always = math.MaxInt64

// moveEach makes rows the newest, one after the other, where what is there was moved until
// then, and notes what each replaces.
func moveEach(t *db.Tx, rows []*delivery.Row, until int64) error {
	for _, r := range rows {
		r.Replaces = 0
		if _, err := t.One(moveNewest, []any{r.Tenant, r.Target, r.OrderKey, r.Notification, db.Millis(t.Now()), until}, &r.Replaces); err != nil {
			return fmt.Errorf("move the newest of a collapse key: %w", err)
		}
	}
	return nil
}

// dropEach drops what rows supersede.
func dropEach(t *db.Tx, rows []*delivery.Row) error {
	for _, r := range rows {
		if r.Replaces == 0 {
			continue
		}
		to := delivery.Supersession(r.Notification)
		if err := t.Exec(dropSuperseded, to.State, to.Reason, to.By, db.Millis(t.Now()), r.Tenant, r.Replaces, r.Target); err != nil {
			return fmt.Errorf("drop what is superseded: %w", err)
		}
	}
	return nil
}

// dropOvertaken drops what a part of a fan-out has just stored, of devices that have been
// sent something newer since it began.
const dropOvertaken = `UPDATE deliveries SET state=?1, reason=?2, due_at=0, updated_at=?3,
 superseded_by=(SELECT w.notification_id FROM newest w WHERE w.tenant_id=deliveries.tenant_id AND w.target_id=deliveries.target_id AND w.order_key=deliveries.order_key)
 WHERE tenant_id=?4 AND notification_id=?5 AND target_id IN (SELECT CAST(x.value AS BIGINT) FROM json_each(?6) x) AND state=1
 AND EXISTS (SELECT 1 FROM newest w WHERE w.tenant_id=deliveries.tenant_id AND w.target_id=deliveries.target_id AND w.order_key=deliveries.order_key
 AND w.notification_id<>deliveries.notification_id)`

// newestKey is the primary key of a row.
type newestKey struct{ tenant, target, key int64 }

func newestKeyOf(r *delivery.Row) newestKey {
	return newestKey{int64(r.Tenant), int64(r.Target), r.OrderKey}
}

func compareNewest(a, b newestKey) int {
	return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.target, b.target), cmp.Compare(a.key, b.key))
}

func scanMoved(r *sql.Rows) (m struct {
	newestKey
	previous ids.ID
}, err error,
) {
	err = r.Scan(&m.previous, &m.tenant, &m.target, &m.key)
	return m, err
}

// moveTogether does what moveEach does with one statement. All lock in the order of
// the keys, so that none waits for the other.
func moveTogether(t *db.Tx, rows []*delivery.Row, until int64) error {
	first, last := map[newestKey]*delivery.Row{}, map[newestKey]*delivery.Row{}
	for _, r := range rows {
		k := newestKeyOf(r)
		r.Replaces = 0
		if before := last[k]; before != nil {
			r.Replaces = before.Notification
		} else {
			first[k] = r
		}
		last[k] = r
	}
	var tenants, targets, keys, notifications []int64
	for _, r := range slices.SortedFunc(func(yield func(*delivery.Row) bool) {
		for _, r := range last {
			if !yield(r) {
				return
			}
		}
	}, func(a, b *delivery.Row) int { return compareNewest(newestKeyOf(a), newestKeyOf(b)) }) {
		tenants, targets = append(tenants, int64(r.Tenant)), append(targets, int64(r.Target))
		keys, notifications = append(keys, r.OrderKey), append(notifications, int64(r.Notification))
	}
	if len(tenants) == 0 {
		return nil
	}
	list, err := t.Query(moveNewestTogether, tenants, targets, keys, notifications, db.Millis(t.Now()), until)
	if err != nil {
		return fmt.Errorf("move the newest of collapse keys: %w", err)
	}
	found, err := db.Collect(list, scanMoved)
	for _, m := range found {
		first[m.newestKey].Replaces = m.previous
	}
	return err
}
