package queue

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
)

// TestAFinishAfterTheEndIsToldSo: nobody else waits for an outcome, so its caller
// has to hear that it was not written.
func TestAFinishAfterTheEndIsToldSo(t *testing.T) {
	t.Parallel()
	d := openDB(t, filepath.Join(t.TempDir(), "c.db"))
	require.NoError(t, d.Close())
	done := make(chan delivery.FinishResult, 1)
	(&finishes{db: d}).Finish(delivery.Finish{}, func(r delivery.FinishResult) { done <- r })
	require.Error(t, (<-done).Err)
}
