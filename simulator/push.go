package simulator

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	pushPath   = "/wpush/"
	socketPath = "/push"
	pushLimit  = 4096 // bytes of a body
)

// pushService is a web push service (RFC 8030) that holds the private keys of
// the subscriptions that it made, and hands the rest to browsers.
type pushService struct {
	core     *core
	plain    string
	overTLS  string
	blind    bool
	subs     sync.Map // id -> *subscription
	proven   proven[*vapidToken]
	mu       sync.Mutex
	browsers map[string]*browser // by uaid
}

// subscription is one endpoint.
type subscription struct {
	id    string
	vapid []byte // 65 octets; nil: not bound to a key
	ended atomic.Bool
	// With a private key the simulator is the browser.
	private *ecdh.PrivateKey
	auth    []byte
	// Otherwise a real browser is.
	browser *browser
	channel string
}

// Subscription has the form of PushSubscription.toJSON() in a browser.
type Subscription struct {
	Endpoint string           `json:"endpoint"`
	Keys     SubscriptionKeys `json:"keys"`
}

// SubscriptionKeys are base64url without padding.
type SubscriptionKeys struct {
	P256dh string `json:"p256dh"` // 65 octets
	Auth   string `json:"auth"`   // 16 octets
}

// PushAccess makes and ends subscriptions.
type PushAccess struct {
	URL       string // base of the endpoints
	TLSURL    string // the same with TLS and HTTP/2; its host may stand in for URL's in an endpoint
	SocketURL string // for Firefox's dom.push.serverURL

	service *pushService
}

// Push tells how to use the simulated push service.
func (s *Simulator) Push() PushAccess {
	return PushAccess{URL: s.push.plain, TLSURL: s.push.overTLS,
		SocketURL: "ws" + strings.TrimPrefix(s.push.plain, "http") + socketPath, service: s.push}
}

// NewSubscription subscribes as a browser would. vapidPublicKey is the
// applicationServerKey in base64url, "" for a subscription that any server may
// use. Append "/" + Token(WebPush, ...) to the endpoint for a fault.
func (a PushAccess) NewSubscription(vapidPublicKey string) (Subscription, error) {
	key, err := decodeVAPIDKey(vapidPublicKey)
	if err != nil {
		return Subscription{}, err
	}
	private, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		return Subscription{}, fmt.Errorf("making the keys of a subscription: %w", err)
	}
	sub := &subscription{id: rand.Text(), vapid: key, private: private, auth: make([]byte, authLength)}
	rand.Read(sub.auth)
	a.service.subs.Store(sub.id, sub)
	return Subscription{Endpoint: a.service.endpoint(sub), Keys: SubscriptionKeys{
		P256dh: base64.RawURLEncoding.EncodeToString(private.PublicKey().Bytes()),
		Auth:   base64.RawURLEncoding.EncodeToString(sub.auth)}}, nil
}

// Expire ends a subscription: its endpoint answers 410 from now on. It is false
// for an endpoint that was never there.
func (a PushAccess) Expire(endpoint string) bool {
	sub := a.service.find(canonicalTarget(endpoint))
	if sub == nil {
		return false
	}
	sub.ended.Store(true)
	return true
}

func (p *pushService) endpoint(sub *subscription) string { return p.plain + pushPath + sub.id }

// find looks up the subscription of a target, which may have a fault after its id.
func (p *pushService) find(target string) *subscription {
	id, _, _ := strings.Cut(target, "/")
	if v, ok := p.subs.Load(id); ok {
		return v.(*subscription)
	}
	return nil
}

func decodeVAPIDKey(text string) ([]byte, error) {
	if text == "" {
		return nil, nil
	}
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(text, "="))
	if err != nil {
		return nil, fmt.Errorf("the VAPID public key is not base64url: %w", err)
	}
	if _, err := ecdh.P256().NewPublicKey(key); err != nil {
		return nil, fmt.Errorf("the VAPID public key is not a point of P-256 in 65 octets: %w", err)
	}
	return key, nil
}

func newPushService(c *core, plain, overTLS string, blind bool) *pushService {
	return &pushService{core: c, plain: plain, overTLS: overTLS, blind: blind, browsers: map[string]*browser{}}
}

// serve is POST /wpush/{id}[/sim-...].
func (p *pushService) serve(at *port, w http.ResponseWriter, r *http.Request) {
	x := &exchange{channel: WebPush, target: strings.TrimPrefix(r.URL.Path, pushPath), refuse: refusePush}
	m := &pushMessage{version: rand.Text()}
	x.answer = p.judge(x, r, m, at.tls)
	if x.answer.accepted {
		message := at.url() + "/wmessage/" + m.version
		x.answer.header = append(x.answer.header, [2]string{"Location", message}, [2]string{"Ttl", strconv.FormatInt(m.ttl, 10)})
		x.after = func(got answer) {
			if got.accepted && m.sub.browser != nil {
				m.sub.browser.deliver(p.core, m)
			}
		}
	}
	p.core.respond(at, w, r, x)
}

func (p *pushService) judge(x *exchange, r *http.Request, m *pushMessage, overTLS bool) answer {
	if r.Method != http.MethodPost {
		return pushError(http.StatusMethodNotAllowed, "", "Use POST.")
	}
	body, err := readBody(r, pushLimit)
	if err != nil {
		return pushError(http.StatusBadRequest, "", "The body could not be read.")
	}
	if len(body) > pushLimit {
		return pushError(http.StatusRequestEntityTooLarge, "", "More than 4096 bytes.")
	}
	sub := p.find(x.target)
	switch {
	case sub == nil:
		return pushError(http.StatusNotFound, "", "No such subscription.")
	case sub.ended.Load():
		return pushError(http.StatusGone, "", "The subscription has unsubscribed or expired.")
	}
	scheme := "http://"
	if overTLS {
		scheme = "https://"
	}
	key, refused, bad := p.authorize(sub, r.Header, scheme+r.Host)
	if bad {
		return refused
	}
	if refused, bad = checkPushHeaders(r.Header, m, len(body)); bad {
		return refused
	}
	if detail := checkRecord(body, key); detail != "" {
		return pushError(http.StatusBadRequest, "", detail)
	}
	m.sub, m.body, m.expires = sub, body, p.core.now().Add(time.Duration(m.ttl)*time.Second)
	if _, fault, ok := strings.Cut(x.target, "/"); ok {
		x.askFor(fault)
	}
	done := answer{status: http.StatusCreated, accepted: true}
	if sub.private == nil || p.blind || len(body) == 0 {
		return done
	}
	// A push service cannot see that a message will not decrypt, so the answer is
	// the same; the report tells.
	if x.payload, err = decrypt(body, sub.private, sub.auth); err != nil {
		done.reason, done.detail = "undecryptable", err.Error()
	}
	x.delivery = deliveryOf(x.payload)
	return done
}
