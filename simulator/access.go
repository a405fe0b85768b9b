package simulator

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
)

// Access is everything that a sender in another process needs.
type Access struct {
	FCM     AccessFCM     `json:"fcm"`
	APNs    AccessAPNs    `json:"apns"`
	WebPush AccessPush    `json:"webpush"`
	Webhook AccessWebhook `json:"webhook"`
}

// AccessFCM is FCMAccess over HTTP.
type AccessFCM struct {
	Project        string          `json:"project"`
	URL            string          `json:"url"`
	TLSURL         string          `json:"tls_url"`
	TokenURI       string          `json:"token_uri"`
	ServiceAccount json.RawMessage `json:"service_account"`
}

// AccessAPNs is APNsAccess over HTTP, with two device tokens to try.
type AccessAPNs struct {
	URL          string `json:"url"`
	SandboxURL   string `json:"sandbox_url"`
	Topic        string `json:"topic"`
	TeamID       string `json:"team_id"`
	KeyID        string `json:"key_id"`
	P8           string `json:"p8"`
	CA           string `json:"ca_pem"`
	Token        string `json:"token"`
	SandboxToken string `json:"sandbox_token"`
}

// AccessPush is PushAccess over HTTP. Subscriptions are made by POST /subscriptions.
type AccessPush struct {
	URL       string `json:"url"`
	TLSURL    string `json:"tls_url"`
	SocketURL string `json:"socket_url"`
}

// AccessWebhook holds the URLs to which a receiver's name is appended.
type AccessWebhook struct {
	URL    string `json:"url"`
	TLSURL string `json:"tls_url"`
}

// Access gathers what FCM, APNs, Push and Webhook tell.
func (s *Simulator) Access() Access {
	f, a, p, h := s.FCM(), s.APNs(), s.Push(), s.Webhook()
	return Access{
		FCM: AccessFCM{Project: f.Project, URL: f.URL, TLSURL: f.TLSURL, TokenURI: f.TokenURI, ServiceAccount: f.ServiceAccount},
		APNs: AccessAPNs{URL: a.URL, SandboxURL: a.SandboxURL, Topic: a.Topic, TeamID: a.TeamID, KeyID: a.KeyID,
			P8: string(a.P8), CA: string(a.CAPEM), Token: a.NewToken(), SandboxToken: a.NewSandboxToken()},
		WebPush: AccessPush{URL: p.URL, TLSURL: p.TLSURL, SocketURL: p.SocketURL},
		Webhook: AccessWebhook{URL: h.URL(""), TLSURL: h.TLSURL("")},
	}
}

// channelOf guesses whose address a target is.
func channelOf(target string) Channel {
	switch {
	case slices.Contains(Channels(), Channel(target)):
		return Channel(target)
	case strings.Contains(target, pushPath):
		return WebPush
	case strings.Contains(target, hookPath):
		return Webhook
	case isDeviceToken(strings.ToLower(target)):
		return APNs
	}
	return FCM
}

//go:embed index.html
var page string

// faultRow is a line of the page's table of faults.
type faultRow struct {
	Word                        string
	FCM, APNs, WebPush, Webhook string
}

func faultTable() []faultRow {
	var rows []faultRow
	for _, w := range faultWords() {
		text := func(c code) string { return answerKey{status: c.status, reason: c.reason}.String() }
		rows = append(rows, faultRow{w.name, text(w.fcm), text(w.apns), text(w.webpush), text(w.webhook)})
	}
	return rows
}

// servePage shows the report to people.
func (s *Simulator) servePage(w http.ResponseWriter, _ *http.Request) {
	t, err := template.New("page").Parse(page)
	if err != nil {
		refuse(w, err)
		return
	}
	var out bytes.Buffer
	arrivals := s.Arrivals(Filter{Limit: 50})
	slices.Reverse(arrivals)
	err = t.Execute(&out, map[string]any{"Report": s.Report(), "Access": s.Access(), "Arrivals": arrivals,
		"Channels": Channels(), "Words": faultTable(), "Faults": s.core.faults.all()})
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.Write(out.Bytes()) //nolint:errcheck // the client may be gone
}
