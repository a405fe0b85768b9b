// Package webhook is the channel of signed HTTP callbacks, after Standard
// Webhooks: one POST of JSON to an endpoint, signed with every secret that
// counts, taken when the receiver answers 2xx.
//
// Files: webhook.go is the channel and its sender, message.go the body,
// classify.go turns answers into verdicts.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

// The headers that are Carillon's own. Standard Webhooks' are in package webhooks.
const (
	HeaderDelivery = "Carillon-Delivery" // dlv_ id, the same on every attempt
	HeaderAttempt  = "Carillon-Attempt"  // 1 for the first
)

// What is read of an answer's body, so that its connection can be used again. The
// verdict is in the status.
const (
	bodyBytes = 4 << 10
	bodyTime  = time.Second
)

// idleTime is below the 5 s after which many receivers (those on Node.js by default)
// close a connection that is not used, which would cross with our next request.
const idleTime = 4 * time.Second

// Options of the channel. The zero value reaches public https hosts only.
type Options struct {
	Rules     egress.Rules
	Limits    egress.Limits
	UserAgent string           // default "Carillon"
	Now       func() time.Time // default time.Now
}

// Channel sends webhooks.
type Channel struct {
	rules  egress.Rules
	sender *sender
}

var (
	_ channels.Channel = (*Channel)(nil)
	_ channels.Sender  = (*sender)(nil)
)

// New makes the channel. All its senders share one pool of connections.
func New(o Options) *Channel {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.UserAgent == "" {
		o.UserAgent = "Carillon"
	}
	if o.Limits.BodyTime == 0 {
		o.Limits.BodyTime = bodyTime
	}
	if o.Limits.IdleTime == 0 {
		o.Limits.IdleTime = idleTime
	}
	fresh := o.Limits
	fresh.Fresh = true
	return &Channel{rules: o.Rules, sender: &sender{
		client: egress.Guarded(o.Rules, o.Limits),
		fresh:  egress.Guarded(o.Rules, fresh),
		agent:  o.UserAgent,
		now:    o.Now,
	}}
}

// Kind is channels.Webhook.
func (*Channel) Kind() channels.Kind { return channels.Webhook }

// ParseCredential refuses: the channel needs no credential.
func (*Channel) ParseCredential([]byte, json.RawMessage) (channels.Credential, error) {
	return channels.Credential{}, problem.New(problem.CredentialRefused,
		"Webhooks have no credential; the secrets that sign them belong to the endpoint.")
}

// CheckTarget refuses a URL that the rules will never let through. A fault is
// named "url".
func (c *Channel) CheckTarget(t channels.Target) (channels.Target, error) {
	if t.Kind != channels.URL {
		return t, problem.AtField("url", "a webhook goes to a URL, not to an address of kind %q", t.Kind)
	}
	u, err := c.rules.CheckURL(t.Address)
	if err != nil {
		return t, problem.AtField("url", "%s", err)
	}
	u.Host = strings.ToLower(u.Host)
	t.Address = u.String()
	return t, nil
}

// Open gives the one sender, whatever the credential.
func (c *Channel) Open(channels.Credential) (channels.Sender, error) { return c.sender, nil }

type sender struct {
	client *http.Client
	fresh  *http.Client // makes a connection for each request
	agent  string
	now    func() time.Time
}

// Send signs the shared body for this attempt and posts it once.
func (s *sender) Send(ctx context.Context, t channels.Target, p channels.Payload, l channels.Life) channels.Result {
	body, ok := p.(*payload)
	if !ok {
		return rejected("webhook.bad_payload", "The payload was prepared for another channel.")
	}
	now := s.now()
	signature, err := webhooks.Sign(t.Secrets, l.Notification, now, body.json)
	if err != nil {
		return rejected("webhook.unsigned", "The endpoint has no secret that can sign.")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.Address, bytes.NewReader(body.json))
	if err != nil { // its text may hold the URL
		return rejected("webhook.bad_url", "The endpoint's URL cannot be requested.")
	}
	// No Idempotency-Key: net/http would then repeat the request by itself.
	h := req.Header
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", s.agent)
	h.Set(webhooks.HeaderID, l.Notification)
	h.Set(webhooks.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(webhooks.HeaderSignature, signature)
	h.Set(HeaderDelivery, l.Delivery)
	h.Set(HeaderAttempt, strconv.Itoa(l.Attempt))
	client := s.client
	if l.AtMostOnce || l.Renewed == channels.RenewConnection {
		client = s.fresh
	}
	// What the receiver says beyond its status is of no use here, and not ours
	// to keep.
	return classify(ctx, egress.Exchange(client, req, bodyBytes), s.now())
}

// Probe has nothing to try: there is no credential.
func (*sender) Probe(context.Context) channels.Result {
	return channels.Result{Outcome: channels.Accepted, Code: "webhook.not_probed",
		Detail: "Webhooks have no credential to try."}
}

// Close drops idle connections. The sender is shared, and works on.
func (s *sender) Close() {
	s.client.CloseIdleConnections()
	s.fresh.CloseIdleConnections()
}
