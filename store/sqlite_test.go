package store_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/storetest"
)

var _ storetest.Store = (*store.Store)(nil)

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		t.Helper()
		o := options(t)
		s := open(t, o)
		db, err := sql.Open("sqlite", o.URL+"?_pragma=busy_timeout(10000)")
		require.NoError(t, err)
		t.Cleanup(func() { _ = db.Close() })
		return storetest.Opened{Store: s, Clock: o.clock, IDs: o.IDs,
			Dump: func(t *testing.T) storetest.Dump {
				t.Helper()
				return dump(t, db, `SELECT name FROM sqlite_master WHERE type='table'`)
			},
			Exec: func(t *testing.T, query string, args ...any) {
				t.Helper()
				_, err := db.Exec(query, args...)
				require.NoError(t, err)
			},
			Files: func(t *testing.T) (all []byte) {
				t.Helper()
				names, err := filepath.Glob(o.URL + "*")
				require.NoError(t, err)
				for _, name := range names {
					b, err := os.ReadFile(name)
					require.NoError(t, err)
					all = append(all, b...)
				}
				return all
			},
		}
	})
}

// exec runs a statement behind the store.
func exec(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", path+"?_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	defer func() { _ = db.Close() }()
	_, err = db.Exec(query)
	require.NoError(t, err)
}

// dump reads all tables that a query names.
func dump(t *testing.T, db *sql.DB, tables string) storetest.Dump {
	t.Helper()
	query := func(q string) (columns []string, out [][]any) {
		rows, err := db.Query(q)
		require.NoError(t, err)
		defer func() { _ = rows.Close() }()
		columns, err = rows.Columns()
		require.NoError(t, err)
		for rows.Next() {
			row := make([]any, len(columns))
			into := make([]any, len(columns))
			for i := range row {
				into[i] = &row[i]
			}
			require.NoError(t, rows.Scan(into...))
			out = append(out, row)
		}
		require.NoError(t, rows.Err())
		return columns, out
	}
	d := storetest.Dump{}
	_, names := query(tables)
	for _, name := range names {
		columns, rows := query("SELECT * FROM " + name[0].(string))
		table := storetest.Table{Columns: columns}
		for _, row := range rows {
			m := map[string]any{}
			for i, c := range columns {
				m[c] = row[i]
			}
			table.Rows = append(table.Rows, m)
		}
		d[name[0].(string)] = table
	}
	return d
}

// testOptions are the options of a store in a folder of the test.
type testOptions struct {
	store.Options
	clock *storetest.Clock
}

func options(t *testing.T) testOptions {
	t.Helper()
	ring, _, err := store.NewKeyRing()
	require.NoError(t, err)
	clock := storetest.NewClock()
	return testOptions{clock: clock, Options: store.Options{URL: filepath.Join(t.TempDir(), "c.db"), KeyRing: ring, Now: clock.Now,
		IDs: ids.NewGenerator(1, clock.Now), Migrate: true}}
}

func open(t *testing.T, o testOptions) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), o.Options)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}
