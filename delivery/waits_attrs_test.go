package delivery

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
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

// TestTenantsShareTheNotesOfWaits: whoever has many endpoints that fail keeps no other
// tenant's trouble from being told.
func TestTenantsShareTheNotesOfWaits(t *testing.T) {
	t.Parallel()
	var x waits
	const hog, other = 1, 2
	n := 0
	for id := range ids.ID(10 * mostNotes) {
		if x.begin(hog, flowKey{id: id + 1}) {
			n++
		}
	}
	require.Equal(t, mostNotes, n, "who is alone has all")
	k := flowKey{id: 10_000}
	require.True(t, x.begin(other, k))
	require.False(t, x.begin(other, k), "it is being written")
	for tenant := range ids.ID(10 * mostNotes) {
		x.begin(100+tenant, flowKey{id: 20_000 + tenant})
	}
	require.Len(t, x.busy, 4*mostNotes, "but for so many")
	x.end(k)
	require.True(t, x.begin(other, k))
	for k := range x.busy {
		x.end(k)
	}
	require.Empty(t, x.of)
}
