package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// strandMost is how many devices, or waiting deliveries, a call may leave without
// what they need before it has to be forced.
const strandMost = 100

// DryRun is what a call takes that may be looked at before it is made.
type DryRun struct {
	DryRun bool `query:"dry_run" doc:"Do nothing; answer 200 with what would be done"`
}

// Care is what a call takes that can hurt many.
type Care struct {
	DryRun
	Force bool `query:"force" doc:"Do it though more than 100 active devices or waiting deliveries are affected, which is 409 otherwise"`
}

// switches are the parameters that are either true or false, and decide what a call
// does.
var switches = [...]string{"dry_run", "force", "verify", "auto_rollback", "compromised"}

// checkSwitches refuses those that do not say which. A mere ?dry_run would be taken
// for false otherwise, and the call be made; and what cannot be read of a query, such as
// ?dry_run=true;force=true, would be passed over.
func checkSwitches(rawQuery string) error {
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return problem.New(problem.Invalid, "The query of the URL cannot be read: separate its parameters with &, and write other special characters as %%XX.")
	}
	var faults problem.Fields
	for _, name := range switches {
		values, given := query[name]
		if !given {
			continue
		}
		if _, err := strconv.ParseBool(values[0]); err != nil || len(values) > 1 {
			faults.Add(name, "must be given once, as %s=true or %s=false", name, name)
		}
	}
	return faults.Err()
}

// Affected is what a call would affect.
type Affected struct {
	DryRun     bool `json:"dry_run"`
	Devices    int  `json:"devices" doc:"Active and suspect devices"`
	Endpoints  int  `json:"endpoints"`
	Waiting    int  `json:"waiting" doc:"Deliveries that are not finished"`
	LowerBound bool `json:"lower_bound" doc:"There are too many to count: there may be more"`
	NeedsForce bool `json:"needs_force" doc:"Without force=true the call answers 409"`
	// Verification is of a credential that would be put.
	Verification *Verification `json:"verification,omitempty" doc:"Of a credential that would be put: what its provider says of it"`
}

func showAffected(a delivery.Affected) Affected {
	return Affected{DryRun: true, Devices: a.Devices, Endpoints: a.Endpoints, Waiting: a.Waiting, LowerBound: a.LowerBound}
}

// look finds what a call would affect. The answer is the one to give instead of
// doing it; nil: go on. force: however much it is.
func (s *Server) look(ctx context.Context, tenant ids.ID, by delivery.AffectedBy, dry, force bool) (*answer, error) {
	return s.lookFor(ctx, tenant, by, strandMost, dry, force)
}

// lookFor is look where a call has to be forced if it strands more than some.
func (s *Server) lookFor(ctx context.Context, tenant ids.ID, by delivery.AffectedBy, most int, dry, force bool) (*answer, error) {
	if force && !dry {
		return nil, nil
	}
	a, err := s.reads.Affected(ctx, tenant, by)
	if err != nil {
		return nil, err
	}
	many := !force && (a.Devices > most || a.Waiting > most)
	switch {
	case dry:
		out := showAffected(a)
		out.NeedsForce = many
		return done(http.StatusOK, out)
	case many:
		least := ""
		if a.LowerBound {
			least = "at least "
		}
		return nil, problem.New(problem.Conflict, "This would leave %s%d active devices and %s%d waiting deliveries without what they need. "+
			"Look at it with ?dry_run=true; if it is what you want, call again with ?force=true.", least, a.Devices, least, a.Waiting)
	}
	return nil, nil
}

// done is the answer of a careful call that was made; v is nil where it has no body.
func done(status int, v any) (*answer, error) {
	if v == nil {
		return &answer{Status: status}, nil
	}
	status, body, err := render(status, v)
	return &answer{Status: status, ContentType: jsonType, Body: body}, err
}
