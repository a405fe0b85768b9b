package store_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
)

// BenchmarkBytesOfADelivery measures what docs/operations/durability.md says of sizes:
// 100,000 notifications for one device each, sent at the first try, to 10,000 users, with an
// idempotency key each; and what is left of them when their content is gone.
func BenchmarkBytesOfADelivery(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { bytesOfADelivery(b, b.TempDir()+"/c.db") })
	b.Run("postgres", func(b *testing.B) { bytesOfADelivery(b, pgtest.Database(b, "migrated", migrated)) })
}

func bytesOfADelivery(b *testing.B, url string) {
	b.Helper()
	const n, callers, users = 100_000, 64, 10_000
	ring, _, err := db.NewKeyRing()
	require.NoError(b, err)
	ctx := context.Background()
	o := store.Options{URL: url, KeyRing: ring, IDs: ids.NewGenerator(1, time.Now), Migrate: true, Connections: 16}
	s, err := store.Open(ctx, o)
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close()) }()
	tenant := o.IDs.Next()
	require.NoError(b, s.CreateTenant(ctx, tenants.Tenant{ID: tenant, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	first := o.IDs.Next()
	used := func() int64 {
		if _, ok := s.File(); !ok {
			for _, table := range []string{"deliveries", "notifications", "payloads", "idempotency", "tenants"} {
				_, err := s.Writes().ExecContext(ctx, "VACUUM ANALYZE "+table)
				require.NoError(b, err)
			}
		}
		space, err := s.Space(ctx)
		require.NoError(b, err)
		return space.Used
	}
	for b.Loop() {
		before := used()
		var work, finished sync.WaitGroup
		finished.Add(n)
		for c := range callers {
			work.Go(func() {
				for i := c; i < n; i += callers {
					sendOne(b, s, o.IDs, delivery.Row{Tenant: tenant, UserID: first + ids.ID(i*7919%users)}, i, finished.Done)
				}
			})
		}
		work.Wait()
		finished.Wait()
		b.ReportMetric(float64(used()-before)/n, "B/delivery")
		kept := delivery.Retention{DeadPayload: time.Hour, Rows: 30 * 24 * time.Hour}
		for left := 1; left > 0; {
			left, err = s.Purge(ctx, kept, time.Now().Add(2*time.Hour), 1000)
			require.NoError(b, err)
		}
		after := used()
		if _, ok := s.File(); !ok { // what is free there is used again, and not given back
			var free int64
			require.NoError(b, s.Reads().QueryRowContext(ctx, "SELECT pg_total_relation_size('payloads')+pg_total_relation_size('idempotency')").Scan(&free))
			after -= free
		}
		b.ReportMetric(float64(after-before)/n, "B/delivery-without-content")
	}
}

func sendOne(b *testing.B, s *store.Store, gen *ids.Generator, row delivery.Row, i int, done func()) {
	b.Helper()
	body := fmt.Appendf(nil, `{"to":{"users":["user-%08d"]},"channels":["fcm"],"type":"order.shipped","title":"Your parcel is on its way","body":"It will be with you tomorrow between 9 and 12.","data":{"order":"%08d"}}`, i, i)
	now := time.Now()
	a := delivery.Accepted{ID: gen.Next(), Tenant: row.Tenant, Lane: delivery.Regular, Type: "order.shipped", CreatedAt: now, Body: body}
	row.Notification, row.Target, row.Claim = a.ID, row.UserID+1, int64(a.ID)
	row.Channel, row.Lane, row.State, row.Epoch, row.Round = 1, a.Lane, delivery.Sending, 1, 1
	row.DueAt, row.ExpiresAt = now.Add(time.Minute), now.Add(time.Hour)
	a.Rows = []delivery.Row{row}
	answer := fmt.Appendf(nil, `{"id":"%s","deliveries":[{"id":"%s","channel":"fcm","target":"%s","user":"user-%08d"}],"skips":[]}`, a.ID.Format(ids.Notification),
		ids.FormatDelivery(a.ID, row.Target), row.Target.Format(ids.Device), i)
	_, err := s.Accept(context.Background(), delivery.Batch{Tenant: row.Tenant, Accepted: []delivery.Accepted{a}, Answer: delivery.Answer{Status: 202, Body: answer},
		Idempotency: &delivery.Idempotency{Principal: 1, Route: "POST /v1/notifications", Key: "order-" + strconv.Itoa(i) + "-shipped"}, ExpiresAt: now.Add(time.Hour)})
	if err != nil {
		b.Error(err)
		done()
		return
	}
	s.Finish(delivery.Finish{Row: row, ExpiresAt: row.ExpiresAt, Now: now, StartedAt: now, Transition: delivery.Transition{State: delivery.Sent, Spent: 1},
		Attempt: &delivery.Attempt{Number: 1, At: now, Duration: 83 * time.Millisecond, Outcome: 1, Code: "fcm.accepted", Status: 200, ProviderID: fmt.Sprintf("projects/acme-app/messages/0:1796136040%06d%%5f5f5f5f5f5f5f5f", i)}},
		func(r delivery.FinishResult) {
			if r.Err != nil || r.Lost {
				b.Error(r)
			}
			done()
		})
}
