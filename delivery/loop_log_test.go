package delivery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

// TestTheLogHasWhatIsNews: not what the store has said, nor, while the engine stops,
// what has ended because of that; and everything else.
func TestTheLogHasWhatIsNews(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	stopping := false
	log := slog.New(loopLog{slog.NewTextHandler(&b, nil), func() bool { return stopping }})
	away := fmt.Errorf("claim: %w", problem.New(problem.Unavailable, "The database cannot be reached."))
	canceled := fmt.Errorf("read a tenant: %w", context.Canceled)
	log.Error("one", "lane", 1, "error", away)
	log.With("x", 1).Error("two", "error", away)
	log.WithGroup("g").Error("three", "error", away, "rows", 3)
	require.Empty(t, b.String())
	log.Error("four", "error", errors.New("other"), "reason", "Unavailable")
	log.With("x", 1).Info("five")
	log.Warn("six", "error", canceled)
	for _, line := range []string{"four", "five", "six"} {
		require.Contains(t, b.String(), line)
	}
	stopping = true
	b.Reset()
	log.Warn("one", "error", canceled, "rows", 3)
	log.With("x", 1).Error("two", "error", canceled)
	require.Empty(t, b.String())
	log.Error("three", "error", errors.New("other"))
	log.Error("four", "error", context.DeadlineExceeded)
	log.Info("five")
	for _, line := range []string{"three", "four", "five"} {
		require.Contains(t, b.String(), line)
	}
}
