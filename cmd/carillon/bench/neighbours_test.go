package bench

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestComparisonTable(t *testing.T) {
	t.Parallel()
	head, rows := ComparisonTable([]Comparison{{Case: "a", Alone: Latency{P50: 2, P99: 10}, Beside: Latency{P50: 3, P99: 25}}, {Case: "none"}})
	require.Len(t, head, 7)
	require.Equal(t, [][]string{{"a", "2.0", "10.0", "3.0", "25.0", "1.50", "2.50"}, {"none", "0.0", "0.0", "0.0", "0.0", "-", "-"}}, rows)
}

// The receivers hurt as they should: none of the kinds answers in time, but for the one
// that refuses, and none is left when they stop.
func TestHostileReceivers(t *testing.T) {
	t.Parallel()
	h, err := startHostile()
	require.NoError(t, err)
	require.Len(t, h.urls, 6)
	client := &http.Client{Timeout: 200 * time.Millisecond}
	for i, url := range h.urls {
		began := time.Now()
		res, err := client.Get(url)
		if err == nil {
			require.Contains(t, []int{101, 200}, res.StatusCode, url)
			_ = res.Body.Close()
			continue
		}
		if i < len(h.urls)-1 {
			require.GreaterOrEqual(t, time.Since(began), client.Timeout, url)
		}
	}
	h.stop()
}
