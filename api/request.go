package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// call is what a handler knows of its request beyond parameters and body.
type call struct {
	requestID string
	tenant    ids.ID                   // 0 on routes that belong to no tenant, and for the installation
	key       ids.ID                   // the API key, or the key that verified a user's token
	actor     string                   // for the audit: "key_..." or "usk_..."
	may       func(tenants.Scope) bool // what the API key may; nil for a user's token
	user      string                   // only on routes for a user's token
	body      []byte                   // as it was sent; empty on routes without one
	bodyRead  bool                     // nothing of it is on its way any more
	idemKey   string                   // Idempotency-Key; "" where none was sent
	dryRun    bool                     // ?dry_run=true, on routes that take it beside a body
	held      int64                    // bytes that were taken for the body
	status    int                      // set by a handler that answers another status than its route says
}

// maxUserBody bounds a request with a user's token: a device, with all its tags.
const maxUserBody = 32 << 10

type callKey struct{}

func callFrom(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// guard runs before a route's handler: who is it, may they, not too often, and
// is the request one that the handler can read. Nothing of the body is read
// before the caller is known.
func (s *Server) guard(r route) func(huma.Context, func(huma.Context)) {
	return func(h huma.Context, next func(huma.Context)) {
		g := humagin.Unwrap(h)
		c := callFrom(g.Request.Context())
		if err := s.authorize(g.Request.Context(), c, r.access, g.Request); err != nil {
			s.refuse(g, c, err)
			return
		}
		if err := s.limits.occupy(c, s.bodyOf(r, g.Request)); err != nil {
			s.refuse(g, c, err)
			return
		}
		defer s.limits.vacate(c)
		if err := s.admit(g, c, r); err != nil {
			s.refuse(g, c, err)
			return
		}
		if r.method == http.MethodGet && r.access.kind != byOperator && r.handler.streams == nil {
			leave, err := s.limits.reads.enter(g.Request.Context(), place{who: c.tenant, users: c.user != ""})
			if err != nil {
				s.refuse(g, c, err)
				return
			}
			defer leave()
		}
		next(h)
	}
}

// longest is the longest body of a route.
func (s *Server) longest(r route) int64 {
	if r.access.kind == byUser {
		return min(s.maxBody, maxUserBody)
	}
	return s.maxBody
}

// bodyOf is how much memory a request may take for its body.
func (s *Server) bodyOf(r route, req *http.Request) int64 {
	switch {
	case !r.hasBody:
		return 0
	case req.ContentLength >= 0:
		return min(req.ContentLength, s.longest(r))
	}
	return s.longest(r) // it does not say
}

func (s *Server) admit(g *gin.Context, c *call, r route) error {
	ctx, req := g.Request.Context(), g.Request
	if r.access.kind == byUser {
		if err := s.cors.admit(ctx, c.tenant, req); err != nil {
			return err
		}
	}
	if err := s.limits.take(c, g.Writer.Header()); err != nil {
		return err
	}
	if req.URL.RawQuery != "" {
		if err := checkSwitches(req.URL.RawQuery); err != nil {
			return err
		}
	}
	types := r.handler.streams
	if types == nil {
		types = []string{jsonType}
	}
	if !accepts(req.Header["Accept"], types) {
		return problem.New(problem.NotAcceptable, "Answers are %s; the Accept header excludes it.", strings.Join(types, " or "))
	}
	var err error
	if r.idempotent {
		if c.idemKey, err = idempotencyKey(req.Header); err != nil {
			return err
		}
	}
	if r.hasBody {
		most := s.longest(r)
		if r.bodyOptional && req.ContentLength == 0 {
			c.body = []byte("{}")
		} else {
			c.body, err = readBody(g.Writer, req, most)
			c.bodyRead = err == nil
		}
	} else {
		ignoreBody(g.Writer, req)
	}
	return err
}

// accepts reads the Accept header (RFC 9110 section 12.5.1) as far as it matters here:
// some range with a weight above zero covers one of the media types, or a problem.
func accepts(accept, types []string) bool {
	if len(accept) == 0 {
		return true
	}
	for _, line := range accept {
		for one := range strings.SplitSeq(line, ",") {
			media, params, _ := strings.Cut(strings.TrimSpace(one), ";")
			if covers(strings.ToLower(strings.TrimSpace(media)), types) && !zeroWeight(params) {
				return true
			}
		}
	}
	return false
}

func covers(media string, types []string) bool {
	if media == "" || media == "*/*" || media == problemType {
		return true
	}
	family, all := strings.CutSuffix(media, "/*")
	return slices.ContainsFunc(types, func(t string) bool { return media == t || all && strings.HasPrefix(t, family+"/") })
}

func zeroWeight(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		if v, ok := strings.CutPrefix(strings.ReplaceAll(p, " ", ""), "q="); ok {
			return strings.Trim(v, "0.") == ""
		}
	}
	return false
}
