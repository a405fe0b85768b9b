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
	patience = 2 * time.Minute
)

// Options of Start.
type Options struct {
	FSync    bool              // survive a power cut too; without it only the death of processes, which is much faster
	Settings map[string]string // of postgresql.conf; they win over the kit's
	DataDir  string            // an empty folder for the data, such as one on a small disk; "": a temporary one
}

// Server is a PostgreSQL server of one test, which may hurt it. Its methods are
// for one goroutine at a time, except URL.
type Server struct {
	folder  *folder
	bin     string // where PostgreSQL's programs are
	options Options
	data    string
	port    int
	proc    *process
}

// Start starts a server for a test and ends it with the test. A test that only
// needs a database takes Database, which is much cheaper.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	bin, err := installed("initdb", "postgres")
	if err != nil {
		missing(t, "postgres", err)
	}
	s := newServer(testFolder(t), bin, o)
	if err := s.create(); err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	return s
}

func newServer(f *folder, bin string, o Options) *Server {
	s := &Server{folder: f, bin: bin, options: o, data: o.DataDir}
	if s.data == "" {
		s.data = filepath.Join(f.path, "data")
	}
	return s
}

// create makes a data directory and starts the server on it.
func (s *Server) create() error {
	if err := s.initialize(); err != nil {
		return err
	}
	if err := s.choosePort(); err != nil {
		return err
	}
	return s.furnish()
}

// initialize makes the data directory.
func (s *Server) initialize() error {
	if s.options.DataDir != "" {
		if err := s.folder.own(s.data); err != nil {
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
	return s.configure()
}

// furnish makes what every server has: the ordinary user, and a database of its own.
func (s *Server) furnish() error {
	if err := s.Exec("postgres", "CREATE ROLE "+ordinary+" LOGIN CREATEDB"); err != nil {
		return err
	}
	return s.Exec("postgres", "CREATE DATABASE "+ordinary+" OWNER "+ordinary)
}

func (s *Server) configure() error {
	settings := map[string]string{
		"listen_addresses":           loopback,
		"unix_socket_directories":    "", // their paths have a limit that temporary folders exceed
		"max_connections":            "300",
		"shared_buffers":             "32MB",
		"fsync":                      strconv.FormatBool(s.options.FSync),
		"full_page_writes":           strconv.FormatBool(s.options.FSync),
		"synchronous_commit":         "on",
		"autovacuum":                 "on",
		"jit":                        "off",
		"log_line_prefix":            "%m %d [%p] ",
		"log_min_duration_statement": "1s",
	}
	maps.Copy(settings, s.options.Settings)
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

// URL is the address of a database of the server, for an ordinary user who may
// create databases. The database "carillon" is there and belongs to that user.
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
	s.proc = p
	if err := await("PostgreSQL answers", p, pings(s.url(superuser, "postgres"))); err != nil {
		return errors.Join(fmt.Errorf("%w; its log:\n%s", err, s.folder.tail()), p.end(syscall.SIGQUIT))
	}
	return nil
}

// pings asks a server whether it accepts connections.
func pings(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := pgx.Connect(ctx, url)
		if err != nil {
			return err
		}
		return conn.Close(ctx)
	}
}

// Start starts the server again after Stop, Kill or a crash of its own, with the
// same port and data. It returns once the server has recovered.
func (s *Server) Start() error {
	if s.Running() {
		return errors.New("PostgreSQL runs already")
	}
	return s.start()
}

// Running says whether the server's first process is there.
func (s *Server) Running() bool {
	select {
	case <-s.proc.exited:
		return false
	default:
		return true
	}
}

// Stop shuts the server down, and waits for its end: transactions are rolled
// back, connections closed, and a checkpoint is written.
func (s *Server) Stop() error { return s.proc.end(syscall.SIGINT) }

// StopImmediately makes the server stop in the middle of everything, and waits
// for its end; it recovers at the next start.
func (s *Server) StopImmediately() error { return s.proc.end(syscall.SIGQUIT) }

// Kill ends all the server's processes with SIGKILL, as a crash of the machine
// does; what they wrote without a sync survives, other than in a power cut.
func (s *Server) Kill() error { return s.proc.kill() }

// Exec executes SQL in a database as a superuser.
func (s *Server) Exec(database, sql string, args ...any) error {
	return s.connected(database, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, sql, args...)
		return err
	})
}

// Query is the first column of what a query in a database returns to a superuser.
func Query[T any](s *Server, database, sql string, args ...any) ([]T, error) {
	var list []T
	err := s.connected(database, func(ctx context.Context, conn *pgx.Conn) error {
		rows, err := conn.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		list, err = pgx.CollectRows(rows, pgx.RowTo[T])
		return err
	})
	return list, err
}

func (s *Server) connected(database string, do func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.url(superuser, database))
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, conn), conn.Close(ctx))
}

// installed finds the folder of an installed PostgreSQL that has all the
// programs: the one in PATH first, then the newest of Debian's.
func installed(programs ...string) (string, error) {
	for _, bin := range candidates() {
		lacks := func(program string) bool {
			_, err := os.Stat(filepath.Join(bin, program))
			return err != nil
		}
		if !slices.ContainsFunc(programs, lacks) {
			return bin, nil
		}
	}
	return "", fmt.Errorf("no PostgreSQL with %s is in PATH or below /usr/lib/postgresql; on Debian: apt-get install postgresql", strings.Join(programs, ", "))
}

func candidates() []string {
	var list []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
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
