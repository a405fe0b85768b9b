package main

import (
	"bufio"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSimulate runs the simulator as a command, and a server on what it writes.
func TestSimulate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "sim")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out, end := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"simulate", "--dir", dir, "--listen", "127.0.0.1:0", "--listen-apns", "127.0.0.1:0", "--listen-apns-sandbox", "127.0.0.1:0"},
			streams{in: strings.NewReader(""), out: end, err: io.Discard})
		_ = end.Close()
	}()
	said, at := "", ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said += lines.Text() + "\n"
		if rest, ok := strings.CutPrefix(lines.Text(), "What it does and what came"); ok {
			at = strings.TrimSpace(rest)
			break
		}
	}
	require.Contains(t, said, dir)
	status, page := get(t, at)
	require.Equal(t, 200, status)
	require.Contains(t, page, "<html")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "%s holds a private key, or stands beside one", e.Name())
	}

	i := &installation{t: t, dir: dir, environ: []string{"CARILLON_CONFIG=" + filepath.Join(dir, "carillon.yaml"),
		"CARILLON_KEY_RING_FILE=" + filepath.Join(dir, "ring"), "CARILLON_LISTEN=127.0.0.1:0", "CARILLON_ADMIN_LISTEN=127.0.0.1:0"}}
	i.must("key-ring", "init", "--out", filepath.Join(dir, "ring"))
	k := i.kit()
	k.phone("alice", "sim-503x2-alice")
	require.Regexp(t, `alice +sent +3 `, k.must("send", "--user", "alice", "--title", "Hello", "--wait", "20s"))
	_, page = get(t, at)
	require.Contains(t, page, "sim-503x2-alice")

	cancel()
	select {
	case code := <-ended:
		require.Zero(t, code)
	case <-time.After(waitLimit):
		t.Fatal("simulate does not end")
	}
}

func TestSimulateNeedsItsAddresses(t *testing.T) {
	t.Parallel()
	i := install(t)
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit) // it must not stay at another
	defer cancel()
	var errs strings.Builder
	code := run(ctx, []string{"simulate", "--listen", strings.TrimPrefix(i.sim.FCM().URL, "http://")}, streams{in: strings.NewReader(""), out: io.Discard, err: &errs})
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs.String(), "cannot listen")
}

// TestWhatListensIsToldWhereByOneName: --listen is a setting of the server, which every
// command takes; one that listens by itself must not pass it by.
func TestWhatListensIsToldWhereByOneName(t *testing.T) {
	t.Parallel()
	root := newRootCommand(&cli{})
	for _, name := range []string{"simulate", "demo"} {
		cmd, _, err := root.Find([]string{name})
		require.NoError(t, err)
		require.NotNil(t, cmd.LocalNonPersistentFlags().Lookup("listen"), name)
	}
}
