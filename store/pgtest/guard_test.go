package pgtest_test

import (
	"bufio"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/store/pgtest"
)

// again says to the test's own program, started by a test, that it is that one.
const again = "CARILLON_PGTEST_AGAIN"

// self is this test program, to run one test.
func self(t *testing.T, name string, env ...string) *osexec.Cmd {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	cmd := osexec.CommandContext(t.Context(), program, "-test.run", "^"+name+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// TestNothingOutlivesTheProcess: a test process that is killed leaves neither
// servers nor files.
func TestNothingOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	temporary, err := os.MkdirTemp("", "carillon-") //nolint:usetesting // t.TempDir is closed to the server's user
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(temporary)) })
	require.NoError(t, os.Chmod(temporary, 0o755))
	cmd := self(t, "TestIsKilled", again+"=1", "TMPDIR="+temporary, "CARILLON_TEST_POSTGRES_URL=")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var servers []string
	for lines := bufio.NewScanner(out); len(servers) < 2 && lines.Scan(); {
		if _, server, ok := strings.Cut(lines.Text(), "server: "); ok {
			servers = append(servers, server)
		}
	}
	require.Len(t, servers, 2)
	for _, server := range servers {
		require.NoError(t, connect(t, server).Ping(t.Context()))
	}
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool {
		left, err := filepath.Glob(filepath.Join(temporary, "*"))
		return err == nil && len(left) == 0
	}, 30*time.Second, 20*time.Millisecond)
	for _, server := range servers {
		_, err := pgx.Connect(t.Context(), server)
		require.Error(t, err)
	}
}

func TestIsKilled(t *testing.T) {
	if os.Getenv(again) == "" {
		t.Skip("runs only in TestNothingOutlivesTheProcess")
	}
	fmt.Println("server: " + pgtest.Empty(t))
	fmt.Println("server: " + pgtest.Start(t, pgtest.Options{}).URL("carillon"))
	select {}
}

// TestGivenServer: a server that runs already is used, and what an earlier
// process has left on it is dropped.
func TestGivenServer(t *testing.T) {
	t.Parallel()
	s := pgtest.Start(t, pgtest.Options{})
	for _, database := range []string{"carillon_test_1700000000_old_1", "carillon_test_9900000000_new_1", "carillon_testing"} {
		require.NoError(t, s.Exec("postgres", "CREATE DATABASE "+database+" OWNER carillon"))
	}
	cmd := self(t, "TestDatabasesAreTheirTestsOwn|TestTestsAreNoSuperusers", "CARILLON_TEST_POSTGRES_URL="+s.URL("postgres"), "PATH=/nowhere", again+"=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	require.Contains(t, string(out), "--- PASS: TestDatabasesAreTheirTestsOwn")

	names, err := pgtest.Query[string](s, "postgres", "SELECT datname FROM pg_database WHERE datname LIKE 'carillon\\_test%'")
	require.NoError(t, err)
	require.NotContains(t, names, "carillon_test_1700000000_old_1")
	require.Subset(t, names, []string{"carillon_test_9900000000_new_1", "carillon_testing"})
	require.Len(t, names, 3, "what is left is the template")
}

// TestSecretsOfAGivenServer: its password is in no error.
func TestSecretsOfAGivenServer(t *testing.T) {
	t.Parallel()
	for _, given := range []string{"postgres://me:hunter2@127.0.0.1:1/postgres?sslmode=disable", "postgres://me:hunter2@127.0.0.1:port"} {
		out, err := self(t, "TestTestsAreNoSuperusers", "CARILLON_TEST_POSTGRES_URL="+given, again+"=1").CombinedOutput()
		require.Error(t, err)
		require.Contains(t, string(out), "CARILLON_TEST_POSTGRES_URL")
		require.NotContains(t, string(out), "hunter2")
	}
}
