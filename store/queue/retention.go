package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// retention removes what is past its time.
type retention struct {
	db *db.DB

	mu    sync.Mutex
	walks map[ids.ID]walk // of tenants' contents
}

// walk is how far a tenant's contents were looked at. What is kept, such as that of dead
// letters, is not looked at again each time: only once in walkAgain.
type walk struct {
	at    ids.ID
	began time.Time
}

const (
	walkAgain  = time.Hour
	walkWindow = 2000 // contents that are looked at in one statement
)

// byKey ends a subquery that is to be answered for each row by a key: PostgreSQL would
// rather join all that there is, for a few rows that are asked for.
const byKey = ` LIMIT 1 OFFSET 0`

// finished: nothing of the notification of payload p waits to be sent. The sum keeps
// PostgreSQL from the index of all that waits, which may be long.
const finished = `NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id=p.tenant_id AND d.notification_id=p.notification_id AND d.state+0<4` + byKey + `)`

// removeContent takes what was found, unless it has been replayed since.
const removeContent = `DELETE FROM payloads AS p WHERE p.notification_id=? AND ` + finished

// Sensitive content goes as soon as nothing waits for it. CROSS JOIN keeps SQLite, which
// knows nothing of how many there are of each, from looking at all notifications.
const findSensitive = `SELECT p.notification_id FROM payloads p INDEXED BY payloads_sensitive CROSS JOIN notifications n
 WHERE n.tenant_id=p.tenant_id AND n.id=p.notification_id AND p.sensitive<>0 AND n.flags&8=0 AND ` + finished + ` LIMIT ?`

// Other content goes after its time, that of dead letters later: of what is in a window,
// which is said of both tables, since PostgreSQL concludes nothing from one to the other.
const findContent = `SELECT p.notification_id FROM payloads p INDEXED BY payloads_tenant CROSS JOIN notifications n
 WHERE n.tenant_id=p.tenant_id AND n.id=p.notification_id AND n.id>?2 AND n.id<=?3
 AND p.tenant_id=?1 AND p.notification_id>?2 AND p.notification_id<=?3 AND n.send_at<?4 AND n.flags&8=0 AND ` + finished + `
 AND (p.notification_id<?5 AND n.send_at<?6 OR NOT EXISTS
 (SELECT 1 FROM deliveries d WHERE d.tenant_id=p.tenant_id AND d.notification_id=p.notification_id AND d.state+0=6` + byKey + `)) LIMIT ?7`

const contentWindow = `SELECT coalesce(max(w.id),0),count(*) FROM (SELECT p.notification_id AS id FROM payloads p INDEXED BY payloads_tenant
 WHERE p.tenant_id=? AND p.notification_id>? AND p.notification_id<? ORDER BY p.notification_id LIMIT ?) w`

const purgeIdempotency = `DELETE FROM idempotency WHERE (tenant_id,principal_id,route,key) IN
 (SELECT tenant_id,principal_id,route,key FROM idempotency WHERE expires_at<=? LIMIT ?)`

// Jobs are kept as long as rows are by default: those of the installation are no
// tenant's.
const purgeJobs = `DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE state>2 AND finished_at<? LIMIT ?)`

// Their ids tell when they were written.
const purgeDeviceEvents = `DELETE FROM device_events WHERE id IN (SELECT id FROM device_events WHERE id<? ORDER BY id LIMIT ?)`

