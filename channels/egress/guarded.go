package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

// Limits bound what one exchange through Guarded may cost.
type Limits struct {
	Timeout      time.Duration  // the whole exchange, body included; default 20 s
	ConnsPerHost int            // a host that hangs holds no more than these; default 64
	RootCAs      *x509.CertPool // nil: the system's
	BodyBytes    int64          // an answer's body ends here; default 64 KiB
}

const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	maxHeaderBytes   = 32 << 10
	maxIdleConns     = 4096 // over all hosts
	// A dead HTTP/2 connection shows itself within 45 s instead of hanging each
	// request until its deadline.
	readIdleTimeout = 30 * time.Second
	pingTimeout     = 15 * time.Second
)

// Guarded is the client for hosts that tenants or devices choose. The address
// is checked on every dial, after the name was resolved. It follows no
// redirects, uses no proxy and speaks HTTP/2 where the host does. Refusals are
// ErrRefused.
func Guarded(r Rules, l Limits) *http.Client { return guarded(r, l, nil) }

func guarded(r Rules, l Limits, resolver *net.Resolver) *http.Client {
	if l.Timeout <= 0 {
		l.Timeout = 20 * time.Second
	}
	if l.ConnsPerHost <= 0 {
		l.ConnsPerHost = 64
	}
	if l.BodyBytes <= 0 {
		l.BodyBytes = 64 << 10
	}
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second, Resolver: resolver,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return r.checkDial(network, address)
		}}
	t := &http.Transport{
		Proxy:                  nil, // a proxy would dial in our place, past the check
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: l.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    handshakeTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		MaxConnsPerHost:        l.ConnsPerHost,
		MaxIdleConnsPerHost:    l.ConnsPerHost,
		MaxIdleConns:           maxIdleConns,
		IdleConnTimeout:        90 * time.Second,
		DisableCompression:     true, // a small body could unpack to a huge one
	}
	// x/net's HTTP/2 and not the copy within net/http: only its GoAwayError can
	// be told apart, and it finds dead connections. It dials through t, so
	// through the check. An error would mean that t speaks HTTP/2 already.
	if h2, err := http2.ConfigureTransports(t); err == nil {
		h2.ReadIdleTimeout, h2.PingTimeout = readIdleTimeout, pingTimeout
	}
	return &http.Client{
		Timeout:       l.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &guardedTransport{rules: r, bodyBytes: l.BodyBytes, Transport: t},
	}
}

// guardedTransport adds what a dialler cannot see: the scheme, and the size of
// what comes back.
type guardedTransport struct {
	*http.Transport
	rules     Rules
	bodyBytes int64
}

func (t *guardedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !(req.URL.Scheme == "http" && t.rules.AllowHTTP) {
		if req.Body != nil {
			_ = req.Body.Close()
		}
		return nil, fmt.Errorf("%w: scheme %q", ErrRefused, req.URL.Scheme)
	}
	res, err := t.Transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	res.Body = &limitedBody{Reader: io.LimitReader(res.Body, t.bodyBytes), Closer: res.Body}
	return res, nil
}

type limitedBody struct {
	io.Reader
	io.Closer
}
