// Package webpush is the channel to browsers: Web Push (RFC 8030) with VAPID
// (RFC 8292) and message encryption (RFC 8291), for the push services of
// Google, Mozilla, Apple and Microsoft.
//
// Files: webpush.go is the channel and its sender, credential.go the VAPID pair
// that a tenant puts, message.go the message that the service worker reads,
// encrypt.go and vapid.go the cryptography, classify.go turns answers into
// verdicts.
package webpush

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
	"github.com/carillonhq/carillon/problem"
)

const (
	// MaxTTL is the longest time to live that is asked for: Google takes no more
	// than four weeks.
	MaxTTL = 28 * 24 * time.Hour

	// What is read of an answer's body: enough for every vendor's error, which comes
	// with its status.
	answerBytes = 4 << 10
	answerTime  = time.Second
)

// Options of the channel. The zero value reaches the known push services only.
type Options struct {
	// Hosts are the push services that subscriptions may name. "*.example.com"
	// is every host below example.com. Empty: DefaultHosts.
	Hosts []string
	// AnyHost allows every host that Rules allow. Push services are chosen by
	// browsers, so this lets every device name a host.
	AnyHost bool
	Rules   egress.Rules
	Limits  egress.Limits
	// Transport takes the place of the guarded client where it is not nil: no
	// address is checked then.
	Transport http.RoundTripper
	Now       func() time.Time // default time.Now
}

// DefaultHosts are the push services of the browsers in use.
func DefaultHosts() []string {
	return []string{
		"fcm.googleapis.com", "jmt17.google.com", // Chrome and its kin
		"updates.push.services.mozilla.com", "*.push.services.mozilla.com", // Firefox
		"web.push.apple.com", "*.push.apple.com", // Safari
		"*.notify.windows.com", // Edge
	}
}

// connsPerHost is enough for the many requests that a connection of HTTP/2, which push
// services speak, carries at a time: a burst need not open one for each.
const connsPerHost = 64

// Channel sends web pushes.
type Channel struct {
	hosts   []string
	anyHost bool
	rules   egress.Rules
	client  *http.Client
	now     func() time.Time
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
	if len(o.Hosts) == 0 {
		o.Hosts = DefaultHosts()
	}
	if o.Limits.ConnsPerHost == 0 {
		o.Limits.ConnsPerHost = connsPerHost
	}
	if o.Limits.BodyTime == 0 {
		o.Limits.BodyTime = answerTime
	}
	client := egress.Guarded(o.Rules, o.Limits)
	if o.Transport != nil {
		client.Transport = o.Transport
	}
	return &Channel{hosts: o.Hosts, anyHost: o.AnyHost, rules: o.Rules, client: client, now: o.Now}
}

// Kind is channels.WebPush.
func (*Channel) Kind() channels.Kind { return channels.WebPush }

// CheckTarget refuses a subscription that could never be sent to. Faults are
// named "address", "keys.p256dh" and "keys.auth", all at once.
func (c *Channel) CheckTarget(t channels.Target) (channels.Target, error) {
	if t.Kind != channels.Subscription {
		return t, problem.AtField("address", "web push goes to a browser's subscription, not to an address of kind %q", t.Kind)
	}
	var faults problem.Fields
	t.Address = strings.TrimSpace(t.Address) // else the same browser would be two devices
	u, err := c.rules.CheckURL(t.Address)
	switch {
	case err != nil:
		faults.Add("address", "%s", err)
	case !c.allowed(u.Hostname()):
		faults.Add("address", "the host is not one of the push services that the operator allows; use the endpoint exactly as the browser gave it")
	case !hasShape(u):
		faults.Add("address", "is not an endpoint of this push service, only a URL on its host; use the endpoint exactly as the browser gave it")
	default:
		u.Host = strings.TrimPrefix(origin(u), u.Scheme+"://")
		t.Address = u.String()
	}
	if err := checkPoint(t.P256dh); err != nil {
		faults.Add("keys.p256dh", "%s", err)
	}
	if len(t.Auth) != authSize {
		faults.Add("keys.auth", "has %d octets; it needs %d, in base64url", len(t.Auth), authSize)
	}
	return t, faults.Err()
}

func (c *Channel) allowed(host string) bool {
	host = strings.ToLower(host)
	for _, pattern := range c.hosts {
		below, wild := strings.CutPrefix(strings.ToLower(pattern), "*")
		if !wild && host == below || wild && len(host) > len(below) && strings.HasSuffix(host, below) {
			return true
		}
	}
	return c.anyHost
}

