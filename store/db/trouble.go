package db

import (
	"log/slog"
	"sync"
	"time"
)

// settled is how long after the last failure a success counts as the end of a trouble:
// on a disk that is full, what is small may still find room between what does not.
const settled = 10 * time.Second

// trouble logs once that the database takes no writes, and once that it is over.
type trouble struct {
	mu    sync.Mutex
	since time.Time // zero: there is none
	last  time.Time // of its failures
}

// met notes a failure.
func (t *trouble) met(log *slog.Logger, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = time.Now()
	if t.since.IsZero() {
		t.since = t.last
		log.Warn("the database takes no writes", "error", err)
	}
}

// over notes a success.
func (t *trouble) over(log *slog.Logger) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.since.IsZero() || time.Since(t.last) < settled {
		return
	}
	log.Info("the database takes writes again", "after", t.last.Sub(t.since).Round(time.Second).String())
	t.since = time.Time{}
}
