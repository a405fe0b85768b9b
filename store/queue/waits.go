package queue

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
)

// waitRows are the scopes that are in trouble.
type waitRows struct{ db *db.DB }

// waitsKept is for how long trouble is remembered that nothing was heard of since: longer
// than any schedule waits.
const waitsKept = 7 * 24 * time.Hour

const waitColumns = `w.id,w.tenant_id,w.subject_id,w.origin,w.channel,w.cause,w.detail,w.since,w.until,w.noted_at,w.success_at`

const (
	listWaits = `SELECT ` + waitColumns + ` FROM waits w WHERE w.tenant_id=? ORDER BY w.subject_id,w.origin LIMIT ?`
	oneWait   = `SELECT ` + waitColumns + ` FROM waits w WHERE w.tenant_id=? AND w.subject_id=? AND w.origin=?`
	putWait   = `INSERT INTO waits (tenant_id,subject_id,origin,id,channel,cause,detail,since,until,noted_at,success_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)
 ON CONFLICT (tenant_id,subject_id,origin) DO UPDATE SET cause=excluded.cause, detail=excluded.detail,
 until=CASE WHEN excluded.until>waits.until THEN excluded.until ELSE waits.until END,
 noted_at=CASE WHEN excluded.noted_at>waits.noted_at THEN excluded.noted_at ELSE waits.noted_at END,
 success_at=CASE WHEN excluded.success_at>waits.success_at THEN excluded.success_at ELSE waits.success_at END`
	endWait = `DELETE FROM waits WHERE tenant_id=? AND subject_id=? AND origin=? AND noted_at<=? AND (until<=? OR ?=1)`
	// purgeWaits removes what nothing was heard of for long.
	purgeWaits = `DELETE FROM waits WHERE (tenant_id,subject_id,origin) IN (SELECT tenant_id,subject_id,origin FROM waits WHERE noted_at<? AND until<? LIMIT ?)`
)

// PutWait implements delivery.WaitStore. What ends waits has the lock of the tenant.
func (s *waitRows) PutWait(ctx context.Context, w delivery.NoteWait) (began, current bool, err error) {
	err = s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		began, current = false, false
		if err := t.LockTenant(w.Tenant, true); err != nil {
			return err
		}
		if is, err := s.asItWas(t, w); err != nil || !is {
			return err
		}
		id := t.NextID()
		if err := t.Exec(putWait, w.Tenant, w.Subject, w.Origin, id, w.Channel, w.Cause, db.Storable(w.Detail), db.Millis(w.Since), db.Millis(w.Until),
			db.Millis(w.NotedAt), db.Millis(w.LastSuccess)); err != nil {
			return fmt.Errorf("write down that a scope is in trouble: %w", err)
		}
		current = true
		n, err := t.Count("SELECT count(*) FROM waits WHERE tenant_id=? AND subject_id=? AND origin=? AND id=?", w.Tenant, w.Subject, w.Origin, id)
		began = n == 1
		return err
	})
	return began, current, err
}

// asItWas tells whether the credential still has the version, or the endpoint the URL,
// that was sent with, and keeps it so until the commit.
func (s *waitRows) asItWas(t *db.Tx, w delivery.NoteWait) (bool, error) {
	if w.Channel != channels.Webhook {
		one := 0
		return t.One(t.Locking("SELECT 1 FROM credentials WHERE id=? AND tenant_id=? AND version=?", "SHARE"), []any{w.Subject, w.Tenant, w.Version}, &one)
	}
	var stored registers.StoredURL
	there, err := t.One(t.Locking("SELECT url,url_sealed FROM endpoints WHERE id=? AND tenant_id=?", "SHARE"), []any{w.Subject, w.Tenant}, &stored.Clear, &stored.Sealed)
	if err != nil || !there {
		return false, err
	}
	url, err := stored.Open(s.db, w.Tenant, w.Subject)
	return url == w.URL, err
}

