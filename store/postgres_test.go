package store_test

import (
	"context"
	"database/sql"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/store/storetest"
)

var placeholder = regexp.MustCompile(`\?`)

func TestPostgres(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		t.Helper()
		o := onPostgres(t, options(t))
		s := open(t, o)
		db, err := sql.Open("pgx", o.URL)
		require.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		return storetest.Opened{Store: s, Clock: o.clock, IDs: o.IDs,
			Dump: func(t *testing.T) storetest.Dump {
				t.Helper()
				return dump(t, db, `SELECT table_name::text FROM information_schema.tables WHERE table_schema='public' AND table_type='BASE TABLE'`)
			},
			Exec: func(t *testing.T, query string, args ...any) {
				t.Helper()
				n := 0
				_, err := db.Exec(placeholder.ReplaceAllStringFunc(query, func(string) string { n++; return "$" + strconv.Itoa(n) }), args...)
				require.NoError(t, err)
			},
		}
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
