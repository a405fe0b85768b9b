package api

import (
	"net/http"
	"sync"

	"github.com/gin-gonic/gin"
)

// serveSite mounts what browsers are given: the OpenAPI document and the page made
// from it, the SDK and the demo.
func (s *Server) serveSite(o Options) {
	docs := sync.OnceValues(func() ([]byte, error) { return docsPage(s.huma.OpenAPI()) })
	s.gin.GET("/openapi.json", func(g *gin.Context) {
		g.Header("Access-Control-Allow-Origin", "*") // it is public, and tools in browsers read it
		s.once(g, "application/openapi+json", s.spec)
	})
	if !o.HideDocs {
		s.gin.GET("/docs", func(g *gin.Context) {
			secure(g.Writer.Header())
			s.once(g, "text/html; charset=utf-8", docs)
		})
		s.gin.GET("/docs/style.css", func(g *gin.Context) { g.Data(http.StatusOK, "text/css; charset=utf-8", docsStyle) })
	}
	if o.SDK != nil {
		s.gin.GET("/sdk/v1/*file", gin.WrapH(o.SDK))
		s.gin.HEAD("/sdk/v1/*file", gin.WrapH(o.SDK))
	}
	if o.Demo != nil {
		demo := func(g *gin.Context) {
			frameless(g.Writer.Header())
			o.Demo.ServeHTTP(g.Writer, g.Request)
		}
		s.gin.Any("/demo", demo)
		s.gin.Any("/demo/*file", demo)
	}
}

// once serves what is rendered at the first request.
func (s *Server) once(g *gin.Context, kind string, render func() ([]byte, error)) {
	body, err := render()
	if err != nil {
		s.refuse(g, callFrom(g.Request.Context()), err)
		return
	}
	g.Data(http.StatusOK, kind, body)
}

// secure is for pages that consist of HTML and our style sheet only.
func secure(h http.Header) {
	frameless(h)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
}

func frameless(h http.Header) {
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
}