// purges lists what is removed of a tenant, in this order. Each takes the tenant,
// the arguments of its cut, and how many rows it may remove. They walk tables by
// ranges of a key that begins with the tenant, so that a purge costs what it
// removes, not what the history weighs. A notification goes last, because its id
// is what tells that there is anything. A delivery must still be final by the time
// that it is locked: it may have been replayed since it was found.
var purges = []struct {
	what, query string
	args        func(cut) []any
}{
	{"attempts", `DELETE FROM attempts WHERE (tenant_id,notification_id,target_id,number) IN (SELECT a.tenant_id,a.notification_id,a.target_id,a.number
 FROM attempts a LEFT JOIN deliveries d ON d.tenant_id=a.tenant_id AND d.notification_id=a.notification_id AND d.target_id=a.target_id
 WHERE a.tenant_id=? AND a.notification_id<? AND (d.state IS NULL OR d.state>=4 AND d.updated_at<?) LIMIT ?)`, cut.rows},
	// With the delivery that it names: those before it have ended before.
	{"newest", `DELETE FROM newest WHERE (tenant_id,target_id,order_key,notification_id) IN (SELECT w.tenant_id,w.target_id,w.order_key,w.notification_id
 FROM (SELECT d.tenant_id,d.notification_id,d.target_id,d.order_key FROM deliveries d WHERE d.tenant_id=? AND d.notification_id<? AND d.state>=4 AND d.updated_at<?
 ORDER BY d.notification_id,d.target_id LIMIT ?) x JOIN newest w ON w.tenant_id=x.tenant_id AND w.target_id=x.target_id AND w.order_key=x.order_key
 AND w.notification_id=x.notification_id)`, cut.rows},
	{"deliveries", `DELETE FROM deliveries WHERE state>=4 AND (tenant_id,notification_id,target_id) IN (SELECT d.tenant_id,d.notification_id,d.target_id
 FROM deliveries d WHERE d.tenant_id=? AND d.notification_id<? AND d.state>=4 AND d.updated_at<?
 AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.tenant_id=d.tenant_id AND a.notification_id=d.notification_id AND a.target_id=d.target_id` + byKey + `)
 AND NOT EXISTS (SELECT 1 FROM newest w WHERE w.tenant_id=d.tenant_id AND w.target_id=d.target_id AND w.order_key=d.order_key
 AND w.notification_id=d.notification_id` + byKey + `) LIMIT ?)`, cut.rows},
	{"skips", `DELETE FROM skips WHERE (tenant_id,notification_id,n) IN (SELECT k.tenant_id,k.notification_id,k.n
 FROM skips k LEFT JOIN notifications n ON n.tenant_id=k.tenant_id AND n.id=k.notification_id
 WHERE k.tenant_id=? AND k.notification_id<? AND coalesce(n.send_at,0)<? LIMIT ?)`, cut.rows},
	{"notifications", `DELETE FROM notifications WHERE (tenant_id,id) IN (SELECT n.tenant_id,n.id
 FROM notifications n WHERE n.tenant_id=? AND n.id<? AND n.send_at<? AND n.flags&8=0
 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id=n.tenant_id AND d.notification_id=n.id` + byKey + `)
 AND NOT EXISTS (SELECT 1 FROM skips k WHERE k.tenant_id=n.tenant_id AND k.notification_id=n.id` + byKey + `) LIMIT ?)`, cut.rows},
	{"orphaned content", `DELETE FROM payloads WHERE notification_id IN (SELECT p.notification_id FROM payloads p INDEXED BY payloads_tenant
 WHERE p.tenant_id=? AND p.notification_id<?
 AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.tenant_id=p.tenant_id AND n.id=p.notification_id` + byKey + `) LIMIT ?)`,
		func(c cut) []any { return []any{c.tenant, c.rowID} }},
}

// cut says what of a tenant is past its time: what was accepted before the id,
// which tells when, and what was to be sent, or has changed, before the time.
type cut struct {
	tenant                ids.ID
	rowID, sentID, deadID ids.ID
	rowAt, sentAt, deadAt int64
	oldRows, oldSent      bool // whether there may be any
}

func newCut(tenant ids.ID, r delivery.Retention, now time.Time) cut {
	past := func(age time.Duration) (ids.ID, int64) { return ids.Before(now.Add(-age)), db.Millis(now.Add(-age)) }
	c := cut{tenant: tenant}
	c.rowID, c.rowAt = past(r.Rows)
	c.sentID, c.sentAt = past(r.SentPayload)
	c.deadID, c.deadAt = past(r.DeadPayload)
	return c
}

func (c cut) rows() []any { return []any{c.tenant, c.rowID, c.rowAt} }

