package doctor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNotesReachBackAWeek: one a day and the newest, however often they are made, and not
// from before a long silence.
func TestNotesReachBackAWeek(t *testing.T) {
	t.Parallel()
	var (
		text  string
		err   error
		start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		hour  = 0
		note  = func() []sizeNote {
			t.Helper()
			text, err = withNote(text, sizeNote{start.Add(time.Duration(hour) * time.Hour).UnixMilli(), int64(hour)})
			require.NoError(t, err)
			return notesIn(text)
		}
	)
	first := func(n []sizeNote) int { return int(n[0].Used) }
	require.Len(t, note(), 1)
	for hour = 1; hour < 24; hour++ {
		require.Equal(t, 0, first(note()))
		require.Len(t, notesIn(text), 2)
	}
	for ; hour < 24*40; hour++ {
		notes := note()
		require.LessOrEqual(t, len(notes), 10)
		require.LessOrEqual(t, hour-first(notes), 9*24, "about a week")
		if hour >= 7*24 {
			require.GreaterOrEqual(t, hour-first(notes), 7*24)
		}
	}
	hour += 24 * 20
	require.Len(t, note(), 2, "the last before the silence")
	text = "what nobody has written"
	require.Len(t, note(), 1, "begun anew")
}
