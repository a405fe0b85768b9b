package simulator

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/carillonhq/carillon/problem"
)

// limits of what one call makes.
const (
	maxMade        = 100_000
	maxControlBody = 1 << 20
)

// controls serves the page and the JSON beside the providers.
func (s *Simulator) controls() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.servePage)
	mux.HandleFunc("GET /report.json", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Report()) })
	mux.HandleFunc("GET /access.json", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Access()) })
	mux.HandleFunc("GET /arrivals.json", s.serveArrivals)
	mux.HandleFunc("GET /tokens.json", s.serveTokens)
	mux.HandleFunc("GET /faults", s.serveFaults)
	mux.HandleFunc("POST /faults", s.setFaults)
	mux.HandleFunc("DELETE /faults", func(w http.ResponseWriter, r *http.Request) {
		s.ClearFault(r.URL.Query().Get("target"))
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /subscriptions", s.makeSubscriptions)
	mux.HandleFunc("POST /secrets", s.setSecrets)
	mux.HandleFunc("POST /reset", func(w http.ResponseWriter, _ *http.Request) {
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func (s *Simulator) serveArrivals(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit, ok := number(w, q.Get("limit"), "limit", 0)
	if !ok {
		return
	}
	reply(w, s.Arrivals(Filter{Channel: Channel(q.Get("channel")), Target: q.Get("target"),
		Delivery: q.Get("delivery"), Limit: limit}))
}

func (s *Simulator) serveTokens(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	ch := Channel(q.Get("channel"))
	if ch == "" {
		ch = FCM
	}
	count, ok := number(w, q.Get("count"), "count", 1)
	if !ok {
		return
	}
	f, ok := ParseFault(ch, q.Get("fault"))
	if !ok && q.Get("fault") != "" {
		refuse(w, problem.AtField("fault", "is not a fault such as 503x2, 429-30s, slow-250ms, reset or unregistered"))
		return
	}
	pushType := q.Get("push_type")
	if pushType != "" && (ch != APNs || q.Get("fault") != "" || !slices.Contains(boundTypes(), pushType)) {
		refuse(w, problem.AtField("push_type", "is alert, voip, liveactivity or widgets, for channel apns and without a fault"))
		return
	}
	tokens := make([]string, count)
	for i := range tokens {
		if tokens[i] = Token(ch, f, i+1); pushType != "" {
			tokens[i] = s.APNs().NewTokenFor(pushType)
		}
	}
	reply(w, tokens)
}

func (s *Simulator) makeSubscriptions(w http.ResponseWriter, r *http.Request) {
	var in struct {
		VAPIDKey string `json:"vapid_key"`
		Fault    string `json:"fault"`
		Count    int    `json:"count"`
	}
	if !decode(w, r, &in) {
		return
	}
	f, ok := ParseFault(WebPush, in.Fault)
	if !ok && in.Fault != "" {
		refuse(w, problem.AtField("fault", "is not a fault such as 503x2, 429-30s, slow-250ms, reset or unregistered"))
		return
	}
	if in.Count < 0 || in.Count > maxMade {
		refuse(w, problem.AtField("count", "is not within 1 and %d", maxMade))
		return
	}
	out := make([]Subscription, max(in.Count, 1))
	for i := range out {
		sub, err := s.Push().NewSubscription(in.VAPIDKey)
		if err != nil {
			refuse(w, problem.AtField("vapid_key", "%s", err.Error()))
			return
		}
		if in.Fault != "" {
			sub.Endpoint += "/" + Token(WebPush, f, i+1)
		}
		out[i] = sub
	}
	reply(w, out)
}

func (s *Simulator) setSecrets(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Name    string   `json:"name"`
		Secrets []string `json:"secrets"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.Name == "" {
		refuse(w, problem.AtField("name", "is missing: it is what follows %s in the receiver's URL", hookPath))
		return
	}
	if err := s.Webhook().SetSecret(in.Name, in.Secrets...); err != nil {
		refuse(w, problem.AtField("secrets", "%s", err.Error()))
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func reply(w http.ResponseWriter, v any) {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		refuse(w, fmt.Errorf("encoding the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(body, '\n')) //nolint:errcheck // the client may be gone
}

// refuse answers with problem+json (RFC 9457).
func refuse(w http.ResponseWriter, err error) {
	status := http.StatusUnprocessableEntity
	code := problem.CodeOf(err)
	switch code {
	case problem.Malformed:
		status = http.StatusBadRequest
	case problem.Internal:
		status = http.StatusInternalServerError
	}
	body, _ := json.Marshal(map[string]any{"status": status, "code": code, "title": http.StatusText(status),
		"detail": err.Error()}) // plain values always encode
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	w.Write(body) //nolint:errcheck // the client may be gone
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
	if err == nil && len(bytes.TrimSpace(body)) > 0 {
		d := json.NewDecoder(bytes.NewReader(body))
		d.DisallowUnknownFields()
		err = d.Decode(into)
	}
	if err != nil {
		refuse(w, problem.New(problem.Malformed, "The body is not the JSON that is expected: %s.", err))
		return false
	}
	return true
}

func number(w http.ResponseWriter, text, name string, otherwise int) (int, bool) {
	if text == "" {
		return otherwise, true
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxMade {
		refuse(w, problem.AtField(name, "is not within 1 and %d", maxMade))
		return 0, false
	}
	return n, true
}
