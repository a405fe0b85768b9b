package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// Hold is why deliveries are held, or wait, and what releases them.
type Hold struct {
	ID        string    `json:"id" example:"hld_0d1kq3w8r000c"`
	Scope     string    `json:"scope" enum:"credential,endpoint,missing_credential,doubt,refusal"`
	Subject   string    `json:"subject,omitempty" doc:"The credential or endpoint; absent for a missing credential"`
	App       string    `json:"app,omitempty" doc:"Of a missing credential"`
	Channel   string    `json:"channel,omitempty"`
	Qualifier string    `json:"qualifier,omitempty" doc:"Of a missing credential: the APNs environment or VAPID public key that it would be for; otherwise the push service"`
	Version   int       `json:"version,omitzero" doc:"Of the credential whose verdict is in doubt, or that was refused"`
	Reason    string    `json:"reason" doc:"Why they are held; throttled, unreachable or failing: they stay pending, and go on by themselves" example:"credential_denied"`
	Detail    string    `json:"detail,omitempty" doc:"What the provider said, or the person who paused"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until,omitzero" doc:"Nothing is sent before, but for a look now and then; absent: each delivery keeps its own schedule, or a person has to act"`
	Success   time.Time `json:"last_success_at,omitzero" doc:"The last success before it failed, as far as that is known"`
	Held      int       `json:"held" doc:"Deliveries that are held now; those that are pending are not counted"`
	More      bool      `json:"lower_bound,omitzero" doc:"There are more: 10,000 are counted of a hold, and fewer where there are more than ten holds"`
	Ending    string    `json:"ending,omitempty" enum:"resume,confirm,reverse" doc:"It is ending; where its deliveries are being moved"`
	Release   string    `json:"release,omitempty" doc:"The call that releases it" example:"POST /v1/credentials/crd_0d1kq3w8r000c/resume"`
}

func (s *Server) holdRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/holds", access: needs(tenants.Read), id: "listHolds", tag: "Deliveries",
			summary: "List what holds deliveries, or lets them wait, and the call that releases each",
			about:   "What is held stays so until somebody acts or a verdict is in. What is throttled, unreachable or failing goes on by itself; the call makes it try now.", handler: withoutBody(s.listHolds)},
	}
}

func (s *Server) listHolds(ctx context.Context, c *call, _ *none) (List[Hold], error) {
	rows, err := s.reads.Holds(ctx, c.tenant)
	if err != nil {
		return List[Hold]{}, err
	}
	waits, err := s.reads.Waits(ctx, c.tenant)
	out := singlePage(rows, showHold)
	for _, w := range waits {
		out.Data = append(out.Data, showWait(w))
	}
	return out, err
}

// showWait shows a scope in trouble like what a person has to release: it is looked for
// in the same place.
func showWait(w delivery.Wait) Hold {
	out := Hold{ID: w.ID.Format(ids.Hold), Scope: delivery.HoldCredential.String(), Subject: w.Subject.Format(ids.Credential), Channel: w.Channel.String(), Qualifier: w.Origin,
		Reason: w.Cause.String(), Detail: w.Detail, Since: timestamp(w.Since), Until: timestamp(w.Until), Success: timestamp(w.LastSuccess)}
	out.Release = "POST /v1/credentials/" + out.Subject + "/resume"
	if w.Channel == channels.Webhook {
		out.Scope, out.Subject = delivery.HoldEndpoint.String(), w.Subject.Format(ids.Endpoint)
		out.Release = "POST /v1/endpoints/" + out.Subject + "/resume"
	}
	return out
}

func showHold(h delivery.Hold) Hold {
	out := Hold{ID: h.ID.Format(ids.Hold), Scope: h.Scope.String(), App: h.App, Qualifier: h.Qualifier, Version: h.Version,
		Reason: h.Reason.String(), Detail: h.Detail, Since: timestamp(h.Since), Held: h.Held, More: h.More}
	if h.Channel != 0 {
		out.Channel = h.Channel.String()
	}
	switch h.Scope {
	case delivery.HoldCredential, delivery.HoldDoubt, delivery.HoldRefusal:
		out.Subject = h.Subject.Format(ids.Credential)
		out.Release = "POST /v1/credentials/" + out.Subject + "/resume"
	case delivery.HoldEndpoint:
		out.Subject = h.Subject.Format(ids.Endpoint)
		out.Release = "POST /v1/endpoints/" + out.Subject + "/resume"
	case delivery.HoldMissing:
		out.Release = "PUT /v1/apps/" + h.App + "/credentials/" + out.Channel
	}
	switch h.Ending {
	case delivery.Resume:
		out.Ending = "resume"
	case delivery.Confirm:
		out.Ending = "confirm"
	case delivery.Reverse:
		out.Ending = "reverse"
	}
	if out.Ending != "" {
		out.Release = "" // somebody has made the call
	}
	return out
}