// EndWait implements delivery.WaitStore.
func (s *waitRows) EndWait(ctx context.Context, w delivery.Wait, began time.Time, look bool) (ended bool, err error) {
	err = s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		n, err := t.Affect(endWait, w.Tenant, w.Subject, w.Origin, db.Millis(began), db.Millis(t.Now()), db.Bit(look))
		if ended = n == 1; err != nil || !ended {
			return err
		}
		return registers.BringForward(t, w.Tenant, registers.BringOf(w), devices.EngineActor)
	})
	return ended, err
}

// standingWait finds a wait, and keeps it until the commit: whoever ends it then finds
// what was put off for it.
const standingWait = `SELECT 1 FROM waits WHERE tenant_id=? AND subject_id=? AND origin=?`

// waitOver tells whether a wait has ended.
func waitOver(t *db.Tx, tenant ids.ID, w delivery.Waited) (bool, error) {
	var one int
	found, err := t.One(t.Locking(standingWait, "KEY SHARE"), []any{tenant, w.Subject, w.Origin}, &one)
	if err != nil {
		return false, fmt.Errorf("look whether a scope still waits: %w", err)
	}
	return !found, nil
}

func scanWait(r *sql.Rows) (w delivery.Wait, err error) {
	var since, until, noted, success int64
	err = r.Scan(&w.ID, &w.Tenant, &w.Subject, &w.Origin, &w.Channel, &w.Cause, &w.Detail, &since, &until, &noted, &success)
	w.Since, w.Until, w.NotedAt, w.LastSuccess = db.FromMillis(since), db.FromMillis(until), db.FromMillis(noted), db.FromMillis(success)
	return w, err
}

// Waits implements delivery.WaitReader.
func (s *waitRows) Waits(ctx context.Context, tenant ids.ID) ([]delivery.Wait, error) {
	return s.FirstWaits(ctx, tenant, mostHolds)
}

// Wait implements delivery.SnapshotStore.
func (s *waitRows) Wait(ctx context.Context, tenant, subject ids.ID, origin string) (delivery.Wait, bool, error) {
	rows, err := s.db.Reads().QueryContext(ctx, oneWait, tenant, subject, origin)
	if err != nil {
		return delivery.Wait{}, false, fmt.Errorf("read whether a scope waits: %w", err)
	}
	list, err := db.Collect(rows, scanWait)
	if err != nil || len(list) == 0 {
		return delivery.Wait{}, false, err
	}
	return list[0], true, nil
}

// FirstWaits implements delivery.SnapshotStore.
func (s *waitRows) FirstWaits(ctx context.Context, tenant ids.ID, most int) ([]delivery.Wait, error) {
	rows, err := s.db.Reads().QueryContext(ctx, listWaits, tenant, most)
	if err != nil {
		return nil, fmt.Errorf("read what waits: %w", err)
	}
	return db.Collect(rows, scanWait)
}

// waited is how a delivery.Waited is stored.
type waited struct {
	Cause   delivery.WaitCause `json:"c,omitempty"`
	Subject ids.ID             `json:"s,omitempty"`
	Origin  string             `json:"o,omitempty"`
	Device  bool               `json:"own,omitempty"`
	Detail  string             `json:"d,omitempty"`
	Since   int64              `json:"f,omitempty"`
	Until   int64              `json:"u,omitempty"`
	At      int64              `json:"a,omitempty"`
}

func formatWaited(w delivery.Waited) string {
	b, _ := json.Marshal(waited{w.Cause, w.Subject, w.Origin, w.Device, w.Detail, db.Millis(w.Since), db.Millis(w.Until), db.Millis(w.At)}) // numbers and texts
	return db.Storable(string(b))
}

func parseWaited(s string) (w delivery.Waited) {
	if s == "" {
		return w
	}
	var x waited
	if json.Unmarshal([]byte(s), &x) != nil {
		return w // only people read it
	}
	return delivery.Waited{Cause: x.Cause, Subject: x.Subject, Origin: x.Origin, Device: x.Device, Detail: x.Detail,
		Since: db.FromMillis(x.Since), Until: db.FromMillis(x.Until), At: db.FromMillis(x.At)}
}
