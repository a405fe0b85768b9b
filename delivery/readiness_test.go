package delivery_test

import (
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store"
)

// full is a database that takes no writes.
type full struct {
	*store.Store
	is atomic.Bool
}

func (f *full) TakesWrites() bool { return !f.is.Load() }

// TestADatabaseThatTakesNoWritesIsNotReady: from the first that fails, and though nothing
// waits to be written.
func TestADatabaseThatTakesNoWritesIsNotReady(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.close()
	f := &full{}
	k.wrap = func(s *store.Store) delivery.Store { f.Store = s; return f }
	k.open()
	require.NoError(t, k.engine.Ready())
	f.is.Store(true)
	require.ErrorContains(t, k.engine.Ready(), "takes no writes")
	f.is.Store(false)
	require.NoError(t, k.engine.Ready())
}
