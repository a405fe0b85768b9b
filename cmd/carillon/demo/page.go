package demo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillonhq/carillon/clients/js"
)

// page is the backend of the page at /demo: it does what a tenant's own
// backend would, holding the API key and signing users' tokens.
type page struct {
	mu      sync.RWMutex
	call    Call // with the tenant's key; nil until connect has ended
	withKey func(key string) Call
	kid     string
	secret  string
}

// connect makes the user key that tokens are signed with.
func (p *page) connect(ctx context.Context, call Call, withKey func(key string) Call) error {
	var key struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
	if err := call(ctx, "POST", "/v1/user-keys", map[string]any{"name": "demo page"}, &key); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.call, p.withKey, p.kid, p.secret = call, withKey, key.ID, key.Secret
	return nil
}

// token is what a user's browser registers with. It lasts five minutes.
func (p *page) token(user string) (string, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.call == nil {
		return "", errors.New("the demo is still being set up")
	}
	now := time.Now()
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": user, "aud": "carillon", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()})
	t.Header["kid"] = p.kid
	return t.SignedString([]byte(p.secret))
}

// asUser calls the API as a user's browser does.
func (p *page) asUser(ctx context.Context, user, path string, out any) error {
	token, err := p.token(user)
	if err != nil {
		return err
	}
	p.mu.RLock()
	call := p.withKey(token)
	p.mu.RUnlock()
	return call(ctx, "GET", path, nil, out)
}

func (p *page) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/demo", js.Demo())
	mux.Handle("/demo/", js.Demo())
	mux.HandleFunc("POST /demo/token", func(w http.ResponseWriter, r *http.Request) {
		user := r.URL.Query().Get("user")
		if user != "alice" && user != "bob" {
			answer(w, http.StatusUnprocessableEntity, map[string]string{"detail": "The demo knows alice and bob."})
			return
		}
		token, err := p.token(user)
		if err != nil {
			answer(w, http.StatusServiceUnavailable, map[string]string{"detail": err.Error()})
			return
		}
		answer(w, http.StatusOK, map[string]string{"token": token, "app": "default"})
	})
	mux.HandleFunc("POST /demo/send", p.send)
	return onThisMachine(mux)
}

// onThisMachine answers only calls to a loopback name, and JSON alone where
// there is a body: pages of other sites must not use the demo.
func onThisMachine(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		ip, _ := netip.ParseAddr(strings.Trim(host, "[]"))
		switch {
		case host != "localhost" && !ip.IsLoopback():
			answer(w, http.StatusForbidden, map[string]string{"detail": "The demo answers on this machine only."})
		case r.ContentLength != 0 && r.Header.Get("Content-Type") != "application/json":
			answer(w, http.StatusUnsupportedMediaType, map[string]string{"detail": "Send JSON."})
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// send posts a notification to one user's browsers.
func (p *page) send(w http.ResponseWriter, r *http.Request) {
	var in struct{ User, Title, Body, URL string }
	if err := json.NewDecoder(io.LimitReader(r.Body, 16<<10)).Decode(&in); err != nil {
		answer(w, http.StatusBadRequest, map[string]string{"detail": "The body must be JSON."})
		return
	}
	p.mu.RLock()
	call := p.call
	p.mu.RUnlock()
	if call == nil {
		answer(w, http.StatusServiceUnavailable, map[string]string{"detail": "The demo is still being set up."})
		return
	}
	n := map[string]any{"to": map[string]any{"users": []string{in.User}}, "channels": []string{"webpush"}, "title": in.Title, "body": in.Body}
	if in.URL != "" {
		n["url"] = in.URL
	}
	var accepted struct {
		ID string `json:"id"`
	}
	if err := call(r.Context(), "POST", "/v1/notifications", n, &accepted); err != nil {
		status := http.StatusBadGateway
		if refused, ok := errors.AsType[statusError](err); ok {
			status = refused.StatusCode()
		}
		answer(w, status, map[string]string{"detail": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]string{"id": accepted.ID})
}

// statusError is the error of a call that the API refused.
type statusError interface {
	error
	StatusCode() int
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
