package delivery

import (
	"context"
	"log/slog"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// slowPause is a store whose first answer takes until it is let go.
type slowPause struct {
	PauseStore
	paused  atomic.Bool
	asked   atomic.Int64
	read    chan struct{} // closed once the first has been read
	release chan struct{}
}

func (s *slowPause) SendingPaused(context.Context) (p Pause, err error) {
	if s.paused.Load() {
		p = Pause{Since: at, Reason: "by hand"}
	}
	if s.asked.Add(1) == 1 {
		close(s.read)
		<-s.release
	}
	return p, nil
}

func (s *slowPause) PauseSending(context.Context, string, string) error {
	s.paused.Store(true)
	return nil
}

// TestWhatWasReadBeforeAPauseDoesNotEndIt: a look that began before it and ends after it
// tells of the time before.
func TestWhatWasReadBeforeAPauseDoesNotEndIt(t *testing.T) {
	t.Parallel()
	store := &slowPause{read: make(chan struct{}), release: make(chan struct{})}
	s := &pauseSwitch{env: &env{log: slog.New(slog.DiscardHandler), now: time.Now}, store: store, hints: &hints{claim: newSignal()}}
	looked, paused := make(chan error, 1), make(chan error, 1)
	go func() { looked <- s.read(t.Context()) }()
	<-store.read
	go func() { _, err := s.set(t.Context(), "by hand", "bob"); paused <- err }()
	for !store.paused.Load() {
		runtime.Gosched()
	}
	for range 1000 { // time enough for the second look, where nothing keeps it
		runtime.Gosched()
	}
	close(store.release)
	require.NoError(t, <-looked)
	require.NoError(t, <-paused)
	require.True(t, s.current().On())
}
