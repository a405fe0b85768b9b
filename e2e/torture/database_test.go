package torture_test

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/e2e/toxic"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// database is what a fleet runs on.
type database interface {
	url() string // for the nodes
	// open opens it beside the nodes, to count.
	open(t testing.TB) *sql.DB
	// check runs the invariant queries and names those that find something.
	check(t testing.TB, ring string) []string
	// links are the ways to it that lead over a proxy.
	links() []*toxic.Proxy
	// erase loses it and makes an empty one in its place.
	erase(t testing.TB)
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

func (s *sqlite) url() string { return s.path }
func (*sqlite) hurts() []hurt { return nil }

func (*sqlite) links() []*toxic.Proxy { return nil }

func (s *sqlite) erase(t testing.TB) {
	t.Helper()
	for _, end := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(s.path + end); !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
		}
	}
}

func (s *sqlite) open(t testing.TB) *sql.DB {
	t.Helper()
	// The driver comes with package store.
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: s.path}).EscapedPath()+"?mode=ro&_pragma=busy_timeout(10000)")
	require.NoError(t, err)
	return db
}

func (s *sqlite) check(t testing.TB, ring string) []string {
	t.Helper()
	keys, err := db.ReadKeyRing(ring)
	require.NoError(t, err)
	return checkStore(t, store.Options{URL: s.path, KeyRing: keys})
}

// postgres is a database of a server that the test may kill, behind a link that
// it may cut.
type postgres struct {
	server *pgtest.Server
	data   string // its folder, if the test has chosen it
	link   *toxic.Proxy
}

const postgresName = "carillon" // the kit makes it

func newPostgres(t testing.TB, o pgtest.Options) *postgres {
	t.Helper()
	s := pgtest.Start(t, o)
	u, err := url.Parse(s.URL(postgresName))
	require.NoError(t, err)
	return &postgres{server: s, data: o.DataDir, link: toxic.New(t, u.Host)}
}

func (p *postgres) links() []*toxic.Proxy { return []*toxic.Proxy{p.link} }

func (p *postgres) url() string {
	u, err := url.Parse(p.direct())
	if err != nil {
		panic(err) // it was parsed before
	}
	u.Host = p.link.Addr()
	return u.String()
}

// direct is the URL beside the link.
func (p *postgres) direct() string { return p.server.URL(postgresName) }

func (p *postgres) erase(t testing.TB) {
	t.Helper()
	require.NoError(t, p.server.Exec("postgres", "DROP DATABASE "+postgresName+" WITH (FORCE)"))
	require.NoError(t, p.server.Exec("postgres", "CREATE DATABASE "+postgresName+" OWNER carillon"))
}

func (p *postgres) open(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", p.direct()) // the driver comes with package store
	require.NoError(t, err)
	return db
}

func (p *postgres) check(t testing.TB, ring string) []string {
	t.Helper()
	keys, err := db.ReadKeyRing(ring)
	require.NoError(t, err)
	return checkStore(t, store.Options{URL: p.direct(), KeyRing: keys})
}

// again starts a server that was killed. It refuses while one of the processes
// that were killed with it still lets go of its memory.
func again(t testing.TB, s *pgtest.Server) {
	t.Helper()
	deadline := time.Now().Add(patience)
	err := s.Start()
	for err != nil && time.Now().Before(deadline) {
		pause(context.Background(), 100*time.Millisecond)
		err = s.Start()
	}
	require.NoError(t, err)
}

func (p *postgres) hurts() []hurt {
	return []hurt{
		{"database killed", func(t testing.TB) {
			t.Helper()
			require.NoError(t, p.server.Kill())
			again(t, p.server)
		}},
		{"database restarted", func(t testing.TB) {
			t.Helper()
			require.NoError(t, p.server.Stop())
			require.NoError(t, p.server.Start())
		}},
		{"sessions ended", func(t testing.TB) {
			t.Helper()
			require.NoError(t, p.server.Exec("postgres", "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=$1", postgresName))
		}},
	}
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
