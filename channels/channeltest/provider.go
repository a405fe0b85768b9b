package channeltest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
)

// patience bounds every wait of the suite, so that a fault fails a test
// instead of hanging it.
const patience = 20 * time.Second

// Provider is a provider's server under the suite's control.
type Provider struct {
	URL   string         // https://127.0.0.1:port
	Roots *x509.CertPool // what a client must trust

	mu       sync.Mutex
	requests []Request
	open     int           // connections
	changed  chan struct{} // closed and replaced when open changes
}

// Request is what arrived.
type Request struct {
	Method string
	URL    string // path and query
	Proto  string
	Header http.Header
	Body   []byte
}

type connKey struct{}

// serve starts a provider that records each request and then calls answer.
func serve(t testing.TB, http1 bool, answer http.HandlerFunc) *Provider {
	p := &Provider{changed: make(chan struct{})}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		p.record(Request{Method: r.Method, URL: r.URL.RequestURI(), Proto: r.Proto, Header: r.Header.Clone(), Body: body})
		r.Body = io.NopCloser(bytes.NewReader(body))
		answer(w, r)
	}))
	s.EnableHTTP2 = !http1
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		switch st {
		case http.StateNew:
			p.count(1)
		case http.StateClosed, http.StateHijacked:
			p.count(-1)
		}
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	p.trust(s)
	p.URL = s.URL
	return p
}

func (p *Provider) trust(s *httptest.Server) {
	p.Roots = x509.NewCertPool()
	p.Roots.AddCert(s.Certificate())
}

func (p *Provider) record(r Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, r)
}

// Requests are those that arrived so far.
func (p *Provider) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]Request(nil), p.requests...)
}

func (p *Provider) count(d int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open += d
	close(p.changed)
	p.changed = make(chan struct{})
}

// awaitClosed waits until no connection is open.
func (p *Provider) awaitClosed(t testing.TB) {
	deadline := time.After(patience)
	for {
		p.mu.Lock()
		open, changed := p.open, p.changed
		p.mu.Unlock()
		if open == 0 {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			require.Zero(t, open, "connections are open after Close")
		}
	}
}

// kill ends the connection of a request below TLS: with a reset, or as if the
// process had ended in good order.
func kill(r *http.Request, reset bool) {
	c := r.Context().Value(connKey{}).(*tls.Conn).NetConn()
	if tcp, ok := c.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// serveGoAway speaks HTTP/2 by hand: it reads one request and answers with a
// GOAWAY frame that does not say the request was left alone.
func serveGoAway(t testing.TB) *Provider {
	p := &Provider{changed: make(chan struct{})}
	s := httptest.NewUnstartedServer(nil)
	s.EnableHTTP2 = true
	s.StartTLS() // only for its certificate
	t.Cleanup(s.Close)
	p.trust(s)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{http2.NextProtoTLS}})
	require.NoError(t, err)
	p.URL = "https://" + l.Addr().String()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); p.goAway(c) })
		}
	})
	return p
}

func (p *Provider) goAway(c net.Conn) {
	f := http2.NewFramer(c, c)
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil || f.WriteSettings() != nil {
		return
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		flags := frame.Header().Flags
		switch fr := frame.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.PingFrame:
			_ = f.WritePing(true, fr.Data)
		case *http2.HeadersFrame, *http2.DataFrame:
			if flags.Has(http2.FlagDataEndStream) { // the same bit for both
				p.record(Request{Proto: "HTTP/2.0"})
				_ = f.WriteGoAway(frame.Header().StreamID, http2.ErrCodeInternal, []byte("bye"))
				return
			}
		}
	}
}
