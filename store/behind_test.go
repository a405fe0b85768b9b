package store_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/store/storetest"
)

var placeholder = regexp.MustCompile(`\?`)

// behind gives the contract a way to look, and to write, behind the store.
func behind(t *testing.T, o testOptions, x storetest.Opened) storetest.Opened {
	t.Helper()
	db, tables := rawDB(t, o), `SELECT name FROM sqlite_master WHERE type='table'`
	if pgtest.Postgres() {
		tables = `SELECT table_name::text FROM information_schema.tables WHERE table_schema='public' AND table_type='BASE TABLE'`
	}
	x.Dump = func(t *testing.T) storetest.Dump {
		t.Helper()
		return dump(t, db, tables)
	}
	x.Exec = func(t *testing.T, query string, args ...any) {
		t.Helper()
		_, err := db.Exec(numbered(o, query), args...)
		require.NoError(t, err)
	}
	if pgtest.Postgres() {
		return x
	}
	x.Files = func(t *testing.T) (all []byte) {
		t.Helper()
		names, err := filepath.Glob(o.URL + "*")
		require.NoError(t, err)
		for _, name := range names {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			all = append(all, b...)
		}
		return all
	}
	return x
}

// numbered writes placeholders as the database reads them.
func numbered(o testOptions, query string) string {
	if !db.IsPostgres(o.URL) {
		return query
	}
	n := 0
	return placeholder.ReplaceAllStringFunc(query, func(string) string { n++; return "$" + strconv.Itoa(n) })
}

// exec runs a statement behind the store, on SQLite.
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
