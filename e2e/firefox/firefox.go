// Package firefox drives a real, headless Firefox over WebDriver BiDi, for
// tests of web push end to end. It needs no other driver and no display.
//
// The browser's push service is the one that Options names, so pushes never
// leave the machine. Notifications are allowed without a question.
package firefox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Times that a browser may take, generous because a busy machine is slow.
const (
	startTimeout = 3 * time.Minute
	stopTimeout  = 10 * time.Second
)

// Options of Start.
type Options struct {
	Binary  string         // "": the one Find finds
	PushURL string         // the push service, such as ws://127.0.0.1:8090/
	Prefs   map[string]any // further preferences; they win over Start's own
}

// Browser is a running Firefox with one tab. Its methods are safe for
// concurrent use.
type Browser struct {
	cmd    *exec.Cmd
	dir    string // profile and home
	bidi   *bidi
	tab    string
	exited chan struct{}
	close  sync.Once
}

// ErrMissing says that no Firefox is installed.
var ErrMissing = errors.New("neither firefox-esr nor firefox is installed")

// Find looks for Firefox in PATH.
func Find() (string, error) {
	for _, name := range []string{"firefox-esr", "firefox"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrMissing
}

// Run starts a browser for a test and stops it at the test's end. Where Firefox
// is missing the test is skipped, or fails if CARILLON_REQUIRE names firefox.
func Run(t testing.TB, o Options) *Browser {
	t.Helper()
	if o.Binary == "" {
		binary, err := Find()
		if err != nil && strings.Contains(os.Getenv("CARILLON_REQUIRE"), "firefox") {
			t.Fatalf("firefox is required here: %v", err)
		}
		if err != nil {
			t.Skipf("FIREFOX IS MISSING, SO THE BROWSER TEST DID NOT RUN: %v", err)
		}
		o.Binary = binary
	}
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	b, err := Start(ctx, o)
	if err != nil {
		t.Fatalf("start firefox: %v", err)
	}
	t.Cleanup(b.Close)
	return b
}

// Start starts a browser; ctx bounds only the start. Close it.
func Start(ctx context.Context, o Options) (*Browser, error) {
	if o.Binary == "" {
		binary, err := Find()
		if err != nil {
			return nil, err
		}
		o.Binary = binary
	}
	dir, err := os.MkdirTemp("", "carillon-firefox-")
	if err != nil {
		return nil, err
	}
	b := &Browser{dir: dir, exited: make(chan struct{})}
	if err := b.start(ctx, o); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

func (b *Browser) start(ctx context.Context, o Options) error {
	if err := os.WriteFile(filepath.Join(b.dir, "user.js"), userJS(o), 0o600); err != nil {
		return err
	}
	cmd := exec.Command(o.Binary, "--headless", "--no-remote", "--new-instance", "--profile", b.dir,
		"--remote-debugging-port", "0", "--remote-allow-system-access")
	// Away from the real home and desktop.
	cmd.Env = append(os.Environ(), "HOME="+b.dir, "XDG_RUNTIME_DIR="+b.dir, "MOZ_CRASHREPORTER_DISABLE=1")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.cmd = cmd
	address := make(chan string, 1)
	go func() {
		defer close(b.exited)
		watch(stderr, address)
		_ = cmd.Wait() // how a browser that is being stopped exits does not matter
	}()
	select {
	case a, ok := <-address:
		if !ok {
			return errors.New("it exited at once")
		}
		return b.connect(ctx, a)
	case <-ctx.Done():
		return fmt.Errorf("no WebDriver BiDi yet: %w", ctx.Err())
	}
}

// watch reads what the browser says until it ends, and passes on the address
// where it listens.
func watch(stderr io.Reader, address chan<- string) {
	defer close(address)
	const announce = "WebDriver BiDi listening on "
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if _, a, ok := strings.Cut(lines.Text(), announce); ok {
			select {
			case address <- strings.TrimSpace(a):
			default: // said before
			}
		}
	}
	_, _ = io.Copy(io.Discard, stderr) // after an overlong line: the pipe must not fill
}

func (b *Browser) connect(ctx context.Context, address string) (err error) {
	if b.bidi, err = dialBidi(ctx, address); err != nil {
		return err
	}
	tabs, err := b.contexts(ctx, map[string]any{})
	if err != nil {
		return err
	}
	if len(tabs) == 0 {
		return errors.New("the browser has no tab")
	}
	b.tab = tabs[0].Context
	return nil
}

// userJS writes the preferences. Each has its reason.
func userJS(o Options) []byte {
	prefs := map[string]any{
		"dom.push.serverURL":                       o.PushURL,
		"dom.push.testing.allowInsecureServerURL":  true,  // else only wss:
		"dom.push.connection.enabled":              true,  // remote control switches it off unless the profile says so
		"dom.push.retryBaseInterval":               200,   // milliseconds, to be back soon after a lost connection
		"permissions.default.desktop-notification": 1,     // allowed; a prompt would wait for ever
		"alerts.useSystemBackend":                  false, // no desktop: Firefox draws them itself, headless too
		// With more of these on screen than this, the BiDi connection is dropped.
		"dom.webnotifications.requireinteraction.count": 50,
	}
	maps.Copy(prefs, o.Prefs)
	var out strings.Builder
	for _, name := range slices.Sorted(maps.Keys(prefs)) {
		value, err := json.Marshal(prefs[name])
		if err != nil {
			panic(fmt.Sprintf("preference %s: %v", name, err)) // a mistake in the test
		}
		fmt.Fprintf(&out, "user_pref(%q, %s);\n", name, value)
	}
	return []byte(out.String())
}

// Close ends the browser and removes its profile. It may be called again.
func (b *Browser) Close() {
	b.close.Do(func() {
		if b.bidi != nil {
			ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
			_ = b.bidi.call(ctx, "browser.close", map[string]any{}, nil)
			cancel()
			b.bidi.close()
		}
		if b.cmd != nil {
			if b.bidi == nil {
				_ = b.cmd.Process.Kill()
			}
			select {
			case <-b.exited:
			case <-time.After(stopTimeout):
				_ = b.cmd.Process.Kill()
				select { // its children hold the pipe a little longer
				case <-b.exited:
				case <-time.After(stopTimeout):
				}
			}
		}
		_ = os.RemoveAll(b.dir)
	})
}
