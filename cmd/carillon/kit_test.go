package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// waitLimit is for a busy machine; usually things take milliseconds.
const waitLimit = 30 * time.Second

// installation is all that a server needs: a simulator, the files that simulate
// writes for it, and a key ring. Commands run in its environment.
type installation struct {
	t       *testing.T
	sim     *simulator.Simulator
	dir     string
	environ []string
}

func install(t *testing.T) *installation {
	t.Helper()
	sim, err := simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	i := &installation{t: t, sim: sim, dir: t.TempDir()}
	require.NoError(t, writeSimulatorFiles(i.dir, sim.Access()))
	ring := filepath.Join(i.dir, "keyring")
	i.environ = []string{"CARILLON_CONFIG=" + filepath.Join(i.dir, "carillon.yaml"), "CARILLON_KEY_RING_FILE=" + ring,
		"CARILLON_LISTEN=127.0.0.1:0", "CARILLON_ADMIN_LISTEN=127.0.0.1:0"}
	i.must("key-ring", "init", "--out", ring)
	return i
}

// command runs the program beside whatever else runs.
func (i *installation) command(args ...string) (code int, out, errs string) {
	i.t.Helper()
	return command(i.t, i.environ, args...)
}

// must runs a command that works, and gives what it printed.
func (i *installation) must(args ...string) string {
	i.t.Helper()
	code, out, errs := i.command(args...)
	require.Zero(i.t, code, "carillon %s: %s", strings.Join(args, " "), errs)
	return strings.TrimSpace(out)
}

// serving is a server that runs, as the serve command.
type serving struct {
	url, admin string // admin is the URL of the metrics
	cancel     context.CancelFunc
	ended      chan struct{}
	code       int // valid when ended is closed

	mu  sync.Mutex
	log strings.Builder
}

// serve starts the serve command and waits until it serves. The test fails
// unless it ends well, by stop or with the test.
func (i *installation) serve(environ ...string) *serving {
	i.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	s := &serving{cancel: cancel, ended: make(chan struct{})}
	stderr, end := io.Pipe()
	up := make(chan struct{})
	go s.read(stderr, up)
	go func() {
		defer close(s.ended)
		s.code = run(ctx, []string{"serve"}, streams{in: strings.NewReader(""), out: io.Discard, err: end, environ: append(slices.Clip(i.environ), environ...)})
		_ = end.Close()
	}()
	select {
	case <-up:
	case <-s.ended:
		i.t.Fatalf("serve ended with %d:\n%s", s.code, s.said())
	case <-time.After(waitLimit):
		i.t.Fatalf("serve does not start:\n%s", s.said())
	}
	i.t.Cleanup(func() { require.Zero(i.t, s.stop(), "serve ended badly:\n%s", s.said()) })
	return s
}

// read keeps the log, and closes up when the server has told its addresses.
func (s *serving) read(stderr io.Reader, up chan<- struct{}) {
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		s.mu.Lock()
		s.log.WriteString(lines.Text() + "\n")
		s.mu.Unlock()
		var line struct{ Msg, URL string }
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue
		}
		switch line.Msg {
		case "carillon serves":
			s.url = line.URL
		case "metrics and profiles":
			s.admin = line.URL
			close(up)
		}
	}
}

// said is everything on stderr so far.
func (s *serving) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// stop ends the server as SIGTERM does and gives its exit code.
func (s *serving) stop() int {
	s.cancel()
	<-s.ended
	return s.code
}

// kit is a server with a tenant in it that has a credential for every channel.
type kit struct {
	*installation
	server   *serving
	operator string // key
	key      string // of the tenant acme, with every scope
	api      *client
	pushKey  string // VAPID public key
}

// startServer starts a server that is ready for notifications. Commands of the
// kit find it and have the tenant's key. Retries come fast.
func startServer(t *testing.T, environ ...string) *kit {
	t.Helper()
	return install(t).kit(environ...)
}

// kit starts the server and sets it up, with the files that simulate writes.
func (i *installation) kit(environ ...string) *kit {
	t := i.t
	t.Helper()
	k := &kit{installation: i}
	k.operator = k.must("key", "create", "--operator")
	k.must("tenant", "create", "acme")
	k.key = k.must("key", "create", "--tenant", "acme", "--scopes", "admin")
	k.server = k.serve(environ...)
	k.at(k.server)
	fast := map[string]any{"delays_ms": []int{10, 20}, "floor_ms": 0}
	k.do("PUT", "/v1/tenant", map[string]any{"settings": map[string]any{"retry": map[string]any{"fcm": fast, "apns": fast, "webpush": fast, "webhook": fast}}}, nil)
	for channel, file := range map[string]string{"fcm": "fcm.json", "apns": "apns.json"} {
		b, err := os.ReadFile(filepath.Join(k.dir, file))
		require.NoError(t, err)
		k.do("PUT", "/v1/apps/default/credentials/"+channel, json.RawMessage(b), nil)
	}
	var vapid struct{ Qualifier string }
	k.do("PUT", "/v1/apps/default/credentials/webpush", map[string]any{"generate": true, "subject": "mailto:ops@example.com"}, &vapid)
	k.pushKey = vapid.Qualifier
	return k
}

// at points the kit's calls and commands at a server.
func (k *kit) at(s *serving) {
	k.server = s
	k.environ = append(k.environ, "CARILLON_URL="+s.url, "CARILLON_KEY="+k.key)
	k.api = &client{base: s.url, key: k.key, http: &http.Client{Timeout: waitLimit}}
}

// do makes a call that works.
func (k *kit) do(method, path string, in, out any) {
	k.t.Helper()
	require.NoError(k.t, k.api.call(k.t.Context(), method, path, in, out), "%s %s", method, path)
}

// phone registers an FCM device and gives its id.
func (k *kit) phone(user, token string) string {
	k.t.Helper()
	var d struct{ ID string }
	k.do("PUT", "/v1/devices", map[string]any{"user": user, "channel": "fcm", "token": token}, &d)
	return d.ID
}

// deliveries are all of the tenant's.
func (k *kit) deliveries() []deliveryAnswer {
	k.t.Helper()
	list, err := listAll[deliveryAnswer](k.t.Context(), k.api, "/v1/deliveries")
	require.NoError(k.t, err)
	return list
}

// eventually looks again until ok.
func eventually(t *testing.T, ok func() bool, what string, args ...any) {
	t.Helper()
	require.Eventually(t, ok, waitLimit, 5*time.Millisecond, "%s", fmt.Sprintf(what, args...))
}

// get is the body of a GET without a key.
func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	res, err := http.Get(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	var b bytes.Buffer
	_, err = b.ReadFrom(res.Body)
	require.NoError(t, err)
	return res.StatusCode, b.String()
}
