package webhooks

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

func TestCheckType(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "order.shipped", "order_2.v1", strings.Repeat("a", MaxType)} {
		require.NoError(t, CheckType(good))
		require.False(t, Reserved(good))
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "Order", "a-b", "a b", "é", "*", "a.*", strings.Repeat("a", MaxType+1)} {
		require.Error(t, CheckType(bad), bad)
		require.Error(t, CheckName(bad), bad)
	}
	for _, ours := range []string{"carillon", "carillon.delivery.dead"} {
		require.ErrorContains(t, CheckType(ours), "reserved")
		require.NoError(t, CheckName(ours))
		require.True(t, Reserved(ours))
	}
}

func TestCheckSubscription(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckSubscription(nil))
	require.NoError(t, CheckSubscription([]string{"*", "carillon.delivery.*", "order.shipped", "order.*"}))

	err := CheckSubscription([]string{"order.*", "Order", "order.*.x", "order.*", ".*", "*.*", "**"})
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, problem.Invalid, e.Code)
	var paths []string
	for _, f := range e.Fields {
		paths = append(paths, f.Path)
	}
	require.Equal(t, []string{"event_types[1]", "event_types[2]", "event_types[3]", "event_types[4]", "event_types[5]", "event_types[6]"}, paths)

	require.ErrorContains(t, CheckSubscription(make([]string, MaxSubscription+1)), "101 types")
}
