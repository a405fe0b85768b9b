package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// AppRegistry keeps a tenant's applications.
type AppRegistry interface {
	PutApp(ctx context.Context, tenant ids.ID, name, actor string) error
	Apps(ctx context.Context, tenant ids.ID) ([]tenants.App, error)
}

// App is an application as it is shown.
type App struct {
	Name      string    `json:"name" example:"default"`
	CreatedAt time.Time `json:"created_at"`
}

type appPath struct {
	App string `path:"app" maxLength:"63" doc:"The app's name; default where there is only one" example:"default"`
}

func (s *Server) appRoutes() []route {
	const tag = "Apps"
	scope := needs(tenants.Credentials)
	return []route{
		{method: http.MethodPut, path: "/v1/apps/{app}", access: scope, id: "putApp", tag: tag, status: http.StatusNoContent,
			summary: "Make an app", about: "default exists from the start, and a credential makes its app. May be repeated.", handler: noContent(s.putApp)},
		{method: http.MethodGet, path: "/v1/apps", access: scope, id: "listApps", tag: tag,
			summary: "List apps", handler: withoutBody(s.listApps)},
	}
}

func (s *Server) putApp(ctx context.Context, c *call, p *appPath) error {
	return renames{"name": "app"}.of(s.tenants.PutApp(ctx, c.tenant, p.App, c.actor))
}

func (s *Server) listApps(ctx context.Context, c *call, _ *none) (List[App], error) {
	rows, err := s.tenants.Apps(ctx, c.tenant)
	return singlePage(rows, func(a tenants.App) App { return App{Name: a.Name, CreatedAt: timestamp(a.CreatedAt)} }), err
}
