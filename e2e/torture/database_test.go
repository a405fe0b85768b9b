package torture_test

import (
	"context"
	"database/sql"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store"
)

// database is what a fleet runs on.
type database interface {
	name() string
	url() string // for the nodes
	// open opens it beside the nodes, to count.
	open(t testing.TB) *sql.DB
	// check runs the invariant queries and names those that find something.
	check(t testing.TB, ring string) []string
	// hurts are the ways in which a round may hurt the database itself.
	hurts() []hurt
}

// hurt does something to the database and undoes it.
type hurt struct {
	name string
	do   func(t testing.TB)
}

// sqlite is a file. What hurts it is what hurts its one node.
type sqlite struct{ path string }

func newSQLite(dir string) *sqlite { return &sqlite{path: filepath.Join(dir, "c.db")} }

func (*sqlite) name() string  { return "sqlite" }
func (s *sqlite) url() string { return s.path }
func (*sqlite) hurts() []hurt { return nil }

func (s *sqlite) open(t testing.TB) *sql.DB {
	t.Helper()
	// The driver comes with package store.
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: s.path, RawQuery: "mode=ro&_pragma=busy_timeout(10000)"}).String())
	require.NoError(t, err)
	return db
}

func (s *sqlite) check(t testing.TB, ring string) []string {
	t.Helper()
	keys, err := store.ReadKeyRing(ring)
	require.NoError(t, err)
	return checkStore(t, store.Options{Path: s.path, KeyRing: keys})
}

func checkStore(t testing.TB, o store.Options) (broken []string) {
	t.Helper()
	s, err := store.Open(context.Background(), o)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	found, err := s.Check(context.Background(), true)
	require.NoError(t, err)
	for _, v := range found {
		broken = append(broken, v.Name+": "+v.Means)
	}
	return broken
}
