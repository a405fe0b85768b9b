package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/http2"
)

// ProviderOptions configure Provider.
type ProviderOptions struct {
	RootCAs *x509.CertPool // nil: the system's
	Conns   int            // HTTP/2 connections per host at most; default 2
}

// ProviderTransport keeps few HTTP/2 connections per host busy. It is an
// http.RoundTripper; Do makes it fit Exchange without an http.Client, which
// would follow redirects. It is safe for concurrent use.
//
// A request waits, until its context ends, while every connection has as many
// streams open as the host allows. Only requests that the host says it never
// looked at are sent again (refused streams, GOAWAY).
type ProviderTransport struct {
	pool  *pool
	h2    *http2.Transport
	plain *http.Transport
}

// Provider makes a transport for hosts that are constants of this program.
// Over TLS it insists on HTTP/2; http:// URLs, for a simulator, use HTTP/1.1.
func Provider(o ProviderOptions) *ProviderTransport {
	if o.Conns <= 0 {
		o.Conns = 2
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	t := &ProviderTransport{plain: &http.Transport{
		DialContext:            dialer.DialContext,
		MaxConnsPerHost:        256, // HTTP/1.1: one request at a time each
		MaxIdleConnsPerHost:    256,
		MaxResponseHeaderBytes: MaxHeaderBytes,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true,
	}}
	t.h2 = &http2.Transport{
		ReadIdleTimeout:    readIdleTimeout,
		PingTimeout:        pingTimeout,
		IdleConnTimeout:    10 * time.Minute,
		MaxHeaderListSize:  MaxHeaderBytes,
		DisableCompression: true,
	}
	config := &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12,
		NextProtos: []string{http2.NextProtoTLS}, ClientSessionCache: tls.NewLRUClientSessionCache(16)}
	secure := &tls.Dialer{NetDialer: dialer, Config: config}
	t.pool = newPool(o.Conns, func(ctx context.Context, addr string) (*http2.ClientConn, error) {
		return dialHTTP2(ctx, secure, t.h2, addr)
	})
	t.h2.ConnPool = t.pool
	return t
}

func dialHTTP2(ctx context.Context, d *tls.Dialer, t *http2.Transport, addr string) (*http2.ClientConn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout+handshakeTimeout)
	defer cancel()
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if p := c.(*tls.Conn).ConnectionState().NegotiatedProtocol; p != http2.NextProtoTLS {
		_ = c.Close()
		return nil, fmt.Errorf("egress: the host does not speak HTTP/2 (ALPN %q)", p)
	}
	return t.NewClientConn(Coalesce(c))
}

// RoundTrip sends one request.
func (t *ProviderTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme == "http" {
		return t.plain.RoundTrip(req)
	}
	res, err := t.h2.RoundTrip(req)
	if err != nil {
		t.pool.released(req.URL.Host)
		return nil, err
	}
	res.Body = &releasingBody{ReadCloser: res.Body, pool: t.pool, host: req.URL.Host}
	return res, nil
}

// Do is RoundTrip: no redirects, no cookies.
func (t *ProviderTransport) Do(req *http.Request) (*http.Response, error) { return t.RoundTrip(req) }

// CloseIdleConnections closes connections without requests, and the others as
// soon as theirs have ended.
func (t *ProviderTransport) CloseIdleConnections() {
	t.plain.CloseIdleConnections()
	t.pool.closeAll()
}

// releasingBody tells the pool when a stream has ended.
type releasingBody struct {
	io.ReadCloser
	pool *pool
	host string
}

func (b *releasingBody) Close() error {
	err := b.ReadCloser.Close() // returns when the stream is gone
	b.pool.released(b.host)
	return err
}

var _ http.RoundTripper = (*ProviderTransport)(nil)
