package pgtest

import (
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// secondRun: the tests run on PostgreSQL.
var secondRun bool

// OnBoth runs the tests of a package on SQLite, and once more on PostgreSQL if
// they passed; those whose names match one of sqliteOnly only once. It is called
// from TestMain.
func OnBoth(m *testing.M, sqliteOnly ...string) int {
	code := m.Run()
	if code != 0 || value("test.list") != "" || value("test.bench") != "" || value("test.fuzz") != "" {
		return code
	}
	skip := sqliteOnly
	if given := value("test.skip"); given != "" {
		skip = append(skip, given)
	}
	if err := flag.Set("test.skip", strings.Join(skip, "|")); err != nil {
		panic(err) // every test binary has the flag
	}
	secondRun = true
	fmt.Println("=== once more, on PostgreSQL")
	return m.Run()
}

func value(name string) string {
	f := flag.Lookup(name)
	if f == nil || f.Value.String() == f.DefValue {
		return ""
	}
	return f.Value.String()
}

// Postgres tells whether the tests run on PostgreSQL at the moment.
func Postgres() bool { return secondRun }

// URL makes a database for one test, of the kind that the tests run on at the
// moment. On PostgreSQL it is a copy of what migrate has made; on SQLite a file
// that is not there yet.
func URL(t testing.TB, migrate func(url string) error) string {
	t.Helper()
	if secondRun {
		return Database(t, "migrated", migrate)
	}
	return filepath.Join(t.TempDir(), "c.db")
}
