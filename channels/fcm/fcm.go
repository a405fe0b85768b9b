// Package fcm is the channel to Firebase Cloud Messaging, HTTP v1: one POST per
// delivery to projects/{project}/messages:send.
//
// Files: fcm.go is the channel and its sender, credential.go the service
// account, token.go the OAuth token, message.go and override.go the payload,
// classify.go turns answers into verdicts.
//
// Messages are built with the types of Google's firebase-admin-go; requests are
// not sent by it, because its client repeats a request up to four times on its
// own. docs/adr/0003-fcm-rest.md says more.
package fcm

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
	"github.com/carillonhq/carillon/problem"
)

const (
	defaultEndpoint = "https://fcm.googleapis.com"
	maxAddress      = 4096
	answerBytes     = 64 << 10
)

// Options of the channel. The zero value reaches Google.
type Options struct {
	Endpoint  string           // default https://fcm.googleapis.com
	TokenURIs []string         // what a service account's token_uri may be; default Google's
	RootCAs   *x509.CertPool   // nil: the system's
	Conns     int              // HTTP/2 connections per host; default 2
	Now       func() time.Time // default time.Now
}

// Channel sends through FCM. All its senders share its connections: FCM tells
// projects apart by URL and token, not by connection.
type Channel struct {
	endpoint  string
	tokenURIs []string
	transport *egress.ProviderTransport
	now       func() time.Time
}

var (
	_ channels.Channel = (*Channel)(nil)
	_ channels.Sender  = (*sender)(nil)
)

// New makes the channel.
func New(o Options) *Channel {
	if o.Endpoint == "" {
		o.Endpoint = defaultEndpoint
	}
	if len(o.TokenURIs) == 0 {
		o.TokenURIs = []string{googleTokenURI}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Channel{
		endpoint:  strings.TrimSuffix(o.Endpoint, "/"),
		tokenURIs: o.TokenURIs,
		transport: egress.Provider(egress.ProviderOptions{RootCAs: o.RootCAs, Conns: o.Conns}),
		now:       o.Now,
	}
}

// Kind is channels.FCM.
func (*Channel) Kind() channels.Kind { return channels.FCM }

// CloseIdleConnections drops the connections that all senders share.
func (c *Channel) CloseIdleConnections() { c.transport.CloseIdleConnections() }

// CheckTarget takes registration tokens and installation ids. Google calls both
// opaque, so only what no such string can hold is refused.
func (*Channel) CheckTarget(t channels.Target) (channels.Target, error) {
	if t.Kind != channels.FCMToken && t.Kind != channels.FCMFid {
		return t, problem.AtField("kind", "FCM takes addresses of kind %q and %q", channels.FCMToken, channels.FCMFid)
	}
	t.Address = strings.TrimSpace(t.Address)
	switch {
	case t.Address == "":
		return t, problem.AtField("address", "is empty; give the token that the Firebase SDK returned on the device")
	case len(t.Address) > maxAddress:
		return t, problem.AtField("address", "is longer than %d bytes, which no FCM token is", maxAddress)
	}
	for _, c := range []byte(t.Address) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`/?#%"\<>&`, c) >= 0 {
			return t, problem.AtField("address", "has a character that no FCM token has; send the token as the Firebase SDK returned it")
		}
	}
	return t, nil
}

// Open makes a sender for one version of a service account.
func (c *Channel) Open(cred channels.Credential) (channels.Sender, error) {
	a, err := openAccount(cred)
	if err != nil {
		return nil, err
	}
	return &sender{
		url:       c.endpoint + "/v1/projects/" + a.project + "/messages:send",
		transport: c.transport,
		tokens:    newTokens(a, c.transport, c.now),
		now:       c.now,
	}, nil
}

type sender struct {
	url       string
	transport *egress.ProviderTransport
	tokens    *tokens
	now       func() time.Time
}

// Send makes one request to messages:send. Fetching an OAuth token before it
// reaches no device.
func (s *sender) Send(ctx context.Context, t channels.Target, p channels.Payload, l channels.Life) channels.Result {
	own, ok := p.(*payload)
	if !ok {
		return channels.Result{Outcome: channels.Rejected, Code: "fcm.bad_payload", Detail: "The payload was prepared for another channel."}
	}
	return s.exchange(ctx, own.body(t, l, s.now()), l.Renewed)
}

// exchange posts body once and gives the verdict. It drops the token when
// Google refuses it.
func (s *sender) exchange(ctx context.Context, body []byte, renewed channels.Renewal) channels.Result {
	token, refusal := s.tokens.get(ctx)
	if refusal != nil {
		return *refusal
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return channels.Result{Outcome: channels.Rejected, Code: "fcm.bad_url", Detail: "The configured FCM endpoint is not a URL."}
	}
	req.Header = http.Header{
		"Authorization":             {"Bearer " + token},
		"Content-Type":              {"application/json; charset=UTF-8"},
		"X-Goog-Api-Format-Version": {"2"}, // errors with details
	}
	a := egress.Exchange(s.transport, req, answerBytes)
	switch {
	case errors.Is(a.Err, egress.ErrHeaders):
		return channels.HeadersTooLarge("fcm.headers_too_large", egress.MaxHeaderBytes>>10, a.Wrote)
	case a.Err != nil:
		return channels.FromTransport(ctx, a.Err, a.Wrote)
	}
	r := classify(answer{status: a.Status, header: a.Header, body: a.Body, cut: a.BodyErr != nil, renewed: renewed}, s.now())
	if r.Code == codeTokenRefused {
		s.tokens.drop(token)
	}
	return r
}

// Probe asks FCM to check, and not to send, a message to a token that nobody
// has. Whatever FCM says about that token, it has accepted the credential.
func (s *sender) Probe(ctx context.Context) channels.Result {
	body, err := json.Marshal(map[string]any{
		"validate_only": true,
		"message":       map[string]any{"token": strings.Repeat("carillon-probe:", 10)},
	})
	if err != nil {
		return channels.Result{Outcome: channels.Rejected, Code: "fcm.bad_payload"}
	}
	r := s.exchange(ctx, body, channels.RenewToken)
	switch {
	case r.Outcome == channels.Gone, r.Outcome == channels.Rejected && r.Status == http.StatusBadRequest, r.Code == codeThirdParty:
		r = channels.Result{Outcome: channels.Accepted, Status: r.Status}
	}
	if r.Outcome == channels.Accepted {
		r.Code, r.Detail, r.ProviderID = "fcm.credential_good", "FCM accepts the credential.", ""
	}
	return r
}

// Close ends a token fetch under way and forgets the token.
func (s *sender) Close() { s.tokens.close() }
