package delivery

import (
	"context"

	"github.com/carillonhq/carillon/ids"
)

// AffectedMost is how many devices, and how many unfinished deliveries, are looked
// at to say what a call would affect.
const AffectedMost = 20_000

// AffectedBy is what a call would take away: the tenant, or one of its members if
// it is set.
type AffectedBy struct {
	Credential ids.ID // Affected counts the devices that no other credential serves
	App        string
	Endpoint   ids.ID
	User       string
}

// Affected is what a call that can hurt many would affect.
type Affected struct {
	Devices   int // that are not retired
	Endpoints int
	Waiting   int // deliveries that are not finished
	// LowerBound: there were too many to look at all: there may be more.
	LowerBound bool
}

// AffectedReader says beforehand what a call would affect.
type AffectedReader interface {
	Affected(ctx context.Context, tenant ids.ID, by AffectedBy) (Affected, error)
}
