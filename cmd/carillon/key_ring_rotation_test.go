package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAKeyRingIsRotated goes the way that docs/operations describes: at the end the
// old key opens nothing, and the server works with the new one alone.
func TestAKeyRingIsRotated(t *testing.T) {
	t.Parallel()
	i := install(t)
	i.must("tenant", "create", "acme")
	ring := func(name string) string { return filepath.Join(i.dir, name) }
	with := func(name string, args ...string) string {
		t.Helper()
		return i.must(append(args, "--key-ring-file", ring(name))...)
	}
	with("keyring", "key-ring", "rotate", "--prepare", "--out", ring("prepared"))
	require.Regexp(t, `primary +1\b`, with("prepared", "key-ring", "show"))
	require.Regexp(t, `prepared +0\b`, with("prepared", "key-ring", "show"))
	code, _, errs := i.command("key-ring", "rotate", "--prepare", "--key-ring-file", ring("prepared"))
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "prepared key already")
	with("prepared", "key-ring", "rotate", "--out", ring("rotated"))
	require.Regexp(t, `old +1\b`, with("rotated", "key-ring", "show"))
	code, _, errs = i.command("key-ring", "prune", "--key-ring-file", ring("rotated"), "--out", ring("pruned"))
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "1 tenants' keys are still sealed with the old key")
	require.NoFileExists(t, ring("pruned"))
	code, out, _ := i.command("doctor", "--key-ring-file", ring("rotated"))
	require.Equal(t, exitWarnings, code)
	require.Contains(t, out, "WARNING (key_ring): The keys of 1 tenants")
	code, _, errs = i.command("key-ring", "rotate", "--key-ring-file", ring("prepared"), "--out", ring("rotated"))
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "never overwritten")

	s := i.serve("CARILLON_KEY_RING_FILE=" + ring("rotated"))
	require.Regexp(t, `^job_\w+: the keys of 1 tenants`, with("rotated", "key-ring", "reseal"))
	require.Eventually(t, func() bool {
		return regexp.MustCompile(`old +0\b`).MatchString(with("rotated", "key-ring", "show"))
	}, waitLimit, 50*time.Millisecond)
	require.Zero(t, s.stop())
	with("rotated", "key-ring", "prune", "--out", ring("pruned"))
	require.Equal(t, "The key ring has no old key.", with("pruned", "key-ring", "prune"))
	info, err := os.Stat(ring("pruned"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	text, err := os.ReadFile(ring("pruned"))
	require.NoError(t, err)

	s = i.serve("CARILLON_KEY_RING_FILE=" + ring("pruned"))
	require.NotEmpty(t, with("pruned", "key", "create", "--tenant", "acme", "--scopes", "send"))
	require.Zero(t, s.stop())
	shown := i.must("key-ring", "show")
	require.Contains(t, shown, "missing", "the first key ring lacks what is needed now")
	code, _, errs = i.command("serve")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "do not open with this key ring")
	require.NotContains(t, shown+errs, strings.TrimSpace(string(text)))
}
