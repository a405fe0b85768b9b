package e2e_test

import (
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// TestASecondSignalEndsAtOnce: the first one lets a slow send go on for the grace, the
// second one waits for nothing, and the next start delivers.
func TestASecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	sim, err := simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sim.Close() })
	b := install(t, sim)
	b.env = append(b.env, "CARILLON_SHUTDOWN_GRACE=10m", "CARILLON_CHANNELS_WEBHOOK_TIMEOUT=2m")
	b.start()
	a := newTenant(t, b)
	reached, release := make(chan struct{}, 10), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-release
	}))
	t.Cleanup(receiver.Close)
	t.Cleanup(func() { close(release) })
	a.do("POST", "/v1/endpoints", map[string]any{"url": receiver.URL, "event_types": []string{"*"}}, nil)
	a.do("POST", "/v1/notifications", map[string]any{"type": "order.shipped", "channels": []string{"webhook"}}, nil)
	<-reached

	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	eventually(t, func() bool { return strings.Contains(b.log.tail(), "carillon stops") }, "it stops in order")
	require.NoError(t, b.cmd.Process.Signal(syscall.SIGTERM))
	err = b.cmd.Wait()
	b.cmd = nil
	var ended *exec.ExitError
	require.ErrorAs(t, err, &ended)
	require.Equal(t, 143, ended.ExitCode())
	b.start()
	<-reached
}
