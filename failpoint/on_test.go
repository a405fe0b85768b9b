//go:build failpoints

package failpoint_test

import (
	"bytes"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/failpoint"
)

// The tests of this build share what is armed, so they do not run in parallel.

func TestArmSaysWhatIsWrong(t *testing.T) {
	for spec, want := range map[string]string{
		"send.begin":            "<name>=<action>",
		"send.nowhere=kill":     "send.begin",
		"send.begin=stop":       `"stop" is not an action`,
		"send.begin=kill@0":     "from 1",
		"send.begin=kill@x":     "from 1",
		"send.begin=delay":      "is not a time",
		"send.begin=delay:soon": "is not a time",
		"send_timeout=kill":     "is not a time",
		"send_timeout=-1s":      "is not a time",
	} {
		require.ErrorContains(t, failpoint.Arm(spec), want, spec)
	}
}

func TestPanicAtTheThirdHitAlone(t *testing.T) {
	require.NoError(t, failpoint.Arm("send.begin=panic@3;finish.committed=delay:1ms"))
	failpoint.Hit("send.begin")
	failpoint.Hit("send.answered")
	failpoint.Hit("send.begin")
	require.PanicsWithValue(t, "fail point send.begin", func() { failpoint.Hit("send.begin") })
	failpoint.Hit("send.begin")
	began := time.Now()
	failpoint.Hit("finish.committed")
	failpoint.Hit("finish.committed")
	require.GreaterOrEqual(t, time.Since(began), 2*time.Millisecond)
}

func TestDuration(t *testing.T) {
	require.NoError(t, failpoint.Arm("send_timeout=3s"))
	require.Equal(t, 3*time.Second, failpoint.Duration("send_timeout", time.Minute))
	require.Equal(t, time.Minute, failpoint.Duration("marker_after", time.Minute))
}

const victim = "FAILPOINT_TEST_VICTIM"

func TestKill(t *testing.T) {
	if os.Getenv(victim) != "" {
		require.NoError(t, failpoint.Arm("accept.committed=kill@2"))
		failpoint.Hit("accept.committed")
		println("alive")
		failpoint.Hit("accept.committed")
		println("not dead")
	}
	self := exec.Command(os.Args[0], "-test.run=^TestKill$")
	self.Env = append(os.Environ(), victim+"=1")
	var said bytes.Buffer
	self.Stderr = &said
	require.Error(t, self.Run())
	status, ok := self.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, ok)
	require.Equal(t, syscall.SIGKILL, status.Signal())
	require.Contains(t, said.String(), "alive")
	require.Contains(t, said.String(), failpoint.Killed+"accept.committed")
	require.NotContains(t, said.String(), "not dead")
}
