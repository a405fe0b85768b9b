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
		sdk := s.files(o.SDK)
		s.gin.GET("/sdk/v1/*file", sdk)
		s.gin.HEAD("/sdk/v1/*file", sdk)
	}
	if o.Demo != nil {
		page := s.files(o.Demo)
		demo := func(g *gin.Context) {
			frameless(g.Writer.Header())
			page(g)
		}
		s.gin.Any("/demo", demo)
		s.gin.Any("/demo/*file", demo)
	}
}

// files serves what h has. That it has not is answered as everywhere else.
func (s *Server) files(h http.Handler) gin.HandlerFunc {
	return func(g *gin.Context) {
		w := &missingWriter{ResponseWriter: g.Writer}
		h.ServeHTTP(w, g.Request)
		if w.missing {
			s.noRoute(g)
		}
	}
}

// missingWriter keeps back an answer that there is no such file.
type missingWriter struct {
	gin.ResponseWriter
	missing bool
}

func (w *missingWriter) WriteHeader(status int) {
	if status == http.StatusNotFound && !w.Written() {
		w.missing = true
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *missingWriter) Write(b []byte) (int, error) {
	if w.missing {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

func (w *missingWriter) WriteString(text string) (int, error) {
	if w.missing {
		return len(text), nil
	}
	return w.ResponseWriter.WriteString(text)
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
