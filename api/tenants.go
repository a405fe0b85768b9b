package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// TenantRegistry keeps tenants and their settings.
type TenantRegistry interface {
	CreateTenant(ctx context.Context, name, title string, s tenants.Settings, actor string) (tenants.Tenant, error)
	PutTenant(ctx context.Context, name, title string, s tenants.Settings, actor string) (t tenants.Tenant, created bool, err error)
	Tenant(ctx context.Context, id ids.ID) (tenants.Tenant, error)
	TenantByName(ctx context.Context, name string) (tenants.Tenant, error)
	Tenants(ctx context.Context, p tenants.Page) ([]tenants.Tenant, error)
	DeleteTenant(ctx context.Context, name, actor string) (tenants.Tenant, error)
}

// Tenant is a tenant as it is shown.
type Tenant struct {
	Name      string           `json:"name" doc:"The id of the tenant: as chosen when it was made, or ten_..."`
	Title     string           `json:"title" doc:"For people"`
	Settings  tenants.Settings `json:"settings"`
	CreatedAt time.Time        `json:"created_at"`
	UpdatedAt time.Time        `json:"updated_at"`
	State     string           `json:"state" enum:"active,deleting" doc:"deleting: its keys are refused, nothing of it is sent, and its rows are being removed"`
	DeletedAt time.Time        `json:"deleted_at,omitzero" doc:"Since when it is being deleted"`
}

// TenantPut is what can be changed of a tenant.
type TenantPut struct {
	Title    string           `json:"title,omitempty" maxLength:"200" doc:"For people"`
	Settings tenants.Settings `json:"settings,omitzero" doc:"Retry policies, times to live, browser origins, retention and when devices are stale; what is absent has the server's default"`
}

// NewTenant is a tenant to be made.
type NewTenant struct {
	Name string `json:"name,omitempty" pattern:"^[a-z0-9][a-z0-9_-]{0,62}$" doc:"The id of the tenant; made by the server where absent"`
	TenantPut
}

type tenantPath struct {
	Tenant string `path:"tenant" maxLength:"63" doc:"The tenant's name"`
}

type tenantDelete struct {
	Tenant string `path:"tenant" maxLength:"63" doc:"The tenant's name"`
	Care
}

func (s *Server) tenantRoutes() []route {
	operator := access{kind: byOperator}
	const tag = "Tenants"
	return []route{
		{method: http.MethodPost, path: "/v1/tenants", access: operator, id: "createTenant", tag: tag, status: http.StatusCreated,
			summary: "Make a tenant", handler: withBody(s.createTenant), example: `{"name":"acme","title":"Acme Inc."}`},
		{method: http.MethodGet, path: "/v1/tenants", access: operator, id: "listTenants", tag: tag,
			summary: "List tenants, oldest first", handler: withoutBody(s.listTenants)},
		{method: http.MethodPut, path: "/v1/tenants/{tenant}", access: operator, id: "putTenant", tag: tag,
			summary: "Make a tenant or replace its title and settings", about: "Answers 201 when the tenant was made.", handler: withBody(s.putTenant)},
		{method: http.MethodGet, path: "/v1/tenants/{tenant}", access: operator, id: "getTenant", tag: tag,
			summary: "Read a tenant", handler: withoutBody(s.getTenant)},
		{method: http.MethodDelete, path: "/v1/tenants/{tenant}", access: operator, id: "deleteTenant", tag: tag, status: http.StatusAccepted,
			summary: "Delete a tenant with all that it has", handler: careful[tenantDelete, Tenant](s.deleteTenant),
			about: "It cannot be taken back. The tenant's keys are refused at once, its sealing keys are destroyed, nothing more is sent, and its rows are " +
				"removed in the background: see the jobs of the installation. With more than 100 active devices or waiting deliveries it has to be forced. Its name is free when it is not found any more. May be repeated until then."},
		{method: http.MethodGet, path: "/v1/tenant", access: needs(tenants.Admin), id: "getOwnTenant", tag: tag,
			summary: "Read the tenant of the key", handler: withoutBody(s.getOwnTenant)},
		{method: http.MethodPut, path: "/v1/tenant", access: needs(tenants.Admin), id: "putOwnTenant", tag: tag,
			summary: "Replace the title and settings of the key's tenant", handler: withBody(s.putOwnTenant)},
	}
}

func (s *Server) createTenant(ctx context.Context, c *call, _ *none, in *NewTenant) (Tenant, error) {
	t, err := s.tenants.CreateTenant(ctx, in.Name, in.Title, in.Settings, c.actor)
	return showTenant(t), err
}

func (s *Server) putTenant(ctx context.Context, c *call, p *tenantPath, in *TenantPut) (Tenant, error) {
	t, created, err := s.tenants.PutTenant(ctx, p.Tenant, in.Title, in.Settings, c.actor)
	if created {
		c.status = http.StatusCreated
	}
	return showTenant(t), err
}

func (s *Server) getTenant(ctx context.Context, _ *call, p *tenantPath) (Tenant, error) {
	t, err := s.tenants.TenantByName(ctx, p.Tenant)
	return showTenant(t), err
}

func (s *Server) deleteTenant(ctx context.Context, c *call, p *tenantDelete) (*answer, error) {
	t, err := s.tenants.TenantByName(ctx, p.Tenant)
	if err != nil {
		return nil, err
	}
	if a, err := s.look(ctx, t.ID, delivery.AffectedBy{}, p.DryRun.DryRun, p.Force || t.Deleting()); a != nil || err != nil {
		return a, err
	}
	if t, err = s.tenants.DeleteTenant(ctx, p.Tenant, c.actor); err != nil {
		return nil, err
	}
	return done(http.StatusAccepted, showTenant(t))
}

func (s *Server) listTenants(ctx context.Context, _ *call, p *Paging) (List[Tenant], error) {
	const list = "tenants"
	after, err := p.after(list)
	if err != nil {
		return List[Tenant]{}, err
	}
	rows, err := s.tenants.Tenants(ctx, tenants.Page{After: after.Notification, Limit: p.more()})
	return page(*p, list, rows, func(t tenants.Tenant) delivery.Cursor { return byID(t.ID) }, showTenant), err
}

func (s *Server) getOwnTenant(ctx context.Context, c *call, _ *none) (Tenant, error) {
	t, err := s.tenants.Tenant(ctx, c.tenant)
	return showTenant(t), err
}

func (s *Server) putOwnTenant(ctx context.Context, c *call, _ *none, in *TenantPut) (Tenant, error) {
	t, err := s.tenants.Tenant(ctx, c.tenant)
	if err != nil {
		return Tenant{}, err
	}
	t, _, err = s.tenants.PutTenant(ctx, t.Name, in.Title, in.Settings, c.actor)
	return showTenant(t), err
}

func showTenant(t tenants.Tenant) Tenant {
	state := "active"
	if t.Deleting() {
		state = "deleting"
	}
	return Tenant{Name: t.Name, Title: t.Title, Settings: t.Settings, CreatedAt: timestamp(t.CreatedAt), UpdatedAt: timestamp(t.UpdatedAt),
		State: state, DeletedAt: timestamp(t.DeletedAt)}
}
