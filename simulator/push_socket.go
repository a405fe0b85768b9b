package simulator

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// pushMessage is one message as the service holds it.
type pushMessage struct {
	sub     *subscription
	version string // unique; the browser acknowledges by it
	body    []byte
	topic   string
	ttl     int64 // seconds
	expires time.Time
}

// browser is a real one, known by the uaid that it was given.
type browser struct {
	uaid    string
	mu      sync.Mutex
	conn    *websocket.Conn // nil while it is away
	waiting []*pushMessage  // not acknowledged yet, oldest first
}

// frame is a message of Mozilla's push protocol, either way.
type frame struct {
	Type       string          `json:"messageType,omitempty"`
	Status     int             `json:"status,omitempty"`
	UAID       string          `json:"uaid,omitempty"`
	UseWebPush bool            `json:"use_webpush,omitempty"`
	Broadcasts json.RawMessage `json:"broadcasts,omitempty"`
	ChannelID  string          `json:"channelID,omitempty"`
	Key        string          `json:"key,omitempty"`
	Endpoint   string          `json:"pushEndpoint,omitempty"`
	Version    string          `json:"version,omitempty"`
	Data       string          `json:"data,omitempty"`
	Headers    *frameHeaders   `json:"headers,omitempty"`
	Code       int             `json:"code,omitempty"`
	Updates    []frame         `json:"updates,omitempty"`
}

type frameHeaders struct {
	Encoding string `json:"encoding"`
}

// What a browser says about a notification.
const (
	ackDelivered     = 100
	ackUndecryptable = 101
)

const (
	maxFrame     = 64 << 10
	writeTimeout = 10 * time.Second
)

// serveSocket talks to one browser until it or the simulator goes away.
func (p *pushService) serveSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"push-notification"},
		OriginPatterns: []string{"*"}})
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(maxFrame)
	counts := &p.core.rec.browser
	counts.connected.Add(1)
	p.core.rec.signal()
	var b *browser
	for {
		_, text, err := conn.Read(p.core.ctx)
		if err != nil {
			break
		}
		var f frame
		if json.Unmarshal(text, &f) != nil {
			break
		}
		if f.Type == "hello" {
			b = p.hello(conn, f.UAID)
			continue
		}
		p.handle(conn, b, f)
	}
	b.away(conn)
	counts.connected.Add(-1)
	p.core.rec.signal()
}

func (p *pushService) hello(conn *websocket.Conn, uaid string) *browser {
	p.mu.Lock()
	b := p.browsers[uaid]
	if b == nil {
		b = &browser{uaid: rand.Text()}
		p.browsers[b.uaid] = b
	}
	p.mu.Unlock()
	send(p.core.ctx, conn, frame{Type: "hello", Status: http.StatusOK, UAID: b.uaid, UseWebPush: true,
		Broadcasts: json.RawMessage("{}")})
	b.mu.Lock()
	b.conn = conn
	now := p.core.now()
	b.waiting = slices.DeleteFunc(b.waiting, func(m *pushMessage) bool { return m.expires.Before(now) })
	waiting := slices.Clone(b.waiting)
	b.mu.Unlock()
	for _, m := range waiting {
		send(p.core.ctx, conn, m.frame())
	}
	return b
}

