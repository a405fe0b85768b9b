package delivery

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// env is what all parts of an engine share: the clock, the log, and whether the
// engine still runs.
type env struct {
	log    *slog.Logger
	now    func() time.Time
	jitter func() float64 // 0 to 1
	ids    *ids.Generator
	who    func(tenant ids.ID) slog.Value // how the log names a tenant

	// running ends as soon as the engine stops; sending ends, with ErrStopping, when
	// the grace for what is being sent is over.
	running, sending context.Context
	stopRunning      context.CancelFunc
	stopSending      context.CancelCauseFunc
	background       sync.WaitGroup // loops, and what they start
	stopped          atomic.Bool    // set before running ends
}

// wait waits for a signal, or for d. false: the engine stops.
func (e *env) wait(s signal, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-e.running.Done():
		return false
	case <-s:
	case <-t.C:
	}
	return e.running.Err() == nil
}

// signal wakes a loop. One that is not waited for yet is kept, further ones are
// not. A nil signal wakes nobody.
type signal chan struct{}

func newSignal() signal { return make(signal, 1) }

func (s signal) raise() {
	select {
	case s <- struct{}{}:
	default:
	}
}
