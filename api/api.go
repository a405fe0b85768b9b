// Package api is the HTTP side of Carillon: routes as data with the scope that
// each needs, strict JSON, problem+json for everything that goes wrong, and an
// OpenAPI 3.1 document generated from the same Go types.
//
// It knows nothing of databases or providers: what it calls are the small
// interfaces beside each resource.
package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/quota"
)

const (
	jsonType       = "application/json"
	defaultMaxBody = 1 << 20
)

// Tenants is everything about tenants, their keys, apps and credentials.
// tenants.Registry is one.
type Tenants interface {
	Authenticator
	TenantRegistry
	KeyRegistry
	UserKeyRegistry
	AppRegistry
	CredentialRegistry
}

// Options of a Server.
type Options struct {
	Engine    Engine
	Reads     delivery.Reader
	Tenants   Tenants
	Devices   Devices
	Endpoints Endpoints
	Jobs      jobs.Registry
	Quotas    []*quota.Quota // what tenants may have stored

	Log     *slog.Logger     // nil: slog.Default()
	Now     func() time.Time // nil: time.Now
	MaxBody int64            // bytes of a request body; 0: 1 MiB
	Limits  Limits
	Metrics *Metrics     // nil: counted, but not shown anywhere
	Version string       // of the program, for the OpenAPI document; "": dev
	SDK     http.Handler // served below /sdk/v1/; nil: nothing is
	Demo    http.Handler // served at and below /demo; nil: nothing is

	HideDocs bool // serves no page at /docs; /openapi.json stays
}

// Server answers HTTP requests. Timeouts, TLS and shutdown belong to the
// http.Server around it.
type Server struct {
	engine    Engine
	reads     delivery.Reader
	auth      Authenticator
	tenants   Tenants
	devices   Devices
	endpoints Endpoints
	jobs      jobs.Registry
	quotas    []*quota.Quota

	log     *slog.Logger
	now     func() time.Time
	maxBody int64
	limits  *limiter
	cors    *cors
	metrics *Metrics
	gin     *gin.Engine
	huma    huma.API
	spec    func() ([]byte, error) // rendered once, when somebody asks
}

var _ http.Handler = (*Server)(nil)

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.gin.ServeHTTP(w, r) }

// OpenAPI is the document that is served at /openapi.json, indented.
func (s *Server) OpenAPI() ([]byte, error) { return s.spec() }

// Requests is the budget of each tenant's requests, for the engine to share with
// other nodes; nil: there is no limit.
func (s *Server) Requests() *delivery.Budget { return s.limits.requests }

// New makes a Server.
func New(o Options) (*Server, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &Server{
		engine: o.Engine, reads: o.Reads, auth: o.Tenants, tenants: o.Tenants, devices: o.Devices, endpoints: o.Endpoints, jobs: o.Jobs, quotas: o.Quotas,
		log: o.Log, now: o.Now, maxBody: o.MaxBody, metrics: o.Metrics,
		limits: newLimiter(o.Limits, o.Now), cors: newCORS(o.Tenants, o.Now),
	}
	gin.SetMode(gin.ReleaseMode)
	s.gin = gin.New()
	s.gin.HandleMethodNotAllowed = true
	s.gin.ContextWithFallback = true
	s.gin.RedirectTrailingSlash = false
	s.gin.UseRawPath = true // a user's id may hold %2F
	s.gin.UnescapePathValues = true
	s.gin.Use(s.outermost)
	s.gin.NoRoute(s.noRoute)
	s.gin.NoMethod(s.noMethod)
	s.huma = humagin.New(s.gin, s.humaConfig(o.Version))
	for _, r := range s.routes() {
		s.mount(r)
	}
	s.finishSpec()
	s.spec = sync.OnceValues(s.renderSpec)
	s.serveProbes()
	s.serveSite(o)
	return s, nil
}

func (o *Options) check() error {
	var missing []error
	need := func(name string, ok bool) {
		if !ok {
			missing = append(missing, fmt.Errorf("api: Options.%s is missing", name))
		}
	}
	need("Engine", o.Engine != nil)
	need("Reads", o.Reads != nil)
	need("Tenants", o.Tenants != nil)
	need("Devices", o.Devices != nil)
	need("Endpoints", o.Endpoints != nil)
	need("Jobs", o.Jobs != nil)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxBody <= 0 {
		o.MaxBody = defaultMaxBody
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	return errors.Join(missing...)
}

// routes is the table of contents.
func (s *Server) routes() []route {
	var all []route
	for _, part := range [][]route{
		s.notificationRoutes(), s.deliveryRoutes(), s.holdRoutes(), s.jobRoutes(), s.userRoutes(), s.erasureRoutes(),
		s.deviceRoutes(), s.meRoutes(), s.endpointRoutes(),
		s.credentialRoutes(), s.appRoutes(), s.keyRoutes(), s.userKeyRoutes(), s.tenantRoutes(), s.sendingRoutes(), s.usageRoutes(),
	} {
		all = append(all, part...)
	}
	return all
}
