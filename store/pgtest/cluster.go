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
	"testing"
)

// Cluster is a primary with a synchronous standby. pg_auto_failover looks after
// them: when the primary dies, it makes the standby the primary. Here it decides
// within seconds. Methods are for one goroutine at a time, except URL.
type Cluster struct {
	folder  *folder
	program string // pg_autoctl
	monitor *Server
	nodes   [2]*Server
	dead    *Server // nil if both live
}

// StartCluster starts a cluster for a test and ends it with the test. It returns
// when the standby is in synchrony, which takes some ten seconds.
func StartCluster(t testing.TB) *Cluster {
	t.Helper()
	program, err := exec.LookPath("pg_autoctl")
	if err != nil {
		missing(t, "pg_auto_failover", fmt.Errorf("%w; on Debian: apt-get install pg-auto-failover-cli postgresql-15-auto-failover", err))
	}
	bin, err := installed("postgres", "initdb", "pg_ctl", "pg_basebackup", "pg_rewind", "../lib/pgautofailover.so")
	if err != nil {
		missing(t, "pg_auto_failover", err)
	}
	c := &Cluster{folder: testFolder(t), program: program}
	c.monitor = c.server(bin, "monitor", map[string]string{
		// In milliseconds; by default it takes half a minute to see that a node is dead.
		"pgautofailover.health_check_period":               "500",
		"pgautofailover.health_check_timeout":              "1000",
		"pgautofailover.health_check_max_retries":          "1",
		"pgautofailover.health_check_retry_delay":          "200",
		"pgautofailover.node_considered_unhealthy_timeout": "2000",
		"pgautofailover.startup_grace_period":              "1000",
		"pgautofailover.primary_demote_timeout":            "1000",
	})
	c.nodes = [2]*Server{c.server(bin, "node1", nil), c.server(bin, "node2", nil)}
	if err := c.start(); err != nil {
		t.Fatalf("start a PostgreSQL cluster: %v", err)
	}
	return c
}

func (c *Cluster) server(bin, name string, settings map[string]string) *Server {
	// pg_autoctl talks to its server through a socket.
	all := map[string]string{"unix_socket_directories": c.folder.path}
	maps.Copy(all, settings)
	s := newServer(c.folder, bin, Options{Settings: all})
	s.data = filepath.Join(c.folder.path, name)
	return s
}

func (s *Server) name() string { return filepath.Base(s.data) }

func (c *Cluster) start() error {
	first, second := c.nodes[0], c.nodes[1]
	if err := errors.Join(c.monitor.initialize(), first.initialize()); err != nil {
		return err
	}
	if err := c.create(c.monitor, "monitor"); err != nil {
		return err
	}
	if err := await("the monitor answers", c.monitor.proc, pings(c.monitor.url(monitorUser, monitorDatabase))); err != nil {
		return fmt.Errorf("%w; its log:\n%s", err, c.folder.tail())
	}
	if err := c.createNode(first); err != nil {
		return err
	}
	if err := c.awaitState(first, "single"); err != nil {
		return err
	}
	if err := first.furnish(); err != nil {
		return err
	}
	if err := c.createNode(second); err != nil {
		return err
	}
	return c.WaitForSync()
}

// What pg_auto_failover calls the monitor's user and database.
const (
	monitorUser     = "autoctl_node"
	monitorDatabase = "pg_auto_failover"
)

// create makes what looks after a server, which starts that server.
func (c *Cluster) create(s *Server, kind string, more ...string) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	s.port = port
	args := []string{"create", kind, "--pgctl", filepath.Join(s.bin, "pg_ctl"), "--pgdata", s.data, "--pgport", strconv.Itoa(port),
		"--hostname", loopback, "--auth", "trust", "--no-ssl", "--run"}
	s.proc, err = c.folder.start(s.name(), c.program, append(args, more...)...)
	return err
}

func (c *Cluster) createNode(s *Server) error {
	return c.create(s, "postgres", "--pghost", c.folder.path, "--listen", loopback, "--username", superuser, "--dbname", "postgres",
		"--name", s.name(), "--monitor", c.monitor.url(monitorUser, monitorDatabase))
}

// URL is the address of a database of whichever node is the primary, as
// Server.URL is of one server's. While neither is, connecting fails.
func (c *Cluster) URL(database string) string {
	hosts := make([]string, len(c.nodes))
	for i, s := range c.nodes {
		hosts[i] = net.JoinHostPort(loopback, strconv.Itoa(s.port))
	}
	u := url.URL{Scheme: "postgres", User: url.User(ordinary), Host: strings.Join(hosts, ","), Path: "/" + database,
		RawQuery: "sslmode=disable&target_session_attrs=read-write"}
	return u.String()
}

