package e2e_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/pgtest"
)

// build compiles the program once for all tests of this package. It is built as
// it is released, without the race detector: its own tests run under that.
var build = sync.OnceValues(func() (string, error) { return compile() })

// buildNext compiles what stands for the next version: it has one more migration.
var buildNext = sync.OnceValues(func() (string, error) { return compile("-tags", "nextschema") })

func compile(flags ...string) (string, error) {
	dir, err := os.MkdirTemp("", "carillon-e2e-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "carillon")
	args := append([]string{"build", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, "github.com/carillonhq/carillon/cmd/carillon")...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS="+withoutRace(os.Getenv("GOFLAGS")))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
}

// TestMain runs what depends on the database on both.
func TestMain(m *testing.M) {
	os.Exit(pgtest.OnBoth(m, "Browser", "DemoPage", "Outage", "Table", "Imports", "Libraries", "OnlyTheCommand", "NoInit", "TheImage", "RaceDetector"))
}

func withoutRace(flags string) string {
	var keep []string
	for f := range strings.FieldsSeq(flags) {
		if f != "-race" {
			keep = append(keep, f)
		}
	}
	return strings.Join(keep, " ")
}

// binary is an installation of the real program: a database, a key ring, and a
// server that may be started, killed and started again.
type binary struct {
	t        *testing.T
	path     string
	dir      string
	database string // URL
	env      []string
	cmd      *exec.Cmd
	url      string
	log      *lockedLog
}

type lockedLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *lockedLog) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lines = append(l.lines, line); len(l.lines) > 500 {
		l.lines = l.lines[100:]
	}
}

func (l *lockedLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-30):], "\n")
}

// install prepares an installation that talks to a simulator.
func install(t *testing.T, sim *simulator.Simulator) *binary {
	t.Helper()
	return installOn(t, sim, pgtest.URL(t, func(url string) error {
		_, err := db.Migrations(context.Background(), url, true)
		return err
	}))
}

// installOn prepares an installation on a database, which the first command migrates.
func installOn(t *testing.T, sim *simulator.Simulator, database string) *binary {
	t.Helper()
	path, err := build()
	require.NoError(t, err)
	b := &binary{t: t, path: path, dir: t.TempDir(), database: database, log: &lockedLog{}}
	ring := filepath.Join(b.dir, "keyring")
	ca := filepath.Join(b.dir, "ca.pem")
	require.NoError(t, os.WriteFile(ca, sim.APNs().CAPEM, 0o600))
	loopback := "127.0.0.0/8"
	b.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + b.dir, "GOMAXPROCS=" + fmt.Sprint(runtime.GOMAXPROCS(0)),
		"CARILLON_KEY_RING_FILE=" + ring, "CARILLON_DATABASE_URL=" + b.database,
		"CARILLON_LISTEN=127.0.0.1:0", "CARILLON_ADMIN_LISTEN=off", "CARILLON_LOG_FORMAT=json", "CARILLON_LOG_LEVEL=info",
		"CARILLON_CHANNELS_FCM_ENDPOINT=" + sim.FCM().URL, "CARILLON_CHANNELS_FCM_TOKEN_URIS=" + sim.FCM().TokenURI,
		"CARILLON_CHANNELS_APNS_PRODUCTION_URL=" + sim.APNs().URL, "CARILLON_CHANNELS_APNS_SANDBOX_URL=" + sim.APNs().SandboxURL,
		"CARILLON_CHANNELS_APNS_CA_FILE=" + ca,
		"CARILLON_CHANNELS_WEBPUSH_ANY_HOST=true", "CARILLON_CHANNELS_WEBPUSH_ALLOW=" + loopback,
		"CARILLON_CHANNELS_WEBPUSH_ALLOW_HTTP=true", "CARILLON_CHANNELS_WEBPUSH_ANY_PORT=true",
		"CARILLON_CHANNELS_WEBHOOK_ALLOW=" + loopback, "CARILLON_CHANNELS_WEBHOOK_ALLOW_HTTP=true", "CARILLON_CHANNELS_WEBHOOK_ANY_PORT=true",
	}
	b.run("key-ring", "init", "--out", ring)
	t.Cleanup(b.kill)
	return b
}

// run runs a command of the program and returns what it printed.
func (b *binary) run(args ...string) string {
	b.t.Helper()
	cmd := exec.Command(b.path, args...)
	cmd.Env = b.env
	out, err := cmd.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		b.t.Fatalf("carillon %s: %v\n%s", strings.Join(args, " "), err, failed.Stderr)
	}
	require.NoError(b.t, err)
	return strings.TrimSpace(string(out))
}

// start starts the server and waits until it says where it listens.
func (b *binary) start() {
	b.t.Helper()
	b.cmd = exec.Command(b.path, "serve")
	b.cmd.Env = b.env
	stderr, err := b.cmd.StderrPipe()
	require.NoError(b.t, err)
	require.NoError(b.t, b.cmd.Start())
	found := make(chan string, 1)
	go func() {
		defer close(found)
		s := bufio.NewScanner(stderr)
		for s.Scan() {
			b.log.add(s.Text())
			var line struct{ Msg, URL string }
			if json.Unmarshal(s.Bytes(), &line) == nil && line.Msg == "carillon serves" {
				found <- line.URL
			}
		}
	}()
	select {
	case url, ok := <-found:
		if !ok {
			b.t.Fatalf("the server ended before it served:\n%s", b.log.tail())
		}
		b.url = url
	case <-time.After(60 * time.Second):
		b.t.Fatalf("the server does not start:\n%s", b.log.tail())
	}
}

// kill ends the server as a power cut would end the process.
func (b *binary) kill() {
	if b.cmd == nil || b.cmd.Process == nil {
		return
	}
	_ = b.cmd.Process.Signal(syscall.SIGKILL)
	_ = b.cmd.Wait()
	b.cmd = nil
}

// call makes an API call; out is nil or what to decode a 2xx into.
func call(ctx context.Context, method, url, key string, in io.Reader, out any) (int, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, in)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err // a cut answer is no answer
	}
	if res.StatusCode >= 300 {
		return res.StatusCode, fmt.Errorf("%s %s: %s: %s", method, url, res.Status, b)
	}
	if out != nil {
		return res.StatusCode, json.Unmarshal(b, out)
	}
	return res.StatusCode, nil
}
