package delivery

import (
	"context"
	"sync/atomic"
	"time"
)

// BacklogStore counts what is unfinished.
type BacklogStore interface {
	// Unfinished counts rows that are not final, up to limit.
	Unfinished(ctx context.Context, limit int) (int, error)
}

// backlog is about how many deliveries are unfinished: counted along the way, which
// drifts and does not see what other nodes add and take, and again now and then.
type backlog struct {
	*env
	store BacklogStore
	most  int // before accepts are refused
	every time.Duration
	n     atomic.Int64
}

func (b *backlog) add(n int) { b.n.Add(int64(n)) }

// room is how many more there may be; it may be negative.
func (b *backlog) room() int { return b.most - int(b.n.Load()) }

func (b *backlog) count(ctx context.Context, limit int) error {
	n, err := b.store.Unfinished(ctx, limit)
	if err == nil {
		b.n.Store(int64(n))
	}
	return err
}

func (b *backlog) run() {
	for b.wait(nil, b.every) {
		_ = b.count(b.running, b.most+1) // the next round tries again
	}
}