// Purge implements delivery.RetentionStore. It is called again until nothing is
// left to do.
func (s *retention) Purge(ctx context.Context, r delivery.Retention, now time.Time, limit int) (total int, err error) {
	ctx = context.WithoutCancel(ctx)
	add := func(what string, n int, err error) error {
		total += n
		if err != nil {
			return fmt.Errorf("purge %s: %w", what, err)
		}
		return nil
	}
	n, err := s.db.DoCounted(ctx, limit, func(t *db.Tx) (int64, error) { return t.Affect(purgeIdempotency, db.Millis(now), limit) })
	if err := add("idempotency keys", n, err); err != nil {
		return total, err
	}
	n, err = s.purgeContent(ctx, limit, findSensitive)
	if err := add("sensitive content", n, err); err != nil {
		return total, err
	}
	cuts, err := s.cuts(ctx, r, now)
	if err != nil {
		return total, err
	}
	n, err = 0, nil
	for i := 0; i < len(cuts) && n < limit && err == nil; i++ {
		if cuts[i].oldSent {
			var of int
			of, err = s.walkContent(ctx, cuts[i], now, limit-n)
			n += of
		}
	}
	if err := add("content", n, err); err != nil {
		return total, err
	}
	for _, q := range purges {
		n, err := s.db.DoCounted(ctx, limit, func(t *db.Tx) (n int64, err error) {
			err = t.WithoutOverwriting(func() error {
				for i := 0; i < len(cuts) && n < int64(limit); i++ {
					if !cuts[i].oldRows {
						continue
					}
					of, err := t.Affect(q.query, append(q.args(cuts[i]), int64(limit)-n)...)
					if n += of; err != nil {
						return err
					}
				}
				return nil
			})
			return n, err
		})
		if err := add(q.what, n, err); err != nil {
			return total, err
		}
	}
	n, err = s.db.DoCounted(ctx, limit, func(t *db.Tx) (int64, error) {
		return t.Affect(purgeJobs, db.Millis(now.Add(-r.Rows)), limit)
	})
	if err := add("jobs", n, err); err != nil {
		return total, err
	}
	n, err = s.db.DoCounted(ctx, limit, func(t *db.Tx) (int64, error) {
		return t.Affect(purgeDeviceEvents, ids.Before(now.Add(-devices.KeepHistory)), limit)
	})
	if err := add("device events", n, err); err != nil {
		return total, err
	}
	n, err = s.purgeHolds(ctx, now, limit)
	if err := add("holds", n, err); err != nil {
		return total, err
	}
	n, err = s.db.DoCounted(ctx, limit, func(t *db.Tx) (int64, error) {
		return t.Affect(purgeWaits, db.Millis(now.Add(-waitsKept)), db.Millis(now.Add(-waitsKept)), limit)
	})
	return total, add("waits", n, err)
}

// oldest is asked for each tenant, so that those who have nothing to remove cost
// no more than that.
const oldest = `SELECT t.id,t.settings,coalesce((SELECT min(n.id) FROM notifications n WHERE n.tenant_id=t.id),0),
 coalesce((SELECT min(p.notification_id) FROM payloads p INDEXED BY payloads_tenant WHERE p.tenant_id=t.id),0)
 FROM tenants t WHERE t.deleted_at=0 ORDER BY t.id`

// cuts lists the tenants that have something past its time.
func (s *retention) cuts(ctx context.Context, r delivery.Retention, now time.Time) ([]cut, error) {
	rows, err := s.db.Lists().QueryContext(ctx, oldest)
	if err != nil {
		return nil, fmt.Errorf("look for what is past its time: %w", err)
	}
	all, err := db.Collect(rows, func(rows *sql.Rows) (c cut, err error) {
		var (
			tenant, notification, payload ids.ID
			settings                      string
		)
		if err := rows.Scan(&tenant, &settings, &notification, &payload); err != nil {
			return c, err
		}
		own := r
		if strings.Contains(settings, `"retention"`) {
			var set tenants.Settings
			if err := json.Unmarshal([]byte(settings), &set); err != nil {
				return c, fmt.Errorf("read a tenant's settings: %w", err)
			}
			own = r.For(set.Retention)
		}
		c = newCut(tenant, own, now)
		c.oldSent = payload != 0 && payload < c.sentID
		c.oldRows = notification != 0 && notification < c.rowID || payload != 0 && payload < c.rowID
		return c, nil
	})
	return slices.DeleteFunc(all, func(c cut) bool { return !c.oldSent && !c.oldRows }), err
}

