package torture_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/e2e/toxic"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/simulator"
)

// build compiles the program once, with fail points and without the race
// detector: it is timed as it is released.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "carillon-torture-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "carillon")
	cmd := exec.Command("go", "build", "-tags", "nomsgpack,failpoints", "-o", path, "github.com/carillonhq/carillon/cmd/carillon")
	var flags []string
	for f := range strings.FieldsSeq(os.Getenv("GOFLAGS")) {
		if f != "-race" {
			flags = append(flags, f)
		}
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+strings.Join(flags, " "))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// times are those of the engine, so short that a round need not wait for them.
const times = "send_timeout=2s;marker_after=1s"

// fleet is one database with the nodes that run on it.
type fleet struct {
	program string
	dir     string
	db      database
	env     []string
	nodes   []*node
	doors   []*toxic.Proxy          // from clients to the nodes
	wires   map[string]*toxic.Proxy // from the nodes to the providers
}

func newFleet(t *testing.T, sim *simulator.Simulator, db database, dir string, size int) *fleet {
	t.Helper()
	program, err := build()
	require.NoError(t, err)
	f := &fleet{program: program, dir: dir, db: db}
	apns, fcm := sim.APNs(), sim.FCM()
	plain := hostOf(t, fcm.URL)
	f.wires = map[string]*toxic.Proxy{"fcm": toxic.New(t, plain), "apns": toxic.New(t, hostOf(t, apns.URL)), "push": toxic.New(t, plain), "webhook": toxic.New(t, plain)}
	ring, ca := f.ring(), filepath.Join(dir, "ca.pem")
	require.NoError(t, os.WriteFile(ca, apns.CAPEM, 0o600))
	const loopback = "127.0.0.0/8"
	f.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GOMAXPROCS=" + fmt.Sprint(runtime.GOMAXPROCS(0)),
		"CARILLON_KEY_RING_FILE=" + ring, "CARILLON_ADMIN_LISTEN=off", "CARILLON_LOG_FORMAT=json", "CARILLON_LOG_LEVEL=info",
		"CARILLON_SHUTDOWN_GRACE=3s",
		"CARILLON_CHANNELS_FCM_ENDPOINT=" + f.wires["fcm"].Through(t, fcm.URL), "CARILLON_CHANNELS_FCM_TOKEN_URIS=" + fcm.TokenURI,
		"CARILLON_CHANNELS_APNS_PRODUCTION_URL=" + f.wires["apns"].Through(t, apns.URL), "CARILLON_CHANNELS_APNS_SANDBOX_URL=" + apns.SandboxURL,
		"CARILLON_CHANNELS_APNS_CA_FILE=" + ca,
		"CARILLON_CHANNELS_WEBPUSH_ANY_HOST=true", "CARILLON_CHANNELS_WEBPUSH_ALLOW=" + loopback,
		"CARILLON_CHANNELS_WEBPUSH_ALLOW_HTTP=true", "CARILLON_CHANNELS_WEBPUSH_ANY_PORT=true",
		"CARILLON_CHANNELS_WEBHOOK_ALLOW=" + loopback, "CARILLON_CHANNELS_WEBHOOK_ALLOW_HTTP=true", "CARILLON_CHANNELS_WEBHOOK_ANY_PORT=true",
	}
	if _, err := os.Stat(ring); errors.Is(err, os.ErrNotExist) {
		f.command(t, "key-ring", "init", "--out", ring)
	}
	for i := range size {
		n := &node{fleet: f, number: i, address: freeAddress(t)}
		f.nodes = append(f.nodes, n)
		f.doors = append(f.doors, toxic.New(t, n.address))
		t.Cleanup(func() { n.kill(t) })
	}
	return f
}

func (f *fleet) ring() string { return filepath.Join(f.dir, "keyring") }

func hostOf(t testing.TB, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	require.NoError(t, err)
	return u.Host
}

// freeAddress is one that a node keeps over its lives. It is below the ports
// that the system gives to outgoing connections, and below those that package
// toxic takes, so that neither gets it while the node is down.
func freeAddress(t testing.TB) string {
	t.Helper()
	const low, high, tries = 6000, 10000, 100
	for range tries {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(low+rand.IntN(high-low)))
		if l, err := net.Listen("tcp", address); err == nil {
			require.NoError(t, l.Close())
			return address
		}
	}
	t.Fatalf("no port is free between %d and %d", low, high)
	return ""
}

