package e2e_test

import (
	"bufio"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// demo is the demo command, as it says where it is.
type demo struct {
	t         testing.TB
	cmd       *exec.Cmd
	simulator string // URL
	page      string // URL
	api       tenant
	ended     chan error
}

// startDemo runs `carillon demo` until it invites to try it.
func startDemo(t testing.TB) *demo {
	t.Helper()
	path, err := build()
	require.NoError(t, err)
	d := &demo{t: t, cmd: exec.Command(path, "demo", "--listen", "127.0.0.1:0"), ended: make(chan error, 1)}
	d.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir(), "TMPDIR=" + t.TempDir()}
	d.cmd.Stderr = os.Stderr
	stdout, err := d.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, d.cmd.Start())
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			_ = d.cmd.Process.Kill()
			<-d.ended
		}
	})
	said := make(chan string, 1)
	go func() {
		var text strings.Builder
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			text.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "/metrics") { // the last line
				said <- text.String()
			}
		}
		d.ended <- d.cmd.Wait()
	}()
	select {
	case text := <-said:
		find := func(pattern string) string {
			m := regexp.MustCompile(pattern).FindStringSubmatch(text)
			require.NotNil(t, m, "%s in:\n%s", pattern, text)
			return m[1]
		}
		d.simulator = find(`(?m)^Simulator +(\S+)$`)
		d.page = find(`(?m)^ +A browser that gets notifications +(\S+)$`)
		d.api = tenant{t: t, url: find(`(?m)^Server +(\S+)$`), key: find(`Bearer (crl_\w[^"]+)"`)}
	case err := <-d.ended:
		d.ended <- err
		t.Fatalf("the demo ended: %v", err)
	case <-time.After(60 * time.Second):
		t.Fatal("the demo does not come to its end")
	}
	return d
}

// stop presses Ctrl-C.
func (d *demo) stop() {
	d.t.Helper()
	require.NoError(d.t, d.cmd.Process.Signal(os.Interrupt))
	require.NoError(d.t, <-d.ended)
	left, err := os.ReadDir(d.cmd.Env[2][len("TMPDIR="):])
	require.NoError(d.t, err)
	require.Empty(d.t, left, "it forgets everything")
}
