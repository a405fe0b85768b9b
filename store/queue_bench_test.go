package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

func benchStore(b *testing.B) (*store.Store, store.Options, ids.ID) {
	b.Helper()
	ring, _, err := db.NewKeyRing()
	require.NoError(b, err)
	o := store.Options{URL: b.TempDir() + "/c.db", KeyRing: ring, IDs: ids.NewGenerator(1, time.Now), Migrate: true}
	s, err := store.Open(context.Background(), o)
	require.NoError(b, err)
	b.Cleanup(func() { _ = s.Close() })
	tenant := o.IDs.Next()
	require.NoError(b, s.CreateTenant(context.Background(), tenants.Tenant{ID: tenant, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
	return s, o, tenant
}

// BenchmarkAcceptAndFinish is the life of a small send in the database: accepted
// with an idempotency key, born leased, and finished as sent, by 64 clients.
func BenchmarkAcceptAndFinish(b *testing.B) {
	s, o, tenant := benchStore(b)
	ctx := context.Background()
	body := []byte(`{"to":{"users":["alice"]},"title":"Your parcel is on its way","body":"It will be with you tomorrow between 9 and 12."}`)
	var (
		n        atomic.Int64
		finished sync.WaitGroup
	)
	b.SetParallelism(max(64/runtime.GOMAXPROCS(0), 1))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			now := time.Now()
			a := delivery.Accepted{ID: o.IDs.Next(), Tenant: tenant, Lane: delivery.Regular, CreatedAt: now, Body: body}
			row := delivery.Row{Tenant: tenant, Notification: a.ID, Target: 7, Channel: 1, Lane: a.Lane, State: delivery.Sending, UserID: 3, Epoch: 1,
				DueAt: now.Add(time.Minute), ExpiresAt: now.Add(time.Hour), Claim: int64(a.ID), Round: 1}
			a.Rows = []delivery.Row{row}
			_, err := s.Accept(ctx, delivery.Batch{Tenant: tenant, Accepted: []delivery.Accepted{a}, Answer: delivery.Answer{Status: 202, Body: body},
				Idempotency: &delivery.Idempotency{Principal: 1, Route: "POST /v1/notifications", Key: strconv.FormatInt(n.Add(1), 10)}, ExpiresAt: now.Add(time.Hour)})
			if err != nil {
				b.Error(err)
				return
			}
			finished.Add(1)
			s.Finish(delivery.Finish{Row: row, ExpiresAt: row.ExpiresAt, Now: now, StartedAt: now, Transition: delivery.Transition{State: delivery.Sent, Spent: 1},
				Attempt: &delivery.Attempt{Number: 1, At: now, Outcome: 1, Code: "fcm.ok", Status: 200, ProviderID: "projects/p/messages/1"}},
				func(r delivery.FinishResult) {
					if r.Err != nil || r.Lost {
						b.Error(r)
					}
					finished.Done()
				})
		}
	})
	finished.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "accepts/s")
}

// BenchmarkWithHistory claims, finishes and purges with a million finished
// deliveries in the tables: what is done all the time must not cost more for it.
func BenchmarkWithHistory(b *testing.B) {
	const history = 1_000_000
	s, o, tenant := benchStore(b)
	fill(b, o, tenant, history)
	ctx := context.Background()

	b.Run("claim+finish", func(b *testing.B) {
		rows := 0
		for b.Loop() {
			now := time.Now()
			a := delivery.Accepted{ID: o.IDs.Next(), Tenant: tenant, Lane: delivery.Regular, CreatedAt: now, Body: []byte("{}")}
			for i := range 250 {
				a.Rows = append(a.Rows, delivery.Row{Tenant: tenant, Notification: a.ID, Target: ids.ID(i + 1), Channel: 1, Lane: a.Lane,
					State: delivery.Pending, DueAt: now, ExpiresAt: now.Add(time.Hour)})
			}
			b.StopTimer()
			_, err := s.Accept(ctx, delivery.Batch{Tenant: tenant, Accepted: []delivery.Accepted{a}})
			require.NoError(b, err)
			b.StartTimer()
			list, err := s.Claim(ctx, delivery.ClaimOrder{Lane: delivery.Regular, Limit: 1000, PerTenant: 250, Now: time.Now(), Lease: now.Add(time.Minute), Claim: int64(o.IDs.Next())})
			require.NoError(b, err)
			require.Len(b, list, 250)
			rows += len(list)
			var done sync.WaitGroup
			done.Add(len(list))
			for _, c := range list {
				s.Finish(delivery.Finish{Row: c.Row, ExpiresAt: c.ExpiresAt, Now: now, Transition: delivery.Transition{State: delivery.Sent, Spent: 1},
					Attempt: &delivery.Attempt{Number: 1, At: now, Outcome: 1}}, func(delivery.FinishResult) { done.Done() })
			}
			done.Wait()
		}
		b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("claim nothing", func(b *testing.B) {
		for b.Loop() {
			_, err := s.Claim(ctx, delivery.ClaimOrder{Lane: delivery.Regular, Limit: 1000, PerTenant: 250, Now: time.Now(), Lease: time.Now(), Claim: 1})
			require.NoError(b, err)
		}
	})
	b.Run("purge nothing", func(b *testing.B) {
		for b.Loop() {
			n, err := s.Purge(ctx, delivery.DefaultRetention(), time.Now(), 1000)
			require.NoError(b, err)
			require.Zero(b, n)
		}
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			v, err := s.Check(ctx, false)
			require.NoError(b, err)
			require.Empty(b, v)
		}
	})
}

// fill writes finished deliveries of the last hours, a tenth of them with an
// older attempt, in the way that is fastest.
func fill(b *testing.B, o store.Options, tenant ids.ID, n int) {
	b.Helper()
	db, err := sql.Open("sqlite", "file:"+o.URL+"?_pragma=synchronous(OFF)")
	require.NoError(b, err)
	defer func() { require.NoError(b, db.Close()) }()
	first := ids.Before(time.Now().Add(-10 * time.Hour))
	for _, q := range []string{
		`INSERT INTO notifications SELECT %[1]d, %[2]d+value, 1, '', 0, 0, 0, 1 FROM generate_series`,
		`INSERT INTO payloads SELECT %[2]d+value, %[1]d, 0, zeroblob(300) FROM generate_series`,
		`INSERT INTO deliveries SELECT %[1]d, %[2]d+value, 7, 1, 1, 4, 0, 3, 1, 0, 0, 0, 1, 0, NULL, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 200, 0, 'ok', '', 'projects/p/messages/1' FROM generate_series`,
		`INSERT INTO attempts SELECT %[1]d, %[2]d+value, 7, 1, 0, 1, 2, 503, 0, 'busy', '', '' FROM generate_series WHERE value%%10=0`,
	} {
		q = "WITH RECURSIVE generate_series(value) AS (SELECT 0 UNION ALL SELECT value+1 FROM generate_series WHERE value<%[3]d-1) " + q
		q = fmt.Sprintf(q, tenant, first, n)
		_, err := db.Exec(q)
		require.NoError(b, err, q)
	}
	_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
	require.NoError(b, err)
}
