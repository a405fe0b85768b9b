package delivery

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

// TestWhatTheStoreHasSaidIsNotLoggedAgain, and everything else is.
func TestWhatTheStoreHasSaidIsNotLoggedAgain(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := slog.New(outageLog{slog.NewTextHandler(&b, nil)})
	away := fmt.Errorf("claim: %w", problem.New(problem.Unavailable, "The database cannot be reached."))
	log.Error("one", "lane", 1, "error", away)
	log.With("x", 1).Error("two", "error", away)
	log.WithGroup("g").Error("three", "error", away, "rows", 3)
	require.Empty(t, b.String())
	log.Error("four", "error", errors.New("other"), "reason", "Unavailable")
	log.With("x", 1).Info("five")
	require.Contains(t, b.String(), "four")
	require.Contains(t, b.String(), "five")
}
