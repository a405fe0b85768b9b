package apns

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sideshow/apns2"
	"golang.org/x/net/http2"

	"github.com/carillonhq/carillon/channels/egress"
)

const (
	answerBytes = 64 << 10
	dialTimeout = 10 * time.Second // TCP and TLS together
	sendTimeout = 25 * time.Second // where the caller sets no deadline
)

// host is one APNs environment's address and how to connect to it.
type host struct {
	base string // scheme and authority, no slash at the end
	// dial connects, and presents a certificate unless it is nil.
	dial func(context.Context, *tls.Certificate) (*http2.ClientConn, error)
}

// newHost prepares connections to base. https:// is what Apple speaks; http://
// is HTTP/2 in clear text, for a simulator.
func newHost(base string, config *tls.Config) (host, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return host{}, fmt.Errorf("apns: %q is not an http(s) URL", base)
	}
	address := u.Host
	if u.Port() == "" {
		address = net.JoinHostPort(u.Hostname(), map[string]string{"https": "443", "http": "80"}[u.Scheme])
	}
	config = config.Clone()
	config.ServerName, config.NextProtos = u.Hostname(), []string{http2.NextProtoTLS}
	transport := &http2.Transport{
		// A connection that died without a word is closed after 25 s.
		ReadIdleTimeout: 15 * time.Second, PingTimeout: 10 * time.Second,
		MaxHeaderListSize:  egress.MaxHeaderBytes,
		DisableCompression: true,
	}
	dialer := &net.Dialer{KeepAlive: 15 * time.Second}
	dial := func(ctx context.Context, certificate *tls.Certificate) (*http2.ClientConn, error) {
		ctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		if u.Scheme == "https" {
			own := config
			if certificate != nil {
				own = config.Clone()
				own.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
				// With TLS 1.3 the handshake ends before the host has looked at our
				// certificate, and what it has against it is lost when the connection is
				// reset meanwhile.
				own.MaxVersion = tls.VersionTLS12
			}
			if conn, err = handshake(ctx, conn, own); err != nil {
				return nil, err
			}
		}
		return transport.NewClientConn(egress.Coalesce(conn))
	}
	return host{base: u.Scheme + "://" + u.Host, dial: dial}, nil
}

func handshake(ctx context.Context, conn net.Conn, config *tls.Config) (net.Conn, error) {
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if p := secure.ConnectionState().NegotiatedProtocol; p != http2.NextProtoTLS {
		_ = secure.Close()
		return nil, fmt.Errorf("apns: the host does not speak HTTP/2 (ALPN %q)", p)
	}
	return secure, nil
}

// exchange is one request to APNs. It is the transport of an apns2.Client that
// lives for this request alone; what lives long, the connections, belongs to
// the gateway. apns2 makes the URL and the headers. The exchange adds what
// apns2 cannot say, sends the payload's bytes as they are, and keeps the answer
// raw: apns2 forgets the status where the body is not the JSON it expects.
type exchange struct {
	gateway *gateway
	bearer  string
	payload []byte
	noStore bool // apns-expiration: 0, try once

	answer egress.Answer
	conn   *connection // that carried it; nil if there was none
}

var _ http.RoundTripper = (*exchange)(nil)

// push sends n to host and fills in the answer.
func (x *exchange) push(ctx context.Context, host string, n *apns2.Notification) {
	// apns2 would marshal the payload again and escape <, > and &.
	n.Payload = []byte("{}")
	client := apns2.Client{Host: host, HTTPClient: &http.Client{Transport: x}}
	if _, err := client.PushWithContext(ctx, n); err != nil && x.answer.Status == 0 && x.answer.Err == nil {
		x.answer.Err = err // before it came to a request
	}
}

// RoundTrip sends the request that apns2 made. It changes its headers, which
// nobody else sees.
func (x *exchange) RoundTrip(r *http.Request) (*http.Response, error) {
	defer r.Body.Close()
	ctx := r.Context()
	l, err := x.gateway.acquire(ctx)
	if err != nil {
		x.answer.Err = err
		return nil, err
	}
	x.conn = l
	out := r.WithContext(ctx)
	if x.bearer != "" { // a certificate says who we are when the connection is made
		out.Header.Set("Authorization", "bearer "+x.bearer)
	}
	if x.noStore {
		out.Header.Set("Apns-Expiration", "0")
	}
	out.Body, out.GetBody, out.ContentLength = io.NopCloser(bytes.NewReader(x.payload)), nil, int64(len(x.payload))
	x.answer = egress.Exchange(l, out, answerBytes)
	x.gateway.release(l, x.answer.Status)
	if x.answer.Err != nil {
		return nil, x.answer.Err
	}
	// Without headers there is no redirect that the client could follow.
	return &http.Response{StatusCode: x.answer.Status, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}
