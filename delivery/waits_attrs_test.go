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

// TestALogLineOfAWaitFitsItsCause: only what is throttled waits until somebody lets it go on.
func TestALogLineOfAWaitFitsItsCause(t *testing.T) {
	t.Parallel()
	said := map[string]WaitCause{}
	for _, c := range append(WaitCauses(), 99) {
		began, ended := c.lines()
		for _, line := range []string{began, ended} {
			require.Zero(t, said[line], line)
			said[line] = c
		}
	}
	require.Equal(t, WaitThrottled, said["a scope waits"])
	require.Equal(t, WaitFailing, said["a scope fails"])
}
