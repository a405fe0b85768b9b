package channels

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
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
		stream http2.StreamError
		rules  http2.ConnectionError
		goAway http2.GoAwayError
		ne     net.Error
	)
	switch {
	case errors.Is(context.Cause(ctx), ErrStopping):
		r.Outcome, r.Code, r.Detail = Interrupted, "stopping", "The server stopped before an answer came."
	case errors.As(err, &dns) && dns.IsNotFound:
		r.Code, r.Detail = "transport.dns_not_found", "The host name does not exist, or leads to no address that may be reached."
	case errors.As(err, &dns):
		r.Code, r.Detail = "transport.dns", "The host name could not be looked up."
	case errors.Is(err, syscall.ECONNREFUSED):
		r.Code, r.Detail = "transport.refused", "The host refused the connection."
	case errors.Is(err, http.ErrSchemeMismatch):
		r.Code, r.Detail = "transport.plain_http", "The host does not speak TLS on this port."
	case tlsFault(err) != "":
		r.Code = tlsFault(err)
		r.Detail = tlsSentences[r.Code]
		// TLS 1.3 lets a server refuse our certificate after we began to send,
		// so "written" says nothing there.
		r.Ambiguous = wrote && r.Code != "transport.tls_refused"
	case errors.As(err, &stream):
		r.Code, r.Detail = "transport.stream_reset", "The host reset the HTTP/2 stream."
	case errors.As(err, &rules):
		r.Code, r.Detail = "transport.protocol", "The host breaks the rules of HTTP/2, or its headers are far too large."
	case errors.As(err, &goAway):
		r.Code, r.Detail = "transport.goaway", "The host closed the HTTP/2 connection."
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled),
		errors.As(err, &ne) && ne.Timeout():
		r.Code, r.Detail = "transport.timeout", "No answer came in time."
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		r.Code, r.Detail = "transport.reset", "The host reset the connection."
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), strings.Contains(err.Error(), "server closed idle connection"):
		r.Code, r.Detail = "transport.closed", "The host closed the connection without an answer."
	default:
		r.Code, r.Detail = "transport.failed", "The request failed before an answer came."
	}
	r.Unreached = r.Outcome == Retry && !r.Ambiguous && noConnection(err, r.Code)
	return r
}

// noConnection tells whether no connection came about: no address, nobody who takes
// the call, or no agreement on TLS.
func noConnection(err error, code string) bool {
	var op *net.OpError
	switch {
	case code == "transport.dns", code == "transport.dns_not_found", code == "transport.refused", code == "transport.plain_http":
		return true
	case strings.HasPrefix(code, "transport.tls"):
		return true
	}
	return errors.As(err, &op) && op.Op == "dial"
}

// HeadersTooLarge is the verdict on an answer whose headers are too large for its status
// to be known. The host has answered, so it would most likely do so again and again.
func HeadersTooLarge(code string, kib int, wrote bool) Result {
	return Result{Outcome: Rejected, Code: code, Ambiguous: wrote,
		Detail: "The headers of the answer have more than " + strconv.Itoa(kib) + " KiB, so its status is not known."}
}

// tlsSentences has what there is to say of each fault of TLS, by its code.
var tlsSentences = map[string]string{
	"transport.tls":                   "The host's certificate could not be verified.",
	"transport.tls_unknown_authority": "The host's certificate is of an authority that is not known here, or a certificate between the two is missing.",
	"transport.tls_expired":           "The host's certificate has expired, or is not valid yet.",
	"transport.tls_wrong_name":        "The host's certificate is for another name.",
	"transport.tls_protocol":          "The host and this server have no version or cipher of TLS in common; TLS 1.2 or newer is needed.",
	"transport.tls_refused":           "The host ended the TLS handshake.",
}

// tlsFault is the code of a fault of TLS, "" of any other.
func tlsFault(err error) string {
	var (
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		record  tls.RecordHeaderError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &unknown):
		return "transport.tls_unknown_authority"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "transport.tls_expired"
	case errors.As(err, &name):
		return "transport.tls_wrong_name"
	case errors.As(err, &verify):
		return "transport.tls"
	case errors.As(err, &record):
		return "transport.tls_protocol"
	}
	// Alerts and other faults of the handshake have texts, and no types.
	refused := errors.As(err, &op) && op.Op == "remote error"
	if refused {
		err = op.Err
	}
	for next := err; next != nil; next = errors.Unwrap(next) {
		err = next
	}
	switch text := err.Error(); {
	case strings.HasPrefix(text, "tls: ") && (!refused || slices.Contains(noCommon, text)):
		return "transport.tls_protocol"
	case refused:
		return "transport.tls_refused"
	}
	return ""
}

// noCommon are the alerts of a host that speaks TLS otherwise than we do.
var noCommon = []string{"tls: protocol version not supported", "tls: handshake failure", "tls: insufficient security level",
	"tls: no application protocol", "tls: unexpected message", "tls: illegal parameter", "tls: error decoding message"}

// MaxRetryAfter bounds what a Retry-After header may ask for.
const MaxRetryAfter = 24 * time.Hour

// RetryAfter reads a Retry-After header (RFC 9110 section 10.2.3): seconds or a
// date, between now and 24 h ahead; a number of any length. Absent or unreadable is
// the zero time.
func RetryAfter(h http.Header, now time.Time) time.Time {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return time.Time{}
	}
	wait := time.Duration(0)
	if n, err := strconv.ParseInt(v, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) { // then n is the nearest
		wait = time.Duration(min(max(n, 0), int64(MaxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(v); err == nil {
		wait = min(max(at.Sub(now), 0), MaxRetryAfter)
	} else {
		return time.Time{}
	}
	return now.Add(wait)
}
