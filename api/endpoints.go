package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// Endpoints keeps webhook endpoints. webhooks.Registry is one.
type Endpoints interface {
	Create(ctx context.Context, tenant ids.ID, n webhooks.NewEndpoint, actor string) (webhooks.Endpoint, string, error)
	Get(ctx context.Context, tenant, id ids.ID) (webhooks.Endpoint, error)
	List(ctx context.Context, tenant, after ids.ID, limit int) ([]webhooks.Endpoint, error)
	Update(ctx context.Context, tenant, id ids.ID, p webhooks.Patch, actor string) (webhooks.Endpoint, error)
	Pause(ctx context.Context, tenant, id ids.ID, reason, actor string) (webhooks.Endpoint, error)
	Resume(ctx context.Context, tenant, id ids.ID, actor string) (webhooks.Endpoint, error)
	Delete(ctx context.Context, tenant, id ids.ID, actor string) error
}

// Endpoint is a webhook endpoint as it is shown, without its secrets.
type Endpoint struct {
	ID           string    `json:"id" example:"whe_0d1kq3w8r000c"`
	URL          string    `json:"url"`
	Description  string    `json:"description"`
	EventTypes   []string  `json:"event_types" doc:"Types, types with .* behind, or *"`
	User         string    `json:"user,omitempty" doc:"The user that it is bound to; absent: none"`
	Status       string    `json:"status" enum:"active,paused,disabled"`
	StatusReason string    `json:"status_reason,omitempty"`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
}

// NewEndpoint is an endpoint to be made.
type NewEndpoint struct {
	URL         string   `json:"url" maxLength:"2048" doc:"Where deliveries are POSTed: https, and not a private address unless the operator allows it"`
	Description string   `json:"description,omitempty" maxLength:"500" doc:"For people"`
	EventTypes  []string `json:"event_types,omitempty" maxItems:"100" doc:"Notification types that it gets: order.shipped, order.* or *; none: only what names it, or all that goes to its user"`
	User        string   `json:"user,omitempty" maxLength:"255" doc:"Binds it to a user of yours: it then gets what is sent to that user, of the event types if it has some"`
	Secret      string   `json:"secret,omitempty" doc:"whsec_ and base64 of 24 to 64 bytes; made by the server where absent"`
}

// EndpointPatch changes the members that are present.
type EndpointPatch struct {
	URL         *string   `json:"url,omitempty" maxLength:"2048"`
	Description *string   `json:"description,omitempty" maxLength:"500"`
	EventTypes  *[]string `json:"event_types,omitempty" maxItems:"100"`
	User        *string   `json:"user,omitempty" maxLength:"255" doc:"An empty string unbinds it"`
}

// EndpointMade is a new endpoint with its secret.
type EndpointMade struct {
	Endpoint
	Secret string `json:"secret" doc:"Shown in this answer only. Receivers verify the signature of Standard Webhooks with it"`
}

type endpointPath struct {
	ID string `path:"id" doc:"The endpoint's id" example:"whe_0d1kq3w8r000c"`
}

type endpointDelete struct {
	ID string `path:"id" doc:"The endpoint's id" example:"whe_0d1kq3w8r000c"`
	Care
}

func (s *Server) endpointRoutes() []route {
	const tag = "Webhook endpoints"
	scope := needs(tenants.Webhooks)
	return []route{
		{method: http.MethodPost, path: "/v1/endpoints", access: scope, id: "createEndpoint", tag: tag, status: http.StatusCreated,
			summary: "Make a webhook endpoint", about: "The secret is in this answer only.", handler: withBody(s.createEndpoint),
			example: `{"url":"https://example.com/hooks","event_types":["order.*"]}`},
		{method: http.MethodGet, path: "/v1/endpoints", access: scope, id: "listEndpoints", tag: tag,
			summary: "List webhook endpoints, oldest first", handler: withoutBody(s.listEndpoints)},
		{method: http.MethodGet, path: "/v1/endpoints/{id}", access: scope, id: "getEndpoint", tag: tag,
			summary: "Read a webhook endpoint", handler: withoutBody(s.getEndpoint)},
		{method: http.MethodPatch, path: "/v1/endpoints/{id}", access: scope, id: "patchEndpoint", tag: tag,
			summary: "Change a webhook endpoint", about: "Members that are absent stay as they are.", handler: withBody(s.patchEndpoint)},
		{method: http.MethodDelete, path: "/v1/endpoints/{id}", access: scope, id: "deleteEndpoint", tag: tag, status: http.StatusNoContent,
			summary: "Delete a webhook endpoint", about: "What waits for it is dropped within seconds, by a job. With more than 100 of them it has to be forced.", handler: careful[endpointDelete, none](s.deleteEndpoint)},
		{method: http.MethodPost, path: "/v1/endpoints/{id}/pause", access: scope, id: "pauseEndpoint", tag: tag,
			summary: "Hold the deliveries of an endpoint", bodyOptional: true, handler: withBody(s.pauseEndpoint), example: `{"reason":"receiver is down for maintenance"}`},
		{method: http.MethodPost, path: "/v1/endpoints/{id}/resume", access: scope, id: "resumeEndpoint", tag: tag,
			summary: "Release the deliveries of an endpoint", about: "Also makes a disabled endpoint active again.", handler: withoutBody(s.resumeEndpoint)},
	}
}