// Open makes a sender for a VAPID pair.
func (c *Channel) Open(cred channels.Credential) (channels.Sender, error) {
	var s settings
	if err := json.Unmarshal(cred.Settings, &s); err != nil {
		return nil, fmt.Errorf("webpush: the settings of %v are unreadable: %w", cred, err)
	}
	key, err := parseKey(cred.Secret)
	if err != nil {
		return nil, fmt.Errorf("webpush: the secret of %v %w", cred, err)
	}
	v, err := newVAPID(key, s.Subject, c.now)
	if err != nil {
		return nil, fmt.Errorf("webpush: the secret of %v: %w", cred, err)
	}
	if v.public != s.PublicKey {
		return nil, fmt.Errorf("webpush: the public key of %v does not belong to its secret", cred)
	}
	return &sender{client: c.client, vapid: v, now: c.now}, nil
}

type sender struct {
	client *http.Client
	vapid  *vapid
	now    func() time.Time
}

// Send encrypts the message for this subscription and posts it once.
func (s *sender) Send(ctx context.Context, t channels.Target, p channels.Payload, l channels.Life) channels.Result {
	msg, ok := p.(*payload)
	if !ok {
		return rejected("webpush.bad_payload", "The payload was prepared for another channel.")
	}
	u, err := url.Parse(t.Address)
	if err != nil { // its text may hold the endpoint
		return rejected("webpush.bad_endpoint", "The subscription's endpoint is not a URL.")
	}
	plain := msg.plaintext(l.Delivery)
	pad := padding(len(plain))
	if l.Renewed == channels.RenewPadding {
		pad = 0
	}
	body, err := encrypt(plain, t, pad)
	if err != nil {
		return rejected("webpush.not_encrypted", "The message cannot be encrypted for this subscription; its keys are not valid.")
	}
	to := origin(u)
	auth, err := s.vapid.authorization(to)
	if err != nil {
		return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential,
			Code: "webpush.not_signed", Detail: "The VAPID key cannot sign."}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.Address, bytes.NewReader(body))
	if err != nil {
		return rejected("webpush.bad_endpoint", "The subscription's endpoint cannot be requested.")
	}
	req.Header.Set("Authorization", auth)
	setHeaders(req, msg, l.Remaining(s.now()))
	r := classify(ctx, egress.Exchange(s.client, req, answerBytes), attempt{renewed: l.Renewed, padded: pad > 0, now: s.now()})
	if r.Renew == channels.RenewToken {
		s.vapid.drop(to, auth)
	}
	return r
}

func encrypt(plain []byte, t channels.Target, pad int) ([]byte, error) {
	e, err := newEncryption()
	if err != nil {
		return nil, err
	}
	return e.seal(plain, t.P256dh, t.Auth, pad)
}

// setHeaders adds what RFC 8030 section 5 defines and what a vendor wants of it.
func setHeaders(req *http.Request, msg *payload, ttl time.Duration) {
	h, host := req.Header, strings.ToLower(req.URL.Hostname())
	ttl = min(ttl, MaxTTL)
	if ttl < time.Second && strings.HasSuffix(host, ".push.apple.com") {
		ttl = time.Second // Apple takes no 0
	}
	if ttl < time.Second && strings.HasSuffix(host, ".notify.windows.com") {
		h.Set("X-WNS-Cache-Policy", "no-cache") // with a TTL of 0 WNS refuses to cache
	}
	h.Set("TTL", strconv.FormatInt(int64(ttl/time.Second), 10))
	h.Set("Urgency", string(msg.urgency))
	if msg.topic != "" {
		h.Set("Topic", msg.topic)
	}
	h.Set("Content-Encoding", "aes128gcm")
	h.Set("Content-Type", "application/octet-stream")
}

// Probe only signs: a push service tells nothing about a key without a
// subscription made with it.
func (s *sender) Probe(context.Context) channels.Result {
	if _, err := s.vapid.sign("https://push.example", s.now()); err != nil {
		return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential,
			Code: "webpush.not_signed", Detail: "The VAPID key cannot sign."}
	}
	return channels.Result{Outcome: channels.Accepted, Code: "webpush.not_probed",
		Detail: "The key signs. Whether push services take it shows with the first message."}
}

// Close forgets the tokens and drops idle connections, which the other senders
// open again as they need them.
func (s *sender) Close() {
	s.vapid.clear()
	s.client.CloseIdleConnections()
}
