package api

import (
	"net/http"

	"github.com/gin-gonic/gin"

	"github.com/carillonhq/carillon/problem"
)

// serveProbes mounts what balancers and orchestrators ask.
func (s *Server) serveProbes() {
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		s.gin.Handle(method, "/healthz", func(g *gin.Context) { g.Data(http.StatusOK, jsonType, []byte(`{"status":"ok"}`)) })
		s.gin.Handle(method, "/readyz", s.readyz)
	}
}

// readiness is what a node that works has to say besides.
type readiness struct {
	Status       string `json:"status"`
	Sending      string `json:"sending,omitempty"`
	OverdueSends int    `json:"overdue_sends,omitempty"`
}

// readyz says whether the engine works, so that a balancer sends requests
// elsewhere while it does not.
func (s *Server) readyz(g *gin.Context) {
	if err := s.engine.Ready(); err != nil {
		s.refuse(g, callFrom(g.Request.Context()), problem.New(problem.Unavailable, "Not ready: %s", err))
		return
	}
	r := readiness{Status: "ready", OverdueSends: s.engine.Overdue()}
	if s.engine.Sending().On() { // the node does its work: it accepts
		r.Sending = "paused"
	}
	g.JSON(http.StatusOK, r)
}
