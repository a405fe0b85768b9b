package delivery

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestALogLineOfAWaitSaysOnlyWhatIsKnown: year 1 is no end, and no origin is not all of them.
func TestALogLineOfAWaitSaysOnlyWhatIsKnown(t *testing.T) {
	t.Parallel()
	keys := func(w Wait) (names []string) {
		for _, a := range w.attrs(slog.StringValue("acme")) {
			names = append(names, a.Key)
		}
		return names
	}
	require.Equal(t, []string{"tenant", "credential", "channel", "cause", "since", "why"}, keys(Wait{}))
	require.Equal(t, []string{"tenant", "credential", "channel", "cause", "since", "why", "origin", "until"},
		keys(Wait{Origin: "https://push.example", Until: time.Unix(1, 0)}))
}