// KillPrimary ends the primary and what looks after it with SIGKILL, as if its
// machine were gone. Before, it waits for synchrony, without which the death of
// a primary rightly loses what it alone has committed.
func (c *Cluster) KillPrimary() error {
	if c.dead != nil {
		return errors.New("the other node is dead already; Restart it first")
	}
	if err := c.WaitForSync(); err != nil {
		return err
	}
	states, err := c.states()
	if err != nil {
		return err
	}
	for _, s := range c.nodes {
		if states[s.name()] == "primary" {
			c.dead = s
			return c.kill(s)
		}
	}
	return fmt.Errorf("no node is the primary: %v", states)
}

func (c *Cluster) kill(s *Server) error {
	// pg_autoctl overwrites its configuration in place now and then. Where the kill
	// catches it with an empty file it would not start again, which is a fault of
	// its own and not what tests are about.
	file := filepath.Join(c.folder.path, ".config", "pg_autoctl", s.data, "pg_autoctl.cfg")
	var config []byte
	err := await("pg_autoctl has a configuration", s.proc, func(context.Context) error {
		var err error
		if config, err = os.ReadFile(file); err == nil && len(config) == 0 {
			err = errors.New("the file is empty")
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.proc.kill(); err != nil {
		return err
	}
	// A machine that starts again finds no files of processes that ran. Here they
	// could name a process that has the number by now.
	return errors.Join(os.WriteFile(file, config, 0o600), os.RemoveAll(filepath.Join(c.folder.path, "pg_autoctl", s.data)))
}

// WaitForFailover returns when the node that lives is the primary and accepts
// writes. From then on it commits without a standby, until Restart.
func (c *Cluster) WaitForFailover() error {
	for _, s := range c.nodes {
		if c.dead != nil && s != c.dead {
			return c.awaitState(s, "wait_primary")
		}
	}
	return errors.New("no node is dead")
}

// Restart starts the node that was killed, and returns when it is the
// synchronous standby of the other.
func (c *Cluster) Restart() error {
	if c.dead == nil {
		return errors.New("no node is dead")
	}
	s := c.dead
	p, err := c.folder.start(s.name(), c.program, "run", "--pgdata", s.data)
	if err != nil {
		return err
	}
	s.proc, c.dead = p, nil
	return c.WaitForSync()
}

// WaitForSync returns when every commit waits for the standby.
func (c *Cluster) WaitForSync() error {
	return c.await("primary and standby are in synchrony", func(states map[string]string) bool {
		found := []string{states[c.nodes[0].name()], states[c.nodes[1].name()]}
		if slices.Contains(found, "primary") && slices.Contains(found, "secondary") {
			return true
		}
		for _, s := range c.nodes {
			// A copy for the standby begins with a checkpoint, which takes minutes unless
			// somebody asks for one now.
			if states[s.name()] == "wait_primary" {
				_ = s.Exec("postgres", "CHECKPOINT") // or in a moment
			}
		}
		return false
	})
}

// await waits until the nodes' states are as they should be. For what they mean
// see https://pg-auto-failover.readthedocs.io/en/main/failover-state-machine.html.
func (c *Cluster) await(what string, hold func(states map[string]string) bool) error {
	err := await(what, c.monitor.proc, func(context.Context) error {
		states, err := c.states()
		if err != nil || hold(states) {
			return err
		}
		return fmt.Errorf("nodes are %v", states)
	})
	if err != nil {
		return fmt.Errorf("%w; their log:\n%s", err, c.folder.tail())
	}
	return nil
}

func (c *Cluster) awaitState(s *Server, state string) error {
	return c.await(s.name()+" is "+state, func(states map[string]string) bool { return states[s.name()] == state })
}

// states are the nodes' states by their names.
func (c *Cluster) states() (map[string]string, error) {
	rows, err := Query[string](c.monitor, monitorDatabase, `SELECT nodename || '=' || CASE WHEN reportedstate = goalstate THEN reportedstate::text
		ELSE reportedstate || ', to be ' || goalstate END FROM pgautofailover.node`)
	if err != nil {
		return nil, err
	}
	states := map[string]string{}
	for _, row := range rows {
		name, state, _ := strings.Cut(row, "=")
		states[name] = state
	}
	return states, nil
}