// walkContent removes up to limit contents of a tenant that are past their time.
func (s *retention) walkContent(ctx context.Context, c cut, now time.Time, limit int) (removed int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock() // two walks would take each other's windows
	w := s.walks[c.tenant]
	if now.Sub(w.began) >= walkAgain {
		w = walk{began: now}
	}
	for removed < limit {
		var (
			last ids.ID
			n    int
		)
		if err := s.db.Lists().QueryRowContext(ctx, contentWindow, c.tenant, w.at, c.sentID, walkWindow).Scan(&last, &n); err != nil {
			return removed, err
		}
		if n == 0 {
			break
		}
		of, err := s.purgeContent(ctx, limit-removed, findContent, c.tenant, w.at, last, c.sentAt, c.deadID, c.deadAt)
		if removed += of; err != nil {
			return removed, err
		}
		if removed < limit { // else there may be more in this window
			w.at = last
		}
	}
	s.walks[c.tenant] = w
	return removed, nil
}

// purgeContent looks for notifications on the read pool first: what walks much
// must not do it while the writer waits.
func (s *retention) purgeContent(ctx context.Context, limit int, find string, args ...any) (removed int, err error) {
	rows, err := s.db.Lists().QueryContext(ctx, find, append(args, limit)...)
	if err != nil {
		return 0, err
	}
	found, err := db.Collect(rows, db.ScanID)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	return s.db.DoCounted(ctx, len(found), func(t *db.Tx) (n int64, err error) {
		// Behind whoever replays any of it.
		if err := t.LockRows("SELECT 1 FROM payloads WHERE notification_id=ANY($1::bigint[]) ORDER BY notification_id", "UPDATE", db.Int64s(found)); err != nil {
			return 0, err
		}
		remove := func() error {
			for _, id := range found {
				one, err := t.Affect(removeContent, id)
				if n += one; err != nil {
					return err
				}
			}
			return nil
		}
		if find == findSensitive {
			err = remove()
		} else {
			err = t.WithoutOverwriting(remove)
		}
		return n, err
	})
}

// purgeHolds removes what has stood for a while for a credential that is missing,
// or for targets that were refused, and holds nothing: there may be many. A
// delivery that joins a hold shares the lock of the tenant, so that none is left
// with a hold that is gone.
func (s *retention) purgeHolds(ctx context.Context, now time.Time, limit int) (int, error) {
	const unused = `NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_hold WHERE d.hold_id=h.id AND d.hold_id<>0)`
	type hold struct{ tenant, id ids.ID }
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT h.tenant_id,h.id FROM holds h WHERE (h.scope=? AND h.since<? OR h.scope=? AND h.since<?) AND `+unused+` ORDER BY h.tenant_id,h.id LIMIT ?`,
		delivery.HoldMissing, db.Millis(now.Add(-24*time.Hour)), delivery.HoldRefusal, db.Millis(now.Add(-time.Hour)), limit)
	if err != nil {
		return 0, err
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (h hold, err error) { return h, r.Scan(&h.tenant, &h.id) })
	if err != nil || len(list) == 0 {
		return 0, err
	}
	return s.db.DoCounted(ctx, limit, func(t *db.Tx) (n int64, err error) {
		for i, h := range list {
			if i == 0 || list[i-1].tenant != h.tenant {
				if err := t.LockTenant(h.tenant, false); err != nil {
					return n, err
				}
			}
			one, err := t.Affect(`DELETE FROM holds AS h WHERE h.id=? AND `+unused, h.id)
			if n += one; err != nil {
				return n, err
			}
		}
		return n, nil
	})
}
