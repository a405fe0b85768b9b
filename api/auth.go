package api

import (
	"context"
	"net/http"
	"strings"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// Authenticator says who a caller is. tenants.Registry is one.
type Authenticator interface {
	Authenticate(ctx context.Context, secret string) (tenants.Principal, error)
	AuthenticateUser(ctx context.Context, token string) (tenants.UserPrincipal, error)
	TenantByName(ctx context.Context, name string) (tenants.Tenant, error)
}

// tenantHeader names the tenant that an operator's key acts for.
const tenantHeader = "Carillon-Tenant"

// access says who may call a route.
type access struct {
	kind  accessKind
	scope tenants.Scope // byKey only
	// installation: an operator's key may leave Carillon-Tenant out, and then means
	// the installation itself, tenant 0. byKey only.
	installation bool
}

type accessKind uint8

const (
	byOperator accessKind = iota + 1 // an operator's key
	byKey                            // a tenant's key with the scope, or an operator's with Carillon-Tenant
	byUser                           // a user's token
)

func needs(scope tenants.Scope) access { return access{kind: byKey, scope: scope} }

// orInstallation is needs for what the installation has as well as a tenant.
func orInstallation(scope tenants.Scope) access {
	return access{kind: byKey, scope: scope, installation: true}
}

// authorize finds out who calls and whether they may, and fills in the call.
func (s *Server) authorize(ctx context.Context, c *call, a access, req *http.Request) error {
	secret, err := bearer(req.Header["Authorization"])
	if err != nil {
		return err
	}
	if a.kind == byUser {
		u, err := s.auth.AuthenticateUser(ctx, secret)
		if err != nil {
			return err
		}
		c.tenant, c.key, c.user, c.actor = u.Tenant, u.Key, u.User, u.Actor()
		return nil
	}
	p, err := s.auth.Authenticate(ctx, secret)
	if err != nil {
		return err
	}
	c.key, c.actor, c.may = p.Key, p.Actor(), p.Has
	if a.kind == byOperator {
		if !p.Has(tenants.Operator) {
			return problem.New(problem.Forbidden, "This call needs an operator's key; yours belongs to a tenant.")
		}
		return nil
	}
	if !p.Has(a.scope) {
		return problem.New(problem.Forbidden, "This key lacks the scope %q, which the call needs.", a.scope)
	}
	name := req.Header.Get(tenantHeader)
	if a.installation && p.Tenant == 0 && name == "" {
		return nil
	}
	c.tenant, err = s.tenantOf(ctx, p, name)
	return err
}

// tenantOf is the key's own tenant, or the one that an operator names. A
// tenant's key that names another one is told that there is none.
func (s *Server) tenantOf(ctx context.Context, p tenants.Principal, name string) (ids.ID, error) {
	if name == "" {
		if p.Tenant == 0 {
			return 0, problem.AtField(tenantHeader, "is missing; an operator's key names the tenant in this header")
		}
		return p.Tenant, nil
	}
	t, err := s.auth.TenantByName(ctx, name)
	if err != nil && problem.CodeOf(err) != problem.NotFound {
		return 0, err
	}
	if err != nil || (p.Tenant != 0 && p.Tenant != t.ID) {
		return 0, problem.New(problem.NotFound, "There is no tenant with the name in %s.", tenantHeader)
	}
	if t.Deleting() {
		return 0, problem.New(problem.Conflict, "The tenant in %s is being deleted.", tenantHeader)
	}
	return t.ID, nil
}

// bearer reads the Authorization header (RFC 6750 section 2.1).
func bearer(header []string) (string, error) {
	if len(header) == 1 {
		scheme, secret, ok := strings.Cut(header[0], " ")
		secret = strings.TrimSpace(secret)
		if ok && strings.EqualFold(scheme, "Bearer") && secret != "" {
			return secret, nil
		}
	}
	return "", problem.New(problem.Unauthenticated, "Send your key as Authorization: Bearer <key>.")
}
