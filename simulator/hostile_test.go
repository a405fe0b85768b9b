package simulator_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// The receivers hurt as they should: none of the kinds answers in time, but for the one
// that refuses, and none is left when they stop.
func TestHostileReceivers(t *testing.T) {
	t.Parallel()
	h, err := simulator.StartHostile()
	require.NoError(t, err)
	const kinds = 6
	client := &http.Client{Timeout: 200 * time.Millisecond}
	for i := range kinds {
		url := h.URL(i)
		began := time.Now()
		res, err := client.Get(url)
		if err == nil {
			require.Contains(t, []int{101, 200}, res.StatusCode, url)
			_ = res.Body.Close()
			continue
		}
		if i < kinds-1 {
			require.GreaterOrEqual(t, time.Since(began), client.Timeout, url)
		}
	}
	h.Stop()
}
