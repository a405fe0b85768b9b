package store_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
)

// BenchmarkImportDevices registers devices in parts, as a batch does: addresses that are
// new, each with a user and an installation of its own, and then the same once more.
func BenchmarkImportDevices(b *testing.B) {
	for name, url := range map[string]func(*testing.B) string{
		"SQLite":     func(b *testing.B) string { b.Helper(); return b.TempDir() + "/c.db" },
		"PostgreSQL": func(b *testing.B) string { b.Helper(); return pgtest.Database(b, "migrated", migrated) },
	} {
		b.Run(name, func(b *testing.B) {
			ring, _, err := db.NewKeyRing()
			require.NoError(b, err)
			o := store.Options{URL: url(b), KeyRing: ring, IDs: ids.NewGenerator(1, time.Now), Migrate: true}
			s, err := store.Open(context.Background(), o)
			require.NoError(b, err)
			b.Cleanup(func() { _ = s.Close() })
			tenant := o.IDs.Next()
			require.NoError(b, s.CreateTenant(b.Context(), tenants.Tenant{ID: tenant, Name: "acme"}, tenants.Change{Actor: "test", Action: "test"}))
			for _, round := range []string{"new", "again"} {
				n := 0
				b.Run(round, func(b *testing.B) {
					first := n
					for b.Loop() {
						n += importPart(b, s, o, tenant, n)
					}
					b.ReportMetric(float64(n-first)/b.Elapsed().Seconds(), "devices/s")
				})
			}
		})
	}
}

// importPart registers as many as one transaction takes, from a place in the list on.
func importPart(b *testing.B, s *store.Store, o store.Options, tenant ids.ID, from int) int {
	b.Helper()
	list := make([]devices.Device, devices.MaxTogether)
	for i := range list {
		k := from + i
		list[i] = devices.Device{Tenant: tenant, ID: o.IDs.Next(), User: fmt.Sprint("user-", k), App: "default", Channel: channels.FCM,
			Target:         channels.Target{Kind: channels.FCMToken, Address: fmt.Sprintf("%0140d", k), OS: "android"},
			InstallationID: fmt.Sprint("installation-", k), AppVersion: "1.2.3", Locale: "de-CH", TimeZone: "Europe/Zurich", Tags: map[string]string{"plan": "pro"}}
	}
	done, err := s.UpsertDevices(b.Context(), tenant, list, devices.Caller{Actor: "key_test"})
	require.NoError(b, err)
	require.NoError(b, done[0].Err)
	return len(list)
}
