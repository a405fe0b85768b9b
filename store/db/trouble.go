package db

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"
)

const (
	// settled is how long after the last failure a success counts as the end of a trouble:
	// on a disk that is full, what is small may still find room between what does not.
	settled = 10 * time.Second
	// tryEvery is how often it is tried whether a trouble is over, and trySize how much is
	// written for it, which is more than the room that is left on a full disk by chance.
	tryEvery = time.Second
	trySize  = 64 << 10
)

// trouble is that the database takes no writes. It is logged once, and once that it is
// over.
type trouble struct {
	mu    sync.Mutex
	since time.Time // zero: there is none
	last  time.Time // of its failures
}

func (t *trouble) on() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.since.IsZero()
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

// seeTroubleEnd writes while there is trouble: a server that is not ready is sent nothing
// to write, and would not notice that there is room again.
func (n *nodes) seeTroubleEnd(ctx context.Context) {
	tick := time.NewTicker(tryEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !n.writer.TakesWrites() {
			_ = n.tryWrite(ctx) // the writer says what comes of it
		}
	}
}

// tryWrite takes room in the database, and gives it back in the same transaction. What
// is written does not get smaller by being compressed.
func (n *nodes) tryWrite(ctx context.Context) error {
	some := make([]byte, trySize/2)
	_, _ = rand.Read(some) // which never fails
	return n.writer.Change(ctx, func(t *Tx) error {
		if err := t.Exec("INSERT INTO installation (name,at,actor,detail) VALUES ('write_try',?,'',?) ON CONFLICT (name) DO UPDATE SET detail=excluded.detail",
			Millis(n.pools.Now()), hex.EncodeToString(some)); err != nil {
			return err
		}
		return t.Exec("DELETE FROM installation WHERE name='write_try'")
	})
}
