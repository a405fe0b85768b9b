package delivery

import (
	"context"

	"github.com/carillonhq/carillon/jobs"
)

// BringForwardStore makes due what waits for a scope that works again.
type BringForwardStore interface {
	// BringForwardStep takes the steps of jobs.BringForward.
	BringForwardStep(ctx context.Context, j jobs.Job) (jobs.Progress, error)
}

// bringer takes the steps of jobs that make due what waits.
type bringer struct {
	store BringForwardStore
	hints *hints
}

func (b *bringer) step(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	p, err := b.store.BringForwardStep(ctx, j)
	if err == nil && p.Done > 0 {
		b.hints.due()
	}
	return p, err
}
