package channels_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

// TestPurposesAreStored: by number, and said by name.
func TestPurposesAreStored(t *testing.T) {
	t.Parallel()
	for n, name := range map[channels.Purpose]string{1: "alert", 2: "voip", 3: "push_to_start", 4: "activity", 5: "widget"} {
		require.Equal(t, name, n.String())
		p, ok := channels.ParsePurpose(name)
		require.True(t, ok)
		require.Equal(t, n, p)
	}
	for _, bad := range []string{"", "Alert", "pushkit"} {
		_, ok := channels.ParsePurpose(bad)
		require.False(t, ok, bad)
	}
	require.Equal(t, "purpose(0)", channels.Purpose(0).String())
	require.Equal(t, "purpose(9)", channels.Purpose(9).String())
}
