package bench

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestComparisonTable(t *testing.T) {
	t.Parallel()
	head, rows := ComparisonTable([]Comparison{{Case: "a", Alone: Latency{P50: 2, P99: 10}, Beside: Latency{P50: 3, P99: 25}}, {Case: "none"}})
	require.Len(t, head, 7)
	require.Equal(t, [][]string{{"a", "2.0", "10.0", "3.0", "25.0", "1.50", "2.50"}, {"none", "0.0", "0.0", "0.0", "0.0", "-", "-"}}, rows)
}
