package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

const (
	browserPath = "/v1/me/" // the routes that a browser on another origin may call

	originsFresh = 30 * time.Second // how long the known origins are taken for all
	originsRetry = 2 * time.Second  // how soon an unknown one is looked for again
	originsPage  = 500

	originsTimeout = 2 * time.Second // to read the list
)

// cors lets pages on the origins that tenants have configured call browserPath.
// A preflight names no tenant, so it is answered for an origin of any; the
// request itself needs one of its own tenant. Nothing depends on cookies, so
// credentials are never allowed.
type cors struct {
	tenants TenantRegistry
	now     func() time.Time

	mu     sync.Mutex
	known  map[string]struct{}
	loaded time.Time
}

func newCORS(t TenantRegistry, now func() time.Time) *cors {
	return &cors{tenants: t, now: now}
}

// serve sets the headers of an answer to another origin, and answers a
// preflight. It tells whether the request goes on.
func (c *cors) serve(g *gin.Context) bool {
	r := g.Request
	if !strings.HasPrefix(r.URL.Path, browserPath) {
		return true
	}
	header := g.Writer.Header()
	header.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !c.isKnown(r.Context(), origin) {
		return true // a preflight then meets 405, which a browser takes for no
	}
	header.Set("Access-Control-Allow-Origin", origin)
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		header.Set("Access-Control-Expose-Headers", "Retry-After, RateLimit, X-Request-Id")
		return true
	}
	header.Set("Access-Control-Allow-Methods", "GET, PUT, POST, DELETE")
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, X-Request-Id")
	header.Set("Access-Control-Max-Age", "600")
	g.AbortWithStatus(http.StatusNoContent)
	g.Writer.WriteHeaderNow()
	return false
}

// admit refuses a request from a page on an origin that the tenant does not
// list. Apps send no Origin, and a page that this server serves is its own.
func (c *cors) admit(ctx context.Context, tenant ids.ID, r *http.Request) error {
	origin := r.Header.Get("Origin")
	if origin == "" || sameHost(origin, r.Host) {
		return nil
	}
	t, err := c.tenants.Tenant(ctx, tenant)
	if err != nil {
		return err
	}
	if !slices.Contains(t.Settings.Origins, origin) {
		return problem.New(problem.Forbidden, "Pages on this origin may not register devices; add it to the tenant's settings.origins.")
	}
	return nil
}

func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// isKnown tells whether any tenant lists the origin. The list is read again when
// it is old, and, at most every few seconds, when the origin is not in it.
func (c *cors) isKnown(ctx context.Context, origin string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.known[origin]
	age := c.now().Sub(c.loaded)
	if (ok && age < originsFresh) || (!ok && age < originsRetry) {
		return ok
	}
	c.loaded = c.now()
	// Whoever asked first may hang up; the list is for all.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), originsTimeout)
	defer cancel()
	if known, err := c.load(ctx); err == nil {
		c.known = known
	}
	_, ok = c.known[origin]
	return ok
}

func (c *cors) load(ctx context.Context) (map[string]struct{}, error) {
	known := map[string]struct{}{}
	for after := ids.ID(0); ; {
		list, err := c.tenants.Tenants(ctx, tenants.Page{After: after, Limit: originsPage})
		if err != nil {
			return nil, err
		}
		for _, t := range list {
			after = t.ID
			for _, o := range t.Settings.Origins {
				known[o] = struct{}{}
			}
		}
		if len(list) < originsPage {
			return known, nil
		}
	}
}