func (s *Server) createEndpoint(ctx context.Context, c *call, _ *none, in *NewEndpoint) (EndpointMade, error) {
	e, secret, err := s.endpoints.Create(ctx, c.tenant, webhooks.NewEndpoint{
		URL: in.URL, Description: in.Description, EventTypes: in.EventTypes, User: in.User, Secret: in.Secret}, c.actor)
	shown, err := s.changed(e, err)
	return EndpointMade{Endpoint: shown, Secret: secret}, err
}

func (s *Server) listEndpoints(ctx context.Context, c *call, p *Paging) (List[Endpoint], error) {
	const list = "endpoints"
	after, err := p.after(list)
	if err != nil {
		return List[Endpoint]{}, err
	}
	rows, err := s.endpoints.List(ctx, c.tenant, after.Notification, p.more())
	return page(*p, list, rows, func(e webhooks.Endpoint) delivery.Cursor { return byID(e.ID) }, showEndpoint), err
}

func (s *Server) getEndpoint(ctx context.Context, c *call, p *endpointPath) (Endpoint, error) {
	id, err := pathID(ids.Endpoint, p.ID, "endpoint")
	if err != nil {
		return Endpoint{}, err
	}
	e, err := s.endpoints.Get(ctx, c.tenant, id)
	return showEndpoint(e), err
}

func (s *Server) patchEndpoint(ctx context.Context, c *call, p *endpointPath, in *EndpointPatch) (Endpoint, error) {
	id, err := pathID(ids.Endpoint, p.ID, "endpoint")
	if err != nil {
		return Endpoint{}, err
	}
	patch := webhooks.Patch{URL: in.URL, Description: in.Description, EventTypes: in.EventTypes, User: in.User}
	return s.changed(s.endpoints.Update(ctx, c.tenant, id, patch, c.actor))
}

func (s *Server) deleteEndpoint(ctx context.Context, c *call, p *endpointDelete) (*answer, error) {
	id, err := pathID(ids.Endpoint, p.ID, "endpoint")
	if err != nil {
		return nil, err
	}
	if a, err := s.look(ctx, c.tenant, delivery.AffectedBy{Endpoint: id}, p.DryRun.DryRun, p.Force); a != nil || err != nil {
		return a, err
	}
	if err := s.endpoints.Delete(ctx, c.tenant, id, c.actor); err != nil {
		return nil, err
	}
	s.engine.EndpointsChanged(c.tenant, id)
	return done(http.StatusNoContent, nil)
}

func (s *Server) pauseEndpoint(ctx context.Context, c *call, p *endpointPath, in *Pause) (Endpoint, error) {
	id, err := pathID(ids.Endpoint, p.ID, "endpoint")
	if err != nil {
		return Endpoint{}, err
	}
	return s.changed(s.endpoints.Pause(ctx, c.tenant, id, in.Reason, c.actor))
}

func (s *Server) resumeEndpoint(ctx context.Context, c *call, p *endpointPath) (Endpoint, error) {
	id, err := pathID(ids.Endpoint, p.ID, "endpoint")
	if err != nil {
		return Endpoint{}, err
	}
	return s.changed(s.endpoints.Resume(ctx, c.tenant, id, c.actor))
}

// changed tells the engine of a change that was stored.
func (s *Server) changed(e webhooks.Endpoint, err error) (Endpoint, error) {
	if err != nil {
		return Endpoint{}, err
	}
	s.engine.EndpointsChanged(e.Tenant, e.ID)
	return showEndpoint(e), nil
}

func showEndpoint(e webhooks.Endpoint) Endpoint {
	return Endpoint{ID: e.ID.Format(ids.Endpoint), URL: e.URL, Description: e.Description, EventTypes: e.EventTypes, User: e.User,
		Status: string(e.Status), StatusReason: e.StatusReason, CreatedAt: timestamp(e.CreatedAt), UpdatedAt: timestamp(e.UpdatedAt)}
}
