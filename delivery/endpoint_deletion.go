package delivery

import (
	"context"

	"github.com/carillonhq/carillon/jobs"
)

// EndpointDeletionStore drops what waits for endpoints that were deleted.
type EndpointDeletionStore interface {
	// DropForDeletedEndpointsStep takes the steps of jobs.DropForDeletedEndpoints: a
	// walk over what a tenant has unfinished, which is made once more after EraseGrace,
	// for what was being sent or accepted when the endpoint was deleted.
	DropForDeletedEndpointsStep(ctx context.Context, j jobs.Job) (jobs.Progress, error)
}
