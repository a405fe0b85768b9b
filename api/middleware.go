package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/carillonhq/carillon/problem"
)

const requestIDHeader = "X-Request-Id"

// outermost runs around every request: it gives it an id, bounds how many there
// are at a time, counts it, and turns a panic into an answer.
func (s *Server) outermost(g *gin.Context) {
	begin := s.now()
	c := &call{requestID: requestID(g.Request.Header[requestIDHeader])}
	g.Request = g.Request.WithContext(context.WithValue(g.Request.Context(), callKey{}, c))
	header := g.Writer.Header()
	header.Set(requestIDHeader, c.requestID)
	header.Set("X-Content-Type-Options", "nosniff")
	s.metrics.inFlight.Inc()
	defer s.observe(g, c, begin)
	defer func() { s.recovered(g, c, recover()) }()
	if g.Request.Method == http.MethodGet || g.Request.Method == http.MethodHead {
		ignoreBody(g.Writer, g.Request)
	}
	if !strings.HasPrefix(g.Request.URL.Path, "/v1/") { // probes and pages are always answered
		g.Next()
		return
	}
	header.Set("Cache-Control", "no-store")
	if !s.limits.enter() {
		s.refuse(g, c, &problem.Error{Code: problem.Unavailable, Detail: "The server has as many requests in hand as it takes.", RetryAfter: time.Second})
		return
	}
	defer s.limits.leave()
	if s.cors.serve(g) {
		g.Next()
	}
}

// recovered answers a request whose handler panicked. The stack is in the log
// only.
func (s *Server) recovered(g *gin.Context, c *call, v any) {
	if v == nil {
		return
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		panic(v) // asks the server to cut the connection, quietly
	}
	s.log.ErrorContext(g.Request.Context(), "panic in a handler",
		"request_id", c.requestID, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if g.Writer.Written() {
		panic(http.ErrAbortHandler) // half an answer is out: the client must not take it for a whole one
	}
	s.refuse(g, c, fmt.Errorf("panic: %v", v))
}

func (s *Server) observe(g *gin.Context, c *call, begin time.Time) {
	took := s.now().Sub(begin)
	s.metrics.inFlight.Dec()
	route := g.FullPath()
	if route == "" {
		route = "unmatched"
	}
	status := g.Writer.Status()
	s.metrics.observe(g.Request.Method, route, status, took)
	ctx := g.Request.Context()
	if s.log.Enabled(ctx, slog.LevelDebug) {
		s.log.DebugContext(ctx, "request", "request_id", c.requestID, "method", g.Request.Method, "route", route,
			"status", status, "duration", took, "actor", c.actor)
	}
}

// noRoute and noMethod answer what gin would answer in plain text.
func (s *Server) noRoute(g *gin.Context) {
	s.refuse(g, callFrom(g.Request.Context()), problem.New(problem.NotFound, "There is nothing at this path. The calls are listed at /docs."))
}

func (s *Server) noMethod(g *gin.Context) {
	s.refuse(g, callFrom(g.Request.Context()), problem.New(problem.MethodNotAllowed, "This path does not take %s; see the Allow header.", g.Request.Method))
}

// requestID keeps a caller's id if it is harmless, and makes one otherwise.
func requestID(given []string) string {
	if len(given) == 1 && harmless(given[0]) {
		return given[0]
	}
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	var id [24]byte
	for i, bits := 0, uint64(0); i < len(id); i++ {
		if i%12 == 0 {
			bits = rand.Uint64() //nolint:gosec // it names a request, it guards nothing
		}
		id[i] = alphabet[bits&31]
		bits >>= 5
	}
	return string(id[:])
}

func harmless(id string) bool {
	if len(id) < 8 || len(id) > 64 {
		return false
	}
	return strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == ""
}
