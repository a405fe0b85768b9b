package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// Erasure is the receipt of the erasure of a user. It does not name the user.
type Erasure struct {
	ID          string         `json:"id" example:"ers_0d1kq3w8r000c"`
	Subject     string         `json:"subject" doc:"Keyed hash of the user's id: the same for the same user of the tenant, and of no use to anybody without the server's keys"`
	State       string         `json:"state" enum:"running,done"`
	Origin      string         `json:"origin" enum:"request,log" doc:"log: done again from the erasure log, after a restore"`
	Actor       string         `json:"actor" doc:"The key that asked for it" example:"key_0d1kq3w8r000c"`
	Job         string         `json:"job" doc:"The background job that does it" example:"job_0d1kq3w8r000c"`
	RequestedAt time.Time      `json:"requested_at"`
	FinishedAt  time.Time      `json:"finished_at,omitzero"`
	Rows        map[string]int `json:"rows" doc:"Rows removed or changed, by table"`
}

type erasurePath struct {
	ID string `path:"id" doc:"The erasure's id" example:"ers_0d1kq3w8r000c"`
}

type userErase struct {
	User string `path:"user" maxLength:"255" doc:"Your own id of the user, percent-encoded"`
	DryRun
}

func (s *Server) erasureRoutes() []route {
	const tag = "Users"
	scope := needs(tenants.Erase)
	return []route{
		{method: http.MethodGet, path: "/v1/erasures", access: scope, id: "listErasures", tag: tag,
			summary: "List the receipts of erasures, newest first", handler: withoutBody(s.listErasures)},
		{method: http.MethodGet, path: "/v1/erasures/{id}", access: scope, id: "getErasure", tag: tag,
			summary: "Read the receipt of an erasure", handler: withoutBody(s.getErasure)},
	}
}

func (s *Server) eraseUser(ctx context.Context, c *call, p *userErase) (*answer, error) {
	// However much there is of a user, nobody has to ask twice for its erasure.
	if a, err := s.look(ctx, c.tenant, delivery.AffectedBy{User: p.User}, p.DryRun.DryRun, true); a != nil || err != nil {
		return a, err
	}
	e, err := s.engine.EraseUser(ctx, c.tenant, p.User, c.actor)
	if err != nil {
		return nil, err
	}
	return done(http.StatusAccepted, showErasure(e))
}

func (s *Server) listErasures(ctx context.Context, c *call, p *Paging) (List[Erasure], error) {
	const list = "erasures"
	after, err := p.after(list)
	if err != nil {
		return List[Erasure]{}, err
	}
	rows, err := s.reads.Erasures(ctx, c.tenant, after.Notification, p.more())
	return page(*p, list, rows, func(e delivery.Erasure) delivery.Cursor { return byID(e.ID) }, showErasure), err
}

func (s *Server) getErasure(ctx context.Context, c *call, p *erasurePath) (Erasure, error) {
	id, err := pathID(ids.Erasure, p.ID, "erasure")
	if err != nil {
		return Erasure{}, err
	}
	e, err := s.reads.Erasure(ctx, c.tenant, id)
	return showErasure(e), err
}

func showErasure(e delivery.Erasure) Erasure {
	out := Erasure{ID: e.ID.Format(ids.Erasure), Subject: e.Subject, State: "running", Origin: e.Origin.String(), Actor: e.Actor,
		Job: e.Job.Format(ids.Job), RequestedAt: timestamp(e.RequestedAt), FinishedAt: timestamp(e.FinishedAt), Rows: e.Rows}
	if !e.FinishedAt.IsZero() {
		out.State = "done"
	}
	if out.Rows == nil {
		out.Rows = map[string]int{}
	}
	return out
}
