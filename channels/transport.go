package channels

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"
)

// ErrStopping is the cancel cause of a context whose sends are given up because
// the server stops. Without it a cancelled context counts as a timeout.
var ErrStopping = errors.New("the server is stopping")

// FromTransport gives the verdict on a request that got no answer. wrote tells
// whether httptrace.ClientTrace.WroteRequest was called without an error: only
// then may the provider have acted. No text of err is passed on, since a URL in
// it may hold a device token.
func FromTransport(ctx context.Context, err error, wrote bool) Result {
	r := Result{Outcome: Retry, Ambiguous: wrote}
	var (
		dns    *net.DNSError
		verify *tls.CertificateVerificationError
		stream http2.StreamError
		goAway http2.GoAwayError
		op     *net.OpError
		ne     net.Error
	)
	switch {
	case errors.Is(context.Cause(ctx), ErrStopping):
		r.Outcome, r.Code, r.Detail = Interrupted, "stopping", "The server stopped before an answer came."
	case errors.As(err, &dns) && dns.IsNotFound:
		r.Code, r.Detail = "transport.dns_not_found", "The host name does not exist."
	case errors.As(err, &dns):
		r.Code, r.Detail = "transport.dns", "The host name could not be looked up."
	case errors.Is(err, syscall.ECONNREFUSED):
		r.Code, r.Detail = "transport.refused", "The host refused the connection."
	case errors.As(err, &verify):
		r.Code, r.Detail = "transport.tls", "The host's certificate could not be verified."
	case errors.Is(err, http.ErrSchemeMismatch):
		r.Code, r.Detail = "transport.plain_http", "The host does not speak TLS on this port."
	case errors.As(err, &stream):
		r.Code, r.Detail = "transport.stream_reset", "The host reset the HTTP/2 stream."
	case errors.As(err, &goAway):
		r.Code, r.Detail = "transport.goaway", "The host closed the HTTP/2 connection."
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &ne) && ne.Timeout():
		r.Code, r.Detail = "transport.timeout", "No answer came in time."
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		r.Code, r.Detail = "transport.reset", "The host reset the connection."
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		r.Code, r.Detail = "transport.closed", "The host closed the connection without an answer."
	case errors.As(err, &op) && op.Op == "remote error":
		// TLS 1.3 lets a server refuse our certificate after we began to send,
		// so "written" says nothing here.
		r.Code, r.Detail, r.Ambiguous = "transport.tls_refused", "The host ended the TLS handshake.", false
	default:
		r.Code, r.Detail = "transport.failed", "The request failed before an answer came."
	}
	return r
}

// MaxRetryAfter bounds what a Retry-After header may ask for.
const MaxRetryAfter = 24 * time.Hour

// RetryAfter reads a Retry-After header (RFC 9110 section 10.2.3): seconds or a
// date, between now and 24 h ahead. Absent or unreadable is the zero time.
func RetryAfter(h http.Header, now time.Time) time.Time {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return time.Time{}
	}
	wait := time.Duration(0)
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		wait = time.Duration(min(max(n, 0), int64(MaxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		wait = min(max(at.Sub(now), 0), MaxRetryAfter)
	} else {
		return time.Time{}
	}
	return now.Add(wait)
}
