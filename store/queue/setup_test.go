package queue

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// TestMain runs everything on SQLite, and on PostgreSQL all but what looks into
// SQLite's own workings.
func TestMain(m *testing.M) { os.Exit(pgtest.OnBoth(m, "QueriesUseTheirIndexes")) }

func openDB(t *testing.T, url string) *db.DB {
	t.Helper()
	ring, _, err := db.NewKeyRing()
	require.NoError(t, err)
	d, err := db.Open(context.Background(), db.Options{URL: url, KeyRing: ring, Migrate: true})
	require.NoError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}
