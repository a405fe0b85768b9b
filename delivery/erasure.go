package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/text"
)

// Erasure is the receipt of the erasure of a user. It does not name the user.
type Erasure struct {
	ID, Tenant ids.ID
	// Subject is a keyed hash, in hexadecimal, of the tenant's own id of the user.
	// The key is derived from the tenant's keys, so it can neither be reversed nor
	// compared by whoever has only the receipt, and the same user has the same one.
	Subject     string
	Job         ids.ID // that does it
	Actor       string
	Origin      ErasureOrigin
	RequestedAt time.Time
	FinishedAt  time.Time // zero: under way
	// Rows counts the rows that were removed or changed, by table. A row that is
	// changed in two ways counts twice.
	Rows map[string]int
}

// ErasureOrigin says why a user is erased. The numbers are stored.
type ErasureOrigin uint8

// The origins.
const (
	ErasureAsked    ErasureOrigin = 1 // by a call
	ErasureRepeated ErasureOrigin = 2 // from the erasure log, after a restore
)

func (o ErasureOrigin) String() string {
	if o == ErasureRepeated {
		return "log"
	}
	return "request"
}

// EraseGrace is how long an erasure, and the deletion of a tenant or an app, look for
// what was on its way when they began: a request that had read the user before may
// write until then.
const EraseGrace = 2 * time.Minute

// ErasureStore erases users.
type ErasureStore interface {
	// EraseUser takes a user out of use at once: the user, devices, bound endpoints
	// and unfinished deliveries. A job removes what remains. A user who is not known
	// may be named in what is scheduled, so it is looked for all the same. It also
	// returns the internal id of the user, 0 for one who is not known.
	EraseUser(ctx context.Context, tenant ids.ID, user, actor string) (Erasure, ids.ID, error)
	// EraseStep takes the steps of jobs.EraseUser, DeleteTenantStep those of
	// jobs.DeleteTenant, and DeleteAppStep those of jobs.DeleteApp.
	EraseStep(ctx context.Context, j jobs.Job) (jobs.Progress, error)
	DeleteTenantStep(ctx context.Context, j jobs.Job) (jobs.Progress, error)
	DeleteAppStep(ctx context.Context, j jobs.Job) (jobs.Progress, error)
}

// eraser erases users.
type eraser struct {
	store    ErasureStore
	inflight *inflightSet
	payloads *payloads
	targets  *targets
	hints    *hints
}

func (x *eraser) erase(ctx context.Context, tenant ids.ID, user, actor string) (Erasure, error) {
	if err := text.CheckUser(user); err != nil {
		return Erasure{}, problem.AtField("user", "%s", err)
	}
	receipt, id, err := x.store.EraseUser(ctx, tenant, user, actor)
	if err != nil {
		return Erasure{}, err
	}
	if id != 0 {
		x.inflight.loseUser(tenant, id) // its rows have been dropped; what is not yet is found by the next claim
	}
	x.payloads.clear()
	x.targets.clear()
	x.hints.tenantChanged(tenant)
	return receipt, nil
}
