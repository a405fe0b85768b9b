package webhooks

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// Store keeps endpoints. Secrets are sealed at rest. What is absent, or another
// tenant's, is problem.NotFound. actor names who makes a change, for the audit
// row written with it.
type Store interface {
	CreateEndpoint(ctx context.Context, e Endpoint, actor string) error
	// UpdateEndpoint stores URL, description, event types, user, status and
	// reason, if UpdatedAt still is was; otherwise it is Conflict, since the
	// engine may have disabled the endpoint meanwhile. Pausing makes a hold in
	// the same transaction, activating ends it.
	UpdateEndpoint(ctx context.Context, e Endpoint, was time.Time, by Edit) error
	Endpoint(ctx context.Context, tenant, id ids.ID) (Endpoint, error)
	Endpoints(ctx context.Context, tenant ids.ID, after ids.ID, limit int) ([]Endpoint, error) // oldest first
	// DeleteEndpoint: its unfinished deliveries are dropped as gone.
	DeleteEndpoint(ctx context.Context, tenant, id ids.ID, actor string) error
}

// Edit is who changes an endpoint, and whether it is released: what it was told to wait
// for, such as by Retry-After, counts no more, and what waits is due.
type Edit struct {
	Actor   string
	Release bool
}
