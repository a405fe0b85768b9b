package e2e_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// site is a tenant's web site, on another origin than the server: a page that
// uses carillon.js from there, a worker that imports the server's, and a backend
// that signs the user's token.
type site struct {
	url    string
	opened chan string // paths of pages
}

// userKey signs users' tokens.
type userKey struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

func (k userKey) token(user string) (string, error) {
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "aud": "carillon", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()})
	t.Header["kid"] = k.ID
	return t.SignedString([]byte(k.Secret))
}

// newSite serves the page at /, which has a client in its global "carillon",
// and at /other an empty one.
func newSite(t testing.TB, server string, key userKey, user string) *site {
	t.Helper()
	s := &site{opened: make(chan string, 16)}
	page := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s.opened <- r.URL.Path
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = fmt.Fprint(w, "<!doctype html><title>Site</title>", body)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", page(`<script type="module">
		import { Carillon } from '`+server+`/sdk/v1/carillon.js';
		const token = () => fetch('/token', { method: 'POST' }).then((r) => r.text());
		window.carillon = new Carillon({ server: '`+server+`', token });
	</script>`))
	mux.HandleFunc("GET /other", page(""))
	mux.HandleFunc("GET /sw.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = fmt.Fprintf(w, "importScripts('%s/sdk/v1/sw.js');", server)
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, _ *http.Request) {
		token, err := key.token(user)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		_, _ = fmt.Fprint(w, token)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	require.NotEqual(t, server, srv.URL)
	s.url = srv.URL
	return s
}
