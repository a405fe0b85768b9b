package pgtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	loopback  = "127.0.0.1"
	superuser = "postgres"
	// ordinary owns the tests' databases. It may create databases and nothing else,
	// so what it can do needs no superuser.
	ordinary = "carillon"

	// patience is how long something may take that normally takes less than a second.
	patience = 60 * time.Second
	pause    = 10 * time.Millisecond
)

// Options of Start.
type Options struct {
	FSync    bool              // survive a power cut too; without it only the death of processes, which is much faster
	Settings map[string]string // of postgresql.conf; they win over the kit's
	DataDir  string            // an empty folder for the data, such as one on a small disk; "": a temporary one
}

// Server is a PostgreSQL server of one test, which may hurt it.
type Server struct {
	folder *folder
	bin    string
	data   string
	port   int
	proc   *process // nil while it is stopped
}

// Start starts a server for a test and ends it with the test. A test that only
// needs a database takes Database, which is much cheaper.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	bin, err := installed("initdb", "postgres")
	if err != nil {
		missing(t, "postgres", err)
	}
	s, err := newServer(bin, o)
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := s.folder.close(); err != nil {
			t.Errorf("end PostgreSQL: %v", err)
		}
	})
	return s
}

// newServer makes a data directory and starts a server on it.
func newServer(bin string, o Options) (*Server, error) {
	f, err := newFolder()
	if err != nil {
		return nil, err
	}
	s := &Server{folder: f, bin: bin, data: o.DataDir}
	if s.data == "" {
		s.data = filepath.Join(f.path, "data")
	}
	if err := s.create(o); err != nil {
		return nil, errors.Join(err, f.close())
	}
	return s, nil
}

func (s *Server) create(o Options) error {
	if o.DataDir != "" {
		if err := s.folder.own(o.DataDir); err != nil {
			return err
		}
	}
	// A collation that sorts as people do, as most installations have it: whoever
	// relies on the order of bytes sees it here.
	err := s.folder.run(filepath.Join(s.bin, "initdb"), "--pgdata", s.data, "--username", superuser, "--auth", "trust",
		"--encoding", "UTF8", "--locale", "C", "--locale-provider", "icu", "--icu-locale", "en-US", "--no-sync", "--no-instructions")
	if err != nil {
		return err
	}
	if err := s.configure(o); err != nil {
		return err
	}
	if err := s.choosePort(); err != nil {
		return err
	}
	return s.exec("CREATE ROLE " + ordinary + " LOGIN CREATEDB")
}

func (s *Server) configure(o Options) error {
	settings := map[string]string{
		"listen_addresses":           loopback,
		"unix_socket_directories":    "", // their paths have a limit that temporary folders exceed
		"max_connections":            "300",
		"shared_buffers":             "32MB",
		"fsync":                      strconv.FormatBool(o.FSync),
		"full_page_writes":           strconv.FormatBool(o.FSync),
		"synchronous_commit":         "on",
		"autovacuum":                 "on",
		"jit":                        "off",
		"log_line_prefix":            "%m %d [%p] ",
		"log_min_duration_statement": "1s",
	}
	maps.Copy(settings, o.Settings)
	conf := filepath.Join(s.data, "postgresql.conf")
	b, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		b = fmt.Appendf(b, "%s = '%s'\n", name, strings.ReplaceAll(settings[name], "'", "''"))
	}
	return os.WriteFile(conf, b, 0o600)
}

// choosePort starts the server on a port that it keeps from then on.
func (s *Server) choosePort() error {
	const tries = 5 // another process may take the port between our look and the start
	var last error
	for range tries {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.port = port
		if last = s.start(); last == nil {
			return nil
		}
	}
	return last
}

// URL is the address of a database of the server, for the ordinary user that
// owns what it creates. The database "postgres" is always there.
func (s *Server) URL(database string) string { return s.url(ordinary, database) }

func (s *Server) url(name, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(name), Host: net.JoinHostPort(loopback, strconv.Itoa(s.port)), Path: "/" + database,
		RawQuery: "sslmode=disable"}
	return u.String()
}

// start starts the server and waits until it answers.
func (s *Server) start() error {
	p, err := s.folder.start("postgres", filepath.Join(s.bin, "postgres"), "-D", s.data, "-p", strconv.Itoa(s.port))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.url(superuser, "postgres"))
		if err == nil {
			s.proc = p
			return conn.Close(ctx)
		}
		select {
		case <-p.exited:
			return fmt.Errorf("it exited at once; its log:\n%s", s.folder.tail())
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("it does not answer: %w; its log:\n%s", err, s.folder.tail()), p.end(syscall.SIGQUIT))
		case <-time.After(pause):
		}
	}
}

func (s *Server) exec(sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url(superuser, "postgres"))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql, args...)
	return errors.Join(err, conn.Close(ctx))
}

// installed finds the folder of an installed PostgreSQL that has all the
// programs: the one in PATH first, then the newest of Debian's.
func installed(programs ...string) (string, error) {
	for _, bin := range candidates() {
		has := func(program string) bool {
			_, err := exec.LookPath(filepath.Join(bin, program))
			return err == nil
		}
		if !slices.ContainsFunc(programs, func(p string) bool { return !has(p) }) {
			return bin, nil
		}
	}
	return "", fmt.Errorf("no PostgreSQL with %s is in PATH or below /usr/lib/postgresql; on Debian: apt-get install postgresql", strings.Join(programs, ", "))
}

func candidates() []string {
	var list []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		list = append(list, filepath.Dir(path))
	}
	debian, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is sound
	major := func(bin string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin)))
		return n
	}
	slices.SortFunc(debian, func(a, b string) int { return major(b) - major(a) })
	list = append(list, debian...)
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		list = append(list, strings.TrimSpace(string(out)))
	}
	return list
}
