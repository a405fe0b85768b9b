package delivery

import (
	"context"

	"github.com/carillonhq/carillon/jobs"
)

// KeyRingStore follows a rotation of the key ring.
type KeyRingStore interface {
	// ResealStep takes the steps of jobs.ResealKeys: a walk over the tenants, whose keys
	// it seals with the primary key of the key ring.
	ResealStep(ctx context.Context, j jobs.Job) (jobs.Progress, error)
}
