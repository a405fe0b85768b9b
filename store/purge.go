package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// expired is a statement of the purge. Each removes at most as many rows as its
// last argument says.
type expired struct {
	what, query string
	args        []any
	// find, where it is set, looks for notifications on the read pool first, and
	// query gets their ids as a JSON list: what walks much must not do it while
	// the writer waits.
	find string
}

// perTenant walks a table that begins with the tenant by ranges of its primary
// key, so that a purge costs what it removes, not what the history weighs.
const perTenant = ` FROM tenants t CROSS JOIN `

// finished: nothing of the notification of payload p waits to be sent.
const finished = `NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id=p.tenant_id AND d.notification_id=p.notification_id AND d.state<4)`

// removeContent takes what was found, unless it has been replayed since.
const removeContent = `DELETE FROM payloads AS p WHERE p.notification_id IN (SELECT CAST(x.value AS BIGINT) FROM json_each(?) x) AND ` + finished

// purges lists what is past its time. An id tells when a notification was
// accepted; one that was scheduled counts from when it was to be sent.
func purges(r delivery.Retention, now time.Time) []expired {
	past := func(age time.Duration) (ids.ID, int64) { return ids.Before(now.Add(-age)), millis(now.Add(-age)) }
	rowID, rowAt := past(r.Rows)
	sentID, sentAt := past(r.SentPayload)
	deadID, deadAt := past(r.DeadPayload)
	return []expired{
		{"idempotency keys", `DELETE FROM idempotency WHERE (tenant_id,principal_id,route,key) IN
 (SELECT tenant_id,principal_id,route,key FROM idempotency WHERE expires_at<=? LIMIT ?)`, []any{millis(now)}, ""},
		// Sensitive content goes as soon as nothing waits for it; other content
		// after its time, that of dead letters later.
		{"sensitive content", removeContent, nil, `SELECT p.notification_id FROM payloads p INDEXED BY payloads_sensitive
 JOIN notifications n ON n.tenant_id=p.tenant_id AND n.id=p.notification_id WHERE p.sensitive<>0 AND n.flags&8=0 AND ` + finished + ` LIMIT ?`},
		{"content", removeContent, []any{sentID, sentAt, deadID, deadAt}, `SELECT p.notification_id FROM payloads p
 JOIN notifications n ON n.tenant_id=p.tenant_id AND n.id=p.notification_id WHERE p.notification_id<? AND n.send_at<? AND n.flags&8=0 AND ` + finished + `
 AND (p.notification_id<? AND n.send_at<? OR NOT EXISTS
 (SELECT 1 FROM deliveries d WHERE d.tenant_id=p.tenant_id AND d.notification_id=p.notification_id AND d.state=6)) LIMIT ?`},
		{"attempts", `DELETE FROM attempts WHERE (tenant_id,notification_id,target_id,number) IN (SELECT a.tenant_id,a.notification_id,a.target_id,a.number` +
			perTenant + `attempts a ON a.tenant_id=t.id AND a.notification_id<?
 LEFT JOIN deliveries d ON d.tenant_id=a.tenant_id AND d.notification_id=a.notification_id AND d.target_id=a.target_id
 WHERE d.state IS NULL OR d.state>=4 AND d.updated_at<? LIMIT ?)`, []any{rowID, rowAt}, ""},
		{"deliveries", `DELETE FROM deliveries WHERE (tenant_id,notification_id,target_id) IN (SELECT d.tenant_id,d.notification_id,d.target_id` +
			perTenant + `deliveries d ON d.tenant_id=t.id AND d.notification_id<? WHERE d.state>=4 AND d.updated_at<? LIMIT ?)`, []any{rowID, rowAt}, ""},
		{"skips", `DELETE FROM skips WHERE (tenant_id,notification_id,n) IN (SELECT k.tenant_id,k.notification_id,k.n` +
			perTenant + `skips k ON k.tenant_id=t.id AND k.notification_id<?
 LEFT JOIN notifications n ON n.tenant_id=k.tenant_id AND n.id=k.notification_id WHERE coalesce(n.send_at,0)<? LIMIT ?)`, []any{rowID, rowAt}, ""},
		{"notifications", `DELETE FROM notifications WHERE (tenant_id,id) IN (SELECT n.tenant_id,n.id` +
			perTenant + `notifications n ON n.tenant_id=t.id AND n.id<? WHERE n.send_at<? AND n.flags&8=0
 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id=n.tenant_id AND d.notification_id=n.id)
 AND NOT EXISTS (SELECT 1 FROM skips k WHERE k.tenant_id=n.tenant_id AND k.notification_id=n.id) LIMIT ?)`, []any{rowID, rowAt}, ""},
		{"orphaned content", `DELETE FROM payloads WHERE notification_id IN (SELECT p.notification_id FROM payloads p WHERE p.notification_id<?
 AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.tenant_id=p.tenant_id AND n.id=p.notification_id) LIMIT ?)`, []any{rowID}, ""},
	}
}

// Purge implements delivery.CommandStore. It is called again until nothing is
// left to do.
func (s *Store) Purge(ctx context.Context, r delivery.Retention, now time.Time, limit int) (int, error) {
	total := 0
	for _, q := range purges(r, now) {
		n, err := s.purge(context.WithoutCancel(ctx), q, limit)
		if err != nil {
			return total, fmt.Errorf("purge %s: %w", q.what, err)
		}
		total += n
	}
	n, err := s.purgeHolds(context.WithoutCancel(ctx), now, limit)
	return total + n, err
}

func (s *Store) purge(ctx context.Context, q expired, limit int) (removed int, err error) {
	args := append(slices.Clone(q.args), limit)
	if q.find != "" {
		rows, err := s.listDB.QueryContext(ctx, q.find, args...)
		if err != nil {
			return 0, err
		}
		found, err := collect(rows, scanID)
		if err != nil || len(found) == 0 {
			return 0, err
		}
		list, err := json.Marshal(found)
		if err != nil {
			return 0, err
		}
		args = []any{string(list)}
	}
	err = s.do(ctx, limit, func(t *tx) error {
		n, err := t.affect(q.query, args...)
		removed = int(n)
		return err
	})
	return removed, err
}

// purgeHolds removes what has stood for a day for a credential that is missing,
// and holds nothing: devices name their own VAPID keys, so there may be many.
func (s *Store) purgeHolds(ctx context.Context, now time.Time, limit int) (removed int, err error) {
	err = s.do(ctx, limit, func(t *tx) error {
		n, err := t.affect(`DELETE FROM holds WHERE id IN (SELECT h.id FROM holds h WHERE h.scope=? AND h.since<?
 AND NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_hold WHERE d.hold_id=h.id AND d.hold_id<>0) LIMIT ?)`,
			delivery.HoldMissing, millis(now.Add(-24*time.Hour)), limit)
		removed = int(n)
		return err
	})
	if err != nil {
		err = fmt.Errorf("purge holds: %w", err)
	}
	return removed, err
}
