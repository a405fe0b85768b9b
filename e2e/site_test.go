package e2e_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	webpush "github.com/SherClockHolmes/webpush-go"

	"github.com/carillonhq/carillon/clients/js"
)

// registration is what carillon.js sends to PUT /v1/me/devices.
type registration struct {
	App          string       `json:"app"`
	Channel      string       `json:"channel"`
	Subscription subscription `json:"subscription"`
	Installation string       `json:"installation_id"`
	OS           string       `json:"os"`
	Locale       string       `json:"locale"`
	TimeZone     string       `json:"time_zone"`
}

// subscription is PushSubscription.toJSON().
type subscription struct {
	webpush.Subscription
	ExpirationTime *float64 `json:"expirationTime"` // milliseconds since 1970
}

// site is a web site with a page that uses carillon.js, and the part of
// Carillon's API that carillon.js calls.
type site struct {
	url           string
	key           atomic.Pointer[vapidKey] // the app's; may change
	registrations chan registration
	unregistered  chan string // endpoints
	opened        chan string // paths of pages
}

const userToken = "a-user-token"

// newSite serves the page at /, which has a client in its global "carillon",
// and at /other an empty one.
func newSite(t testing.TB, key vapidKey) *site {
	t.Helper()
	s := &site{registrations: make(chan registration, 16), unregistered: make(chan string, 16), opened: make(chan string, 16)}
	s.key.Store(&key)
	page := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			s.opened <- r.URL.Path
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = w.Write([]byte("<!doctype html><title>Site</title>" + body))
		}
	}
	mux := http.NewServeMux()
	mux.Handle(js.Prefix, js.Handler())
	mux.HandleFunc("GET /{$}", page(`<script type="module">
		import { Carillon } from '/sdk/v1/carillon.js';
		window.carillon = new Carillon({ server: location.origin, token: () => '`+userToken+`', app: 'shop' });
	</script>`))
	mux.HandleFunc("GET /other", page(""))
	mux.HandleFunc("GET /sw.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = w.Write([]byte("importScripts('/sdk/v1/sw.js');"))
	})
	mux.HandleFunc("GET /v1/me/push-key", s.withToken(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("app") != "shop" {
			http.Error(w, `{"code":"not_found","detail":"No such app."}`, http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"public_key": s.key.Load().public})
	}))
	mux.HandleFunc("PUT /v1/me/devices", s.withToken(func(w http.ResponseWriter, r *http.Request) {
		var got registration
		if !readJSON(w, r, &got) {
			return
		}
		s.registrations <- got
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte(`{"id":"dev_1"}`))
	}))
	mux.HandleFunc("POST /v1/me/devices/unregister", s.withToken(func(w http.ResponseWriter, r *http.Request) {
		var got struct{ App, Channel, Address string }
		if !readJSON(w, r, &got) {
			return
		}
		s.unregistered <- got.Address
		w.WriteHeader(http.StatusNoContent)
	}))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *site) withToken(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+userToken {
			http.Error(w, `{"code":"unauthenticated","detail":"No user token."}`, http.StatusUnauthorized)
			return
		}
		next(w, r)
	}
}

func readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(map[string]string{"code": "invalid", "detail": err.Error()})
		return false
	}
	return true
}
