package main

import (
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheProgramHasOneSQLite: two would be two versions of one file format, and
// one in C would keep the binary from being static. The test's own program links
// all that the command links.
func TestTheProgramHasOneSQLite(t *testing.T) {
	t.Parallel()
	info, ok := debug.ReadBuildInfo()
	require.True(t, ok)
	var sqlite []string
	for _, m := range info.Deps {
		if strings.Contains(m.Path, "sqlite") {
			sqlite = append(sqlite, m.Path)
		}
	}
	slices.Sort(sqlite)
	require.Equal(t, []string{"modernc.org/sqlite"}, sqlite)
}
