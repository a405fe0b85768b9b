package webpush

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

// browser is the other end of the encryption: a subscription with its keys.
type browser struct {
	key  *ecdh.PrivateKey
	auth []byte
}

func newBrowser(t testing.TB) browser {
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	require.NoError(t, err)
	auth := make([]byte, authSize)
	_, _ = rand.Read(auth)
	return browser{key: key, auth: auth}
}

func (b browser) target(endpoint string) channels.Target {
	return channels.Target{Kind: channels.Subscription, Address: endpoint, P256dh: b.key.PublicKey().Bytes(), Auth: b.auth}
}

var errBody = errors.New("not an aes128gcm body for this browser")

// decrypt reads a body as a browser does, and tells how much padding it had.
func (b browser) decrypt(body []byte) (plain []byte, pad int, err error) {
	if len(body) < headerSize || body[saltSize+4] != pointSize {
		return nil, 0, errBody
	}
	as := body[saltSize+5 : headerSize]
	record := body[headerSize:]
	if uint64(len(record)) > uint64(binary.BigEndian.Uint32(body[saltSize:])) {
		return nil, 0, errBody // more than one record
	}
	server, err := ecdh.P256().NewPublicKey(as)
	if err != nil {
		return nil, 0, errBody
	}
	secret, err := b.key.ECDH(server)
	if err != nil {
		return nil, 0, errBody
	}
	gcm, nonce, err := recordCipher(keyInput{secret: secret, auth: b.auth, ua: b.key.PublicKey().Bytes(), as: as, salt: body[:saltSize]})
	if err != nil {
		return nil, 0, err
	}
	opened, err := gcm.Open(nil, nonce, record, nil)
	if err != nil {
		return nil, 0, errBody
	}
	end := len(opened) - 1
	for end >= 0 && opened[end] == 0 {
		end--
	}
	if end < 0 || opened[end] != 2 {
		return nil, 0, errBody
	}
	return opened[:end], len(opened) - end - 1, nil
}

// service is a push service on loopback: TLS, HTTP/2, and an answer per request.
type service struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   [][]byte
	answer   http.HandlerFunc
}

func newService(t testing.TB, answer http.HandlerFunc) *service {
	s := &service{answer: answer}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.requests, s.bodies = append(s.requests, r), append(s.bodies, body)
		s.mu.Unlock()
		s.answer(w, r)
	}))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // connections that end early are part of the tests
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// last is the newest request and its body.
func (s *service) last() (*http.Request, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[len(s.requests)-1], s.bodies[len(s.bodies)-1]
}

// options let a channel reach the service although it is on loopback.
func (s *service) options() Options {
	pool := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return Options{
		AnyHost: true,
		Rules:   egress.Rules{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AnyPort: true},
		Limits:  egress.Limits{RootCAs: pool, Timeout: 10 * time.Second},
	}
}

func created(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", "https://push.example/m/1")
	w.WriteHeader(http.StatusCreated)
}

func newCredential(t testing.TB, c *Channel) channels.Credential {
	cred, err := c.ParseCredential([]byte(`{"subject":"mailto:ops@example.com","generate":true}`), nil)
	require.NoError(t, err)
	return cred
}

func open(t testing.TB, c *Channel) *sender {
	s, err := c.Open(newCredential(t, c))
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s.(*sender)
}

func prepare(t testing.TB, m channels.Message) channels.Payload {
	p, err := (&Channel{}).Prepare(m)
	require.NoError(t, err)
	return p
}

const deliveryID = "dlv_0d1kq3w8r000c0d1kq3w8r000d"

func life(now time.Time) channels.Life {
	return channels.Life{Delivery: deliveryID, Notification: "ntf_0d1kq3w8r000c", Attempt: 1, ExpiresAt: now.Add(time.Hour)}
}

func unb64(t testing.TB, s string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	require.NoError(t, err)
	return b
}

func object(t testing.TB, raw []byte) map[string]any {
	var m map[string]any
	require.NoError(t, json.Unmarshal(raw, &m), "%s", raw)
	return m
}

// send makes one attempt on a service that gives this answer.
func send(t testing.TB, status int, header map[string]string, body string, l channels.Life) channels.Result {
	svc := newService(t, func(w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
	s := open(t, New(svc.options()))
	return s.Send(context.Background(), newBrowser(t).target(svc.URL+"/push/abc"), prepare(t, channels.Message{Title: "Hi"}), l)
}
