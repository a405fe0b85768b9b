package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// AppRegistry keeps a tenant's applications.
type AppRegistry interface {
	PutApp(ctx context.Context, tenant ids.ID, name, actor string) error
	Apps(ctx context.Context, tenant ids.ID) ([]tenants.App, error)
	// DeleteApp names the job that removes the app's devices.
	DeleteApp(ctx context.Context, tenant ids.ID, name, actor string) (job ids.ID, err error)
}

// App is an application as it is shown.
type App struct {
	Name      string    `json:"name" example:"default"`
	CreatedAt time.Time `json:"created_at,omitzero" doc:"Absent: nobody has made it, and only devices name it"`
}

type appPath struct {
	App string `path:"app" maxLength:"63" doc:"The app's name; default where there is only one" example:"default"`
}

type appDelete struct {
	App string `path:"app" maxLength:"63" doc:"The app's name" example:"shop"`
	Care
}

func (s *Server) appRoutes() []route {
	const tag = "Apps"
	scope := needs(tenants.Credentials)
	return []route{
		{method: http.MethodPut, path: "/v1/apps/{app}", access: scope, id: "putApp", tag: tag, status: http.StatusNoContent,
			summary: "Make an app", about: "default exists from the start, and a credential makes its app. May be repeated.", handler: noContent(s.putApp)},
		{method: http.MethodGet, path: "/v1/apps", access: scope, id: "listApps", tag: tag,
			summary: "List apps", about: "Those that were made, and those that only devices name, by name; of the latter the first 1,000 of a channel.", handler: withoutBody(s.listApps)},
		{method: http.MethodDelete, path: "/v1/apps/{app}", access: scope, id: "deleteApp", tag: tag, status: http.StatusAccepted,
			summary: "Delete an app with its credentials and devices", handler: careful[appDelete, Job](s.deleteApp),
			about: "It cannot be taken back. Its credentials are gone at once; the job in the answer removes its devices, and what waits for them is dropped as gone. " +
				"A device that is registered after the call stays. It has to be forced if that takes away more than 100 active devices or waiting deliveries, or any at all " +
				"from an app with a VAPID pair. 409 for default, which is meant where no app is named."},
	}
}

func (s *Server) putApp(ctx context.Context, c *call, p *appPath) error {
	return renames{"name": "app"}.of(s.tenants.PutApp(ctx, c.tenant, p.App, c.actor))
}

func (s *Server) deleteApp(ctx context.Context, c *call, p *appDelete) (*answer, error) {
	if err := tenants.CheckDeletable(p.App); err != nil {
		return nil, err
	}
	all, err := s.tenants.Credentials(ctx, c.tenant)
	if err != nil {
		return nil, err
	}
	most := strandMost
	if slices.ContainsFunc(all, func(x tenants.Credential) bool { return x.App == p.App && x.Channel == channels.WebPush }) {
		most = 0 // as for its pairs alone: see deleteCredential
	}
	if a, err := s.lookFor(ctx, c.tenant, delivery.AffectedBy{App: p.App}, most, p.DryRun.DryRun, p.Force); a != nil || err != nil {
		return a, err
	}
	id, err := s.tenants.DeleteApp(ctx, c.tenant, p.App, c.actor)
	if err != nil {
		return nil, err
	}
	j, err := s.jobs.Job(ctx, c.tenant, id)
	if err != nil {
		return nil, err
	}
	return done(http.StatusAccepted, showJob(j))
}

func (s *Server) listApps(ctx context.Context, c *call, _ *none) (List[App], error) {
	rows, err := s.tenants.Apps(ctx, c.tenant)
	return singlePage(rows, func(a tenants.App) App { return App{Name: a.Name, CreatedAt: timestamp(a.CreatedAt)} }), err
}
