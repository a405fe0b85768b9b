package store

import (
	"context"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// Purge implements delivery.CommandStore. Each statement removes at most limit
// rows; it is called again until nothing is left to do.
func (s *Store) Purge(ctx context.Context, r delivery.Retention, now time.Time, limit int) (int, error) {
	rows, content, dead := ids.Before(now.Add(-r.Rows)), ids.Before(now.Add(-r.SentPayload)), ids.Before(now.Add(-r.DeadPayload))
	total := 0
	for _, q := range []struct {
		what, query string
		args        []any
	}{
		{"idempotency keys", `DELETE FROM idempotency WHERE (tenant_id,principal_id,route,key) IN
 (SELECT tenant_id,principal_id,route,key FROM idempotency WHERE expires_at<=? LIMIT ?)`, []any{millis(now), limit}},
		// Sensitive content goes as soon as nothing waits for it; other content
		// after its time, that of dead letters later.
		{"sensitive content", `DELETE FROM payloads WHERE notification_id IN (SELECT p.notification_id FROM payloads p
 JOIN notifications n ON n.tenant_id=p.tenant_id AND n.id=p.notification_id WHERE n.flags&1=1 AND n.flags&8=0 AND ` + finished + ` LIMIT ?)`, []any{limit}},
		{"content", `DELETE FROM payloads WHERE notification_id IN (SELECT p.notification_id FROM payloads p
 JOIN notifications n ON n.tenant_id=p.tenant_id AND n.id=p.notification_id WHERE p.notification_id<? AND n.flags&8=0 AND ` + finished + `
 AND (p.notification_id<? OR NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id=p.tenant_id AND d.notification_id=p.notification_id AND d.state=6)) LIMIT ?)`,
			[]any{content, dead, limit}},
		{"attempts", `DELETE FROM attempts WHERE (tenant_id,notification_id,target_id,number) IN (SELECT a.tenant_id,a.notification_id,a.target_id,a.number
 FROM attempts a JOIN deliveries d USING (tenant_id,notification_id,target_id) WHERE a.notification_id<? AND d.state>=4 LIMIT ?)`, []any{rows, limit}},
		{"deliveries", `DELETE FROM deliveries WHERE (tenant_id,notification_id,target_id) IN
 (SELECT tenant_id,notification_id,target_id FROM deliveries WHERE notification_id<? AND state>=4 LIMIT ?)`, []any{rows, limit}},
		{"skips", `DELETE FROM skips WHERE (tenant_id,notification_id,n) IN (SELECT tenant_id,notification_id,n FROM skips WHERE notification_id<? LIMIT ?)`, []any{rows, limit}},
		{"notifications", `DELETE FROM notifications WHERE (tenant_id,id) IN (SELECT n.tenant_id,n.id FROM notifications n
 WHERE n.id<? AND n.flags&8=0 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id=n.tenant_id AND d.notification_id=n.id) LIMIT ?)`, []any{rows, limit}},
		{"orphaned content", `DELETE FROM payloads WHERE notification_id IN (SELECT p.notification_id FROM payloads p WHERE p.notification_id<?
 AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.tenant_id=p.tenant_id AND n.id=p.notification_id) LIMIT ?)`, []any{rows, limit}},
	} {
		err := s.do(context.WithoutCancel(ctx), limit, func(t *tx) error {
			n, err := t.affect(q.query, q.args...)
			total += int(n)
			return err
		})
		if err != nil {
			return total, fmt.Errorf("purge %s: %w", q.what, err)
		}
	}
	return total, nil
}

// finished: nothing of the notification of payload p waits to be sent.
const finished = `NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.tenant_id=p.tenant_id AND d.notification_id=p.notification_id AND d.state<4)`
