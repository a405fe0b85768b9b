package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// given names the variable with the URL of a server to use instead of one of our
// own. Its user must be allowed to create databases.
const given = "CARILLON_TEST_POSTGRES_URL"

// Database makes a database for one test and returns its URL. It is a copy of a
// template that prepare, such as the migrations, fills once per process and name;
// prepare must close the connections that it opens. The database is dropped at
// the test's end, whoever is still connected.
func Database(t testing.TB, name string, prepare func(url string) error) string {
	t.Helper()
	d := databasesFor(t)
	template, err := d.template(name, prepare)
	if err != nil {
		t.Fatalf("prepare the PostgreSQL template %q: %v", name, err)
	}
	return d.forTest(t, template)
}

// Empty makes an empty database for one test, as Database does.
func Empty(t testing.TB) string {
	t.Helper()
	return databasesFor(t).forTest(t, "template0")
}

// databases makes and drops databases on one server.
type databases struct {
	admin  *url.URL // where CREATE DATABASE is said, and as whom
	owner  *url.URL // as whom tests use their databases
	prefix string   // of the names of this process's databases
	server *Server  // nil for a given one; here because it ends when nobody refers to it

	mu        sync.Mutex // one CREATE or DROP DATABASE at a time: they exclude each other anyway
	made      int
	templates map[string]func() (string, error)
}

// shared is the server of this process. It is started when the first test asks.
var shared = sync.OnceValues(func() (*databases, error) {
	d := &databases{templates: map[string]func() (string, error){}}
	// The time, so that a later process can tell what a killed one has left.
	d.prefix = fmt.Sprintf("%s%d_%s_", leftover, time.Now().Unix(), strings.ToLower(rand.Text()[:8]))
	if raw := os.Getenv(given); raw != "" {
		u, err := url.Parse(raw)
		if err != nil {
			return nil, fmt.Errorf("%s is no URL", given) // the error would show the password
		}
		d.admin, d.owner = u, u
		if err := d.sweep(); err != nil {
			return nil, fmt.Errorf("%s: %w", given, err)
		}
		return d, nil
	}
	bin, err := installed("initdb", "postgres")
	if err != nil {
		return nil, missingError{err}
	}
	f, err := newFolder()
	if err != nil {
		return nil, err
	}
	s := newServer(f, bin, Options{})
	if err := s.create(); err != nil {
		return nil, errors.Join(err, f.close())
	}
	d.server = s
	d.admin, err = url.Parse(s.url(superuser, "postgres"))
	if err != nil {
		return nil, err
	}
	d.owner, err = url.Parse(s.url(ordinary, "postgres"))
	return d, err
})

// missingError says that there is no server because none is installed.
type missingError struct{ error }

func databasesFor(t testing.TB) *databases {
	t.Helper()
	d, err := shared()
	if _, ok := errors.AsType[missingError](err); ok {
		missing(t, "postgres", err)
	}
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	return d
}

// template is the database that prepare has filled.
func (d *databases) template(name string, prepare func(url string) error) (string, error) {
	d.mu.Lock()
	once, ok := d.templates[name]
	if !ok {
		once = sync.OnceValues(func() (string, error) {
			database, err := d.create("template0")
			if err != nil {
				return "", err
			}
			if err := prepare(d.url(database)); err != nil {
				return "", err
			}
			// Whoever is connected to a template keeps others from copying it.
			return database, d.exec("ALTER DATABASE " + quote(database) + " ALLOW_CONNECTIONS false")
		})
		d.templates[name] = once
	}
	d.mu.Unlock()
	return once()
}

func (d *databases) forTest(t testing.TB, template string) string {
	t.Helper()
	database, err := d.create(template)
	if err != nil {
		t.Fatalf("create a PostgreSQL database: %v", err)
	}
	t.Cleanup(func() {
		if err := d.exec("DROP DATABASE " + quote(database) + " WITH (FORCE)"); err != nil {
			t.Errorf("drop the test's PostgreSQL database: %v", err)
		}
	})
	return d.url(database)
}

func (d *databases) create(template string) (string, error) {
	d.mu.Lock()
	d.made++
	database := d.prefix + strconv.Itoa(d.made)
	d.mu.Unlock()
	sql := fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s STRATEGY file_copy", quote(database), quote(template))
	if d.server != nil { // otherwise it belongs to whom it is made by
		sql += " OWNER " + ordinary
	}
	return database, d.exec(sql)
}

func (d *databases) url(database string) string {
	u := *d.owner
	u.Path = "/" + database
	return u.String()
}

// exec runs a statement, again for a while if somebody is still connected to the
// database it is about: connections end a moment after they were closed, and
// autovacuum comes and goes.
func (d *databases) exec(sql string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.admin.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	const tries = 3 // the server itself waits five seconds each time
	for range tries {
		_, err = conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || (refused.Code != "55006" && refused.Code != "42501") {
			break
		}
	}
	return err
}

// leftover begins the names of all databases that processes like this have made.
const leftover = "carillon_test_"

// sweep drops the databases that earlier processes have left on a given server:
// the templates always, the others if they were killed.
func (d *databases) sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, d.admin.String())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE starts_with(datname, $1)", leftover)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	const old = 6 * time.Hour // no test process lives longer
	for _, name := range names {
		made, _, _ := strings.Cut(strings.TrimPrefix(name, leftover), "_")
		seconds, err := strconv.ParseInt(made, 10, 64)
		if err != nil || time.Since(time.Unix(seconds, 0)) < old {
			continue
		}
		if err := d.exec("DROP DATABASE IF EXISTS " + quote(name) + " WITH (FORCE)"); err != nil {
			return err
		}
	}
	return nil
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