// command runs a command of the program beside the servers.
func (f *fleet) command(t testing.TB, args ...string) string {
	t.Helper()
	cmd := exec.Command(f.program, args...)
	cmd.Env = append(append([]string{}, f.env...), "CARILLON_DATABASE_URL="+f.db.url())
	out, err := cmd.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		t.Fatalf("carillon %s: %v\n%s", strings.Join(args, " "), err, failed.Stderr)
	}
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// links are all ways that lead over a proxy.
func (f *fleet) links() []*toxic.Proxy {
	all := append([]*toxic.Proxy{}, f.doors...)
	for _, name := range slices.Sorted(maps.Keys(f.wires)) {
		all = append(all, f.wires[name])
	}
	return append(all, f.db.links()...)
}

// mend makes a link whole. Somebody else on this machine may have its port for a
// moment.
func mend(t testing.TB, link *toxic.Proxy) {
	t.Helper()
	require.Eventually(t, func() bool { return link.Heal() == nil }, patience, 50*time.Millisecond)
}

// living are the nodes that run.
func (f *fleet) living() []*node {
	var alive []*node
	for _, n := range f.nodes {
		if n.alive() {
			alive = append(alive, n)
		}
	}
	return alive
}

// node is one server process that may be killed and started again.
type node struct {
	fleet   *fleet
	number  int
	address string

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	point string        // the fail point that killed it last
	asked bool          // its end was our wish
	fault string        // how it ended by itself, "" if it never did
	log   []string
}

func (n *node) alive() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.cmd != nil
}

// start starts the node and waits until it serves. It is false when a fail point
// killed it before.
func (n *node) start(t testing.TB, points string) bool {
	t.Helper()
	require.False(t, n.alive())
	cmd := exec.Command(n.fleet.program, "serve")
	cmd.Env = append(append([]string{}, n.fleet.env...), "CARILLON_LISTEN="+n.address, fmt.Sprintf("CARILLON_NODE_NAME=node-%d", n.number),
		"CARILLON_DATABASE_URL="+n.fleet.db.url(), failpoint.Variable+"="+times+";"+points)
	stderr, err := cmd.StderrPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	serves, ended := make(chan struct{}), make(chan struct{})
	n.mu.Lock()
	n.cmd, n.ended, n.point, n.asked = cmd, ended, "", false
	n.mu.Unlock()
	go n.watch(cmd, bufio.NewScanner(stderr), serves, ended)
	select {
	case <-serves:
		return true
	case <-ended:
		if n.killedAt() == "" {
			t.Fatalf("node %d ended before it served:\n%s", n.number, n.tail())
		}
		return false
	case <-time.After(60 * time.Second):
		t.Fatalf("node %d does not start:\n%s", n.number, n.tail())
	}
	return false
}

// watch keeps what the process says until it has ended, and how it did.
func (n *node) watch(cmd *exec.Cmd, lines *bufio.Scanner, serves, ended chan struct{}) {
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text := lines.Text()
		var line struct{ Msg string }
		if json.Unmarshal([]byte(text), &line) == nil && line.Msg == "carillon serves" {
			close(serves)
		}
		n.mu.Lock()
		if at, ok := strings.CutPrefix(text, failpoint.Killed); ok {
			n.point = at
		}
		if n.log = append(n.log, text); len(n.log) > 400 {
			n.log = n.log[100:]
		}
		n.mu.Unlock()
	}
	err := cmd.Wait()
	n.mu.Lock()
	if n.point == "" && !n.asked {
		n.fault = fmt.Sprintf("node %d ended by itself (%v):\n%s", n.number, err, strings.Join(n.log[max(0, len(n.log)-30):], "\n"))
	}
	n.cmd = nil
	n.mu.Unlock()
	close(ended)
}

// signal sends a signal that ends the node, and waits until it is gone.
func (n *node) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	n.mu.Lock()
	cmd, ended := n.cmd, n.ended
	n.asked = true
	n.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Signal(s)
	select {
	case <-ended:
	case <-time.After(60 * time.Second):
		_ = cmd.Process.Kill()
		t.Errorf("node %d does not end after %s:\n%s", n.number, s, n.tail())
	}
}

// kill ends the node as it would end without warning.
func (n *node) kill(t testing.TB) { n.signal(t, syscall.SIGKILL) }

// gone is closed when the node has ended.
func (n *node) gone() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.ended
}

func (n *node) killedAt() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.point
}

// endedByItself tells once how, "" if it did not.
func (n *node) endedByItself() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	fault := n.fault
	n.fault = ""
	return fault
}

func (n *node) tail() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.log[max(0, len(n.log)-30):], "\n")
}
