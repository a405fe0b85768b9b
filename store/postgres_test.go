package store_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/store/storetest"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		t.Helper()
		o := onPostgres(t, options(t))
		return storetest.Opened{Store: open(t, o), Clock: o.clock, IDs: o.IDs}
	})
}

// onPostgres gives the options a database of its own there, which is migrated.
func onPostgres(t *testing.T, o testOptions) testOptions {
	t.Helper()
	o.URL = pgtest.Database(t, "migrated", func(url string) error {
		_, err := store.Migrations(context.Background(), url, true)
		return err
	})
	o.Connections = 8
	require.True(t, store.IsPostgres(o.URL))
	return o
}
