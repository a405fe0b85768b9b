package store_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/store/storetest"
)

var _ storetest.Store = (*store.Store)(nil)

// TestMain runs everything on SQLite, and on PostgreSQL all but what looks into
// SQLite's own workings, or brings a server of its own.
func TestMain(m *testing.M) {
	os.Exit(pgtest.OnBoth(m, "OneFaultNever", "ATroubledDatabase", "AFullQueue", "CloseWritesWhatWaits", "QueriesUseTheirIndexes", "ADatabaseThatTakesNoWrites", "LeasesOfADeadProcess", "OneEngineAtATime", "SecretsAreNowhereInTheFiles",
		"ForgetsWhoWasErased", "ALineThatACrash",
		"AnOlderBackupIsMigrated", "ABackupOfOtherColumns", "SchemaWithoutThePause", "FaultsOfTheFile", "FaultsOfPostgres"))
}

func TestContract(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) storetest.Opened {
		t.Helper()
		o := options(t)
		s, db := open(t, o), rawDB(t, o)
		opened := storetest.Opened{Store: s, Clock: o.clock, IDs: o.IDs,
			Dump: func(t *testing.T) storetest.Dump { t.Helper(); return dump(t, db) },
			Exec: func(t *testing.T, query string, args ...any) {
				t.Helper()
				_, err := db.Exec(numbered(o, query), args...)
				require.NoError(t, err)
			},
		}
		if !pgtest.Postgres() {
			opened.Files = func(t *testing.T) []byte { t.Helper(); return files(t, o.URL) }
		}
		return opened
	})
}

// files reads an SQLite file and what is beside it.
func files(t *testing.T, path string) (all []byte) {
	t.Helper()
	names, err := filepath.Glob(path + "*")
	require.NoError(t, err)
	for _, name := range names {
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		all = append(all, b...)
	}
	return all
}

var placeholder = regexp.MustCompile(`\?`)

// numbered writes placeholders as the database reads them.
func numbered(o testOptions, query string) string {
	if !store.IsPostgres(o.URL) {
		return query
	}
	n := 0
	return placeholder.ReplaceAllStringFunc(query, func(string) string { n++; return "$" + strconv.Itoa(n) })
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

// tableNames lists all tables.
func tableNames() string {
	if pgtest.Postgres() {
		return `SELECT table_name::text FROM information_schema.tables WHERE table_schema='public' AND table_type='BASE TABLE'`
	}
	return `SELECT name FROM sqlite_master WHERE type='table'`
}

// dump reads all tables.
func dump(t *testing.T, db *sql.DB) storetest.Dump {
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
	_, names := query(tableNames())
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
	return testOptions{clock: clock, Options: store.Options{URL: pgtest.URL(t, migrated), KeyRing: ring, Now: clock.Now,
		IDs: ids.NewGenerator(1, clock.Now), Migrate: true, Connections: 8}}
}

func migrated(url string) error {
	_, err := store.Migrations(context.Background(), url, true)
	return err
}

func open(t *testing.T, o testOptions) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), o.Options)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}
