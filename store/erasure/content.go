package erasure

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/queue"
	"github.com/carillonhq/carillon/tenants"
)

// oldContent looks at content that is older than any delivery must be: that of
// the user may have been purged, while others of the notification are kept.
func (x *erasing) oldContent(ctx context.Context) (jobs.Progress, error) {
	const window = 2000
	all, err := x.s.idsOf(ctx, `SELECT notification_id FROM payloads INDEXED BY payloads_tenant
 WHERE tenant_id=? AND notification_id>? AND notification_id<? ORDER BY notification_id LIMIT ?`,
		x.j.Tenant, x.cursor.After, ids.Before(x.now.Add(-tenants.MinRetention)), window)
	if err != nil {
		return jobs.Progress{}, fmt.Errorf("read content: %w", err)
	}
	var list []ids.ID
	for _, id := range all {
		body, err := x.s.queue.Content(ctx, x.j.Tenant, id)
		if err != nil {
			continue // gone since, or of no use to anybody
		}
		var r delivery.Request
		if json.Unmarshal(body, &r) == nil && x.names(r.To) {
			list = append(list, id)
		}
		if len(list) == eraseLimit {
			all = all[:slices.Index(all, id)+1]
			break
		}
	}
	x.more = len(all) == window || len(list) == eraseLimit
	if len(all) > 0 {
		x.cursor.After = all[len(all)-1]
	}
	return x.write(ctx, eraseAnswers, x.contents(list))
}

// content takes the user out of the content of a notification. Content that was
// for this user alone goes, with what of the notification still waits; what
// others still wait for is written anew without the user; the rest goes too.
func (x *erasing) content(t *db.Tx, notification ids.ID, targets []ids.ID) error {
	var sealed []byte
	// Locked, because another node may be taking another user out of it.
	found, err := t.One(t.Locking("SELECT body FROM payloads WHERE notification_id=? AND tenant_id=?", "UPDATE OF payloads"), []any{notification, x.j.Tenant}, &sealed)
	if err != nil || !found {
		return err
	}
	var r delivery.Request
	plain, err := x.s.db.Unseal(db.SealPayload, x.j.Tenant, notification, sealed)
	readable := err == nil && json.Unmarshal(plain, &r) == nil
	r.To.Users = slices.DeleteFunc(r.To.Users, func(u string) bool { return u == x.look.User })
	its := func(id ids.ID) bool { return slices.Contains(targets, id) || slices.Contains(x.look.Targets, id) }
	r.To.Devices, r.To.Endpoints = slices.DeleteFunc(r.To.Devices, its), slices.DeleteFunc(r.To.Endpoints, its)
	if !readable || r.To.Empty() {
		return x.dropContent(t, notification)
	}
	needed, err := t.Count(`SELECT count(*) FROM notifications n WHERE n.tenant_id=? AND n.id=? AND (n.flags&8<>0 OR EXISTS
 (SELECT 1 FROM deliveries d WHERE d.tenant_id=n.tenant_id AND d.notification_id=n.id AND (d.state<4 OR d.state=6)))`, x.j.Tenant, notification)
	if err != nil {
		return err
	}
	if needed == 0 {
		return x.removePayload(t, notification)
	}
	if plain, err = json.Marshal(r); err != nil {
		return err
	}
	if sealed, err = x.s.db.Seal(db.SealPayload, x.j.Tenant, notification, plain); err != nil {
		return err
	}
	n, err := t.Affect("UPDATE payloads SET body=? WHERE notification_id=? AND tenant_id=?", sealed, notification, x.j.Tenant)
	x.e.Rows["payloads"] += int(n)
	return err
}

func (x *erasing) removePayload(t *db.Tx, notification ids.ID) error {
	n, err := t.Affect("DELETE FROM payloads WHERE notification_id=? AND tenant_id=?", notification, x.j.Tenant)
	x.e.Rows["payloads"] += int(n)
	return err
}

// dropContent removes content with everything that needs it.
func (x *erasing) dropContent(t *db.Tx, notification ids.ID) error {
	to := delivery.EraseDelivery()
	n, err := t.Affect(`UPDATE deliveries SET state=?, reason=?, due_at=0, hold_id=0, claim=?, updated_at=?
 WHERE tenant_id=? AND notification_id=? AND (state<4 OR state=6)`, to.State, to.Reason, x.e.ID, db.Millis(x.now), x.j.Tenant, notification)
	if err != nil {
		return err
	}
	x.e.Rows["deliveries"] += int(n)
	n, err = t.Affect("DELETE FROM fanouts WHERE tenant_id=? AND notification_id=?", x.j.Tenant, notification)
	if err != nil {
		return err
	}
	x.e.Rows["fanouts"] += int(n)
	if n > 0 { // its targets are not resolved any more, and the skip says why
		if err := t.Exec("UPDATE notifications SET flags=flags & ~8 WHERE tenant_id=? AND id=?", x.j.Tenant, notification); err != nil {
			return err
		}
		if err := t.Exec(queue.InsertSkip, x.j.Tenant, notification, 0, nil, 0, 0, delivery.SkipErased); err != nil {
			return err
		}
	}
	return x.removePayload(t, notification)
}

// rest removes what was registered while the erasure began, and takes the user
// out of jobs that were to be about this user: they find nobody now.
