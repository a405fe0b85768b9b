package apns

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/carillonhq/carillon/channels"
)

const (
	testToken    = "00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0"
	testDelivery = "dlv_0d1kq3w8r000c0d1kq3w8r000d"
	testUUID     = "123e4567-e89b-42d3-a456-426655440000"
)

// request is what a fake APNs saw.
type request struct {
	path, body string
	header     http.Header
}

// fakeAPNs is an HTTP/2 server over TLS.
type fakeAPNs struct {
	*httptest.Server
	mu       sync.Mutex
	requests []request
	dialled  int
}

func serve(t testing.TB, h http.HandlerFunc) *fakeAPNs {
	f := &fakeAPNs{}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.mu.Lock()
		f.requests = append(f.requests, request{r.URL.Path, string(body), r.Header.Clone()})
		f.mu.Unlock()
		h(w, r)
	}))
	f.EnableHTTP2 = true
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			f.mu.Lock()
			f.dialled++
			f.mu.Unlock()
		}
	}
	f.StartTLS()
	t.Cleanup(f.Close)
	return f
}

func (f *fakeAPNs) seen() []request {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]request(nil), f.requests...)
}

func (f *fakeAPNs) conns() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dialled
}

func (f *fakeAPNs) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(f.Certificate())
	return p
}

// answer makes a handler that always says the same.
func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("apns-id", r.Header.Get("apns-id"))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Unix(1_800_000_000, 0)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newKey(t testing.TB) string {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return encodePKCS8(t, key)
}

func encodePKCS8(t testing.TB, key any) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func credentialJSON(t testing.TB, changes map[string]any) []byte {
	m := map[string]any{"key": newKey(t), "key_id": "ABC123DEFG", "team_id": "DEF123GHIJ", "topics": []string{"com.example.app"}}
	maps.Copy(m, changes)
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return b
}

// open makes a channel for the servers and a sender with a new key on it.
func open(t testing.TB, o Options, environment string) (*Channel, channels.Sender) {
	c := New(o)
	cred, err := c.ParseCredential(credentialJSON(t, map[string]any{"environment": environment}), nil)
	require.NoError(t, err)
	s, err := c.Open(cred)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return c, s
}

func openAt(t testing.TB, f *fakeAPNs) channels.Sender {
	_, s := open(t, Options{ProductionURL: f.URL, SandboxURL: f.URL, RootCAs: f.pool()}, "")
	return s
}

func prepare(t testing.TB, m channels.Message) channels.Payload {
	p, err := (&Channel{}).Prepare(m)
	require.NoError(t, err)
	return p
}

func hello(t testing.TB) channels.Payload { return prepare(t, channels.Message{Title: "hello"}) }

func device() channels.Target {
	return channels.Target{Kind: channels.APNsToken, Address: testToken, Environment: channels.Production}
}

func life() channels.Life {
	return channels.Life{Delivery: testDelivery, UUID: testUUID, Attempt: 1, ExpiresAt: time.Now().Add(time.Hour)}
}

func send(t testing.TB, s channels.Sender) channels.Result {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return s.Send(ctx, device(), hello(t), life())
}

// rawAPNs speaks HTTP/2 frames by hand, for what net/http's server cannot be
// made to do. handle gets each connection after the preface; the server's
// SETTINGS are its to send.
func rawAPNs(t *testing.T, handle func(n int, f *http2.Framer)) *fakeAPNs {
	f := &fakeAPNs{Server: httptest.NewUnstartedServer(nil)}
	f.EnableHTTP2 = true
	f.StartTLS() // for its certificate
	t.Cleanup(f.Close)
	config := &tls.Config{Certificates: f.TLS.Certificates, NextProtos: []string{http2.NextProtoTLS}}
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	require.NoError(t, err)
	f.URL = "https://" + l.Addr().String()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for n := 1; ; n++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.dialled++
			f.mu.Unlock()
			wg.Go(func() {
				defer conn.Close()
				if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err == nil {
					handle(n, http2.NewFramer(conn, conn))
				}
			})
		}
	})
	return f
}

// await reads frames until one of the wanted type; nil when the connection ended.
func await(f *http2.Framer, want http2.FrameType) http2.Frame {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return nil
		}
		if p, ok := frame.(*http2.PingFrame); ok && !p.IsAck() {
			_ = f.WritePing(true, p.Data)
		}
		if frame.Header().Type == want {
			return frame
		}
	}
}

// ok200 is ":status: 200" in HPACK's static table.
func ok200(f *http2.Framer, stream uint32) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
}
