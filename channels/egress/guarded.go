package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

// Limits bound what one exchange through Guarded may cost.
type Limits struct {
	Timeout      time.Duration  // the whole exchange, body included; default 20 s
	ConnsPerHost int            // requests wait for one beyond these, in their own time; 0: none waits
	RootCAs      *x509.CertPool // nil: the system's
	BodyBytes    int64          // an answer's body ends here; default 64 KiB
	BodyTime     time.Duration  // and so long after the headers; 0: as for every exchange
	IdleTime     time.Duration  // a connection that is not used is closed; default 90 s
	Fresh        bool           // every request has a connection of its own
}

const (
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	idleTime         = 90 * time.Second
	maxIdleConns     = 4096 // over all hosts
	idlePerHost      = 64
	// A dead HTTP/2 connection shows itself within 45 s instead of hanging each
	// request until its deadline, and one that takes nothing, within 5 s.
	readIdleTimeout  = 30 * time.Second
	pingTimeout      = 15 * time.Second
	writeByteTimeout = 5 * time.Second
)

// MaxHeaderBytes is how many bytes of headers are read, interim answers included.
// More is ErrHeaders: the status is not known then, though the host has acted, so it is
// more than any host in its right mind sends.
const MaxHeaderBytes = 256 << 10

// Guarded is the client for hosts that tenants or devices choose. The address
// is checked on every dial, after the name was resolved. It follows no
// redirects, uses no proxy and speaks HTTP/2 where the host does. Refusals are
// ErrRefused; a name that leads to a refused address is as one that does not exist.
func Guarded(r Rules, l Limits) *http.Client { return guarded(r, l, nil) }

func guarded(r Rules, l Limits, resolver *net.Resolver) *http.Client {
	if l.Timeout <= 0 {
		l.Timeout = 20 * time.Second
	}
	if l.BodyBytes <= 0 {
		l.BodyBytes = 64 << 10
	}
	if l.IdleTime <= 0 {
		l.IdleTime = idleTime
	}
	// A dial belongs to no request, and may outlive the one that it began for.
	dialer := &net.Dialer{Timeout: min(dialTimeout, l.Timeout), KeepAlive: 30 * time.Second, Resolver: resolver,
		ControlContext: func(_ context.Context, network, address string, _ syscall.RawConn) error {
			return r.checkDial(network, address)
		}}
	t := &http.Transport{
		Proxy:                  nil, // a proxy would dial in our place, past the check
		DialContext:            dialBounded(discreet(dialer.DialContext), l.Timeout+cutAfter+l.IdleTime),
		TLSClientConfig:        &tls.Config{RootCAs: l.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    min(handshakeTimeout, l.Timeout),
		MaxResponseHeaderBytes: MaxHeaderBytes,
		MaxConnsPerHost:        l.ConnsPerHost,
		MaxIdleConnsPerHost:    idlePerHost,
		MaxIdleConns:           maxIdleConns,
		IdleConnTimeout:        l.IdleTime,
		DisableKeepAlives:      l.Fresh,
		DisableCompression:     true, // a small body could unpack to a huge one
	}
	// x/net's HTTP/2 and not the copy within net/http: only its GoAwayError can
	// be told apart, and it finds dead connections. It dials through t, so
	// through the check. An error would mean that t speaks HTTP/2 already.
	if h2, err := http2.ConfigureTransports(t); err == nil {
		h2.ReadIdleTimeout, h2.PingTimeout, h2.WriteByteTimeout = readIdleTimeout, pingTimeout, writeByteTimeout
		h2.MaxHeaderListSize = MaxHeaderBytes
	}
	return &http.Client{
		Timeout:       l.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport:     &guardedTransport{rules: r, bodyBytes: l.BodyBytes, bodyTime: l.BodyTime, Transport: t},
	}
}

// discreet makes a name that leads inside look like one that does not exist: whoever
// may choose a name must not learn which there are in the operator's network. As with
// an absent one, it may lead elsewhere the next time.
func discreet(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if errors.Is(err, errInside) {
			host, _, _ := net.SplitHostPort(address)
			if _, literal := netip.ParseAddr(host); literal != nil {
				return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
			}
		}
		return c, err
	}
}

// guardedTransport adds what a dialler cannot see: the scheme, and how much of what
// comes back is read, and how long.
type guardedTransport struct {
	*http.Transport
	rules     Rules
	bodyBytes int64
	bodyTime  time.Duration
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
	b := &limitedBody{Reader: io.LimitReader(res.Body, t.bodyBytes), body: res.Body}
	if t.bodyTime > 0 {
		b.timer = time.AfterFunc(t.bodyTime, func() { _ = b.body.Close() })
	}
	res.Body = b
	return res, nil
}

// limitedBody is closed early when its time is over.
type limitedBody struct {
	io.Reader
	body  io.Closer
	timer *time.Timer // nil: it has as long as every exchange
}

func (b *limitedBody) Close() error {
	if b.timer != nil {
		b.timer.Stop()
	}
	return b.body.Close()
}