// handle answers what may follow the hello.
func (p *pushService) handle(conn *websocket.Conn, b *browser, f frame) {
	switch {
	case f.Type == "": // ping
		send(p.core.ctx, conn, struct{}{})
	case b == nil: // nothing may come before the hello
		conn.CloseNow()
	case f.Type == "register":
		key, err := decodeVAPIDKey(f.Key)
		if err != nil {
			send(p.core.ctx, conn, frame{Type: f.Type, ChannelID: f.ChannelID, Status: http.StatusBadRequest})
			return
		}
		sub := &subscription{id: rand.Text(), vapid: key, browser: b, channel: f.ChannelID}
		p.subs.Store(sub.id, sub)
		send(p.core.ctx, conn, frame{Type: f.Type, ChannelID: f.ChannelID, Status: http.StatusOK, Endpoint: p.endpoint(sub)})
	case f.Type == "unregister":
		p.end(b, func(sub *subscription) bool { return sub.channel == f.ChannelID })
		send(p.core.ctx, conn, frame{Type: f.Type, ChannelID: f.ChannelID, Status: http.StatusOK})
	case f.Type == "ack":
		for _, u := range f.Updates {
			p.acknowledge(b, u.Version, u.Code)
		}
	case f.Type == "nack":
		p.core.rec.browser.failed.Add(1)
		p.core.rec.signal()
	}
}

func (p *pushService) acknowledge(b *browser, version string, code int) {
	b.mu.Lock()
	b.waiting = slices.DeleteFunc(b.waiting, func(m *pushMessage) bool { return m.version == version })
	b.mu.Unlock()
	counts := &p.core.rec.browser
	switch code {
	case ackDelivered:
		counts.delivered.Add(1)
	case ackUndecryptable:
		counts.undecryptable.Add(1)
	default:
		counts.failed.Add(1)
	}
	p.core.rec.signal()
}

// end ends a browser's subscriptions.
func (p *pushService) end(b *browser, which func(*subscription) bool) {
	p.subs.Range(func(_, v any) bool {
		if sub := v.(*subscription); sub.browser == b && which(sub) {
			sub.ended.Store(true)
		}
		return true
	})
}

// deliver hands a message over, or keeps it for the next hello. A message with
// TTL 0 is for now or never; one with a topic takes the place of those before.
func (b *browser) deliver(c *core, m *pushMessage) {
	b.mu.Lock()
	conn := b.conn
	if m.topic != "" {
		b.waiting = slices.DeleteFunc(b.waiting, func(o *pushMessage) bool { return o.sub == m.sub && o.topic == m.topic })
	}
	if conn != nil || m.ttl > 0 {
		b.waiting = append(b.waiting, m)
	}
	b.mu.Unlock()
	if conn != nil {
		send(c.ctx, conn, m.frame())
	}
}

func (b *browser) away(conn *websocket.Conn) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn == conn {
		b.conn = nil
	}
}

func (m *pushMessage) frame() frame {
	f := frame{Type: "notification", ChannelID: m.sub.channel, Version: m.version}
	if len(m.body) > 0 {
		f.Data, f.Headers = base64.RawURLEncoding.EncodeToString(m.body), &frameHeaders{Encoding: "aes128gcm"}
	}
	return f
}

// send ignores a browser that is gone: its reader notices, and messages wait
// until they are acknowledged.
func send(ctx context.Context, conn *websocket.Conn, v any) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	text, _ := json.Marshal(v) // frames always encode
	_ = conn.Write(ctx, websocket.MessageText, text)
}

// Disconnect drops the connections of all browsers. They come back by themselves.
func (a PushAccess) Disconnect() {
	for _, b := range a.service.everyBrowser() {
		b.hangUp()
	}
}

// Forget makes the service lose all browsers: their endpoints answer 410, their
// connections are dropped, and at the next hello each drops its subscriptions
// and fires pushsubscriptionchange.
func (a PushAccess) Forget() {
	for _, b := range a.service.everyBrowser() {
		a.service.end(b, func(*subscription) bool { return true })
		a.service.mu.Lock()
		delete(a.service.browsers, b.uaid)
		a.service.mu.Unlock()
		b.hangUp() // last, so that the next hello finds nothing
	}
}

func (b *browser) hangUp() {
	b.mu.Lock()
	conn := b.conn
	b.mu.Unlock()
	if conn != nil {
		conn.CloseNow()
	}
}

func (p *pushService) everyBrowser() []*browser {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]*browser, 0, len(p.browsers))
	for _, b := range p.browsers {
		out = append(out, b)
	}
	return out
}
