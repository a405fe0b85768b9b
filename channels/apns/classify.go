package apns

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sideshow/apns2"
	"golang.org/x/net/http2"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

// reply is what APNs answered.
type reply struct {
	status  int
	header  http.Header
	reason  string    // "" where the body held none that can be read
	goneAt  time.Time // 410: when APNs last knew the token to be invalid; zero if unknown
	apnsID  string
	cut     bool // the body ended early, so that the reason may be missing
	jwtNext bool // ExpiredProviderToken: the next attempt will carry another JWT
}

// circumstances are what a verdict depends on besides the answer.
type circumstances struct {
	renewed      channels.Renewal // what the attempt before asked for
	registeredAt time.Time
	tryOther     bool // the device's environment is unknown and the other gateway is still to be tried
	ownTopic     bool // the message, not the credential, chose the topic
	auto         bool // the device's environment is unknown
	certificate  bool // it is how we say who we are
	fallible     bool // the other gateway may be asked about a key that this one refuses
	other        otherGateway
	now          time.Time
}

// verdict is a Result, and whether the connection must not be used again.
type verdict struct {
	channels.Result
	dropConn bool
}

// parseReply reads the raw answer. A body that is not JSON leaves the reason
// empty and the status as it is.
func parseReply(status int, header http.Header, body []byte) reply {
	r := reply{status: status, header: header}
	if id := header.Get("apns-id"); len(id) <= 64 {
		r.apnsID = id
	}
	var b struct {
		Reason    any             `json:"reason"`
		Timestamp json.RawMessage `json:"timestamp"`
	}
	if len(body) == 0 || json.Unmarshal(body, &b) != nil {
		return r
	}
	if s, ok := b.Reason.(string); ok {
		r.reason = s
	}
	ms, err := strconv.ParseFloat(strings.Trim(string(b.Timestamp), `"`), 64)
	if err == nil && ms > 0 && ms < 1e15 {
		r.goneAt = time.UnixMilli(int64(ms))
	}
	return r
}

// replyOf reads an answer, or the reason in the GOAWAY frame that came instead.
func replyOf(a egress.Answer) reply {
	if goAway, ok := errors.AsType[http2.GoAwayError](a.Err); ok {
		return parseReply(0, nil, []byte(goAway.DebugData))
	}
	r := parseReply(a.Status, a.Header, a.Body)
	r.cut = a.BodyErr != nil
	return r
}

// classify gives the verdict on an answer. It is pure.
func classify(a reply, c circumstances) verdict {
	v := verdict{}
	if a.status == apns2.StatusSent {
		v.Outcome, v.Code = channels.Accepted, "apns.accepted"
	} else if !v.byReason(a, c) {
		v.byStatus(a, c)
	}
	v.Status, v.ProviderID = a.status, a.apnsID
	if v.Outcome == channels.Retry || v.Outcome == channels.Throttled {
		if at := channels.RetryAfter(a.header, c.now); at.After(v.NotBefore) {
			v.NotBefore = at
		}
		if v.NotBefore.After(c.now) {
			v.Renew = channels.RenewNothing // a renewal means at once
		}
	}
	return v
}

func (v *verdict) set(o channels.Outcome, s channels.Scope, code, detail string) {
	v.Outcome, v.Scope, v.Code, v.Detail = o, s, "apns."+code, detail
}

// byStatus judges an answer whose body says nothing known, such as a proxy's.
func (v *verdict) byStatus(a reply, c circumstances) {
	code, detail := "status_"+strconv.Itoa(a.status), "APNs answered "+strconv.Itoa(a.status)+" without a known reason."
	if isReason(a.reason) {
		detail = "APNs answered " + strconv.Itoa(a.status) + " with the unknown reason " + a.reason + "."
	}
	switch {
	case a.cut && a.status >= 400 && a.status < 500 && a.status != http.StatusTooManyRequests:
		// The reason would have told a device, a message and a credential apart.
		v.set(channels.Retry, channels.ScopeTarget, "answer_cut", "APNs answered "+strconv.Itoa(a.status)+", and its reason did not come.")
		v.MaxTries = 3
	case a.status == http.StatusGone:
		v.gone(a, c, code, detail)
		v.Doubtful = v.Outcome == channels.Gone
	case a.status == http.StatusTooManyRequests:
		v.set(channels.Throttled, channels.ScopeTarget, code, detail)
		v.Floor = devicePause
	case a.status >= 500:
		v.retryServer(code, detail)
	case a.status >= 300:
		v.set(channels.Rejected, channels.ScopeTarget, code, detail)
	default:
		v.set(channels.Retry, channels.ScopeTarget, code, detail)
		v.MaxTries = 3
	}
}

// isReason tells whether an unknown reason looks like Apple's, so that it can be
// shown without showing whatever else a body might hold.
func isReason(s string) bool {
	return len(s) > 3 && len(s) <= 40 && s[0] >= 'A' && s[0] <= 'Z' &&
		strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') }) < 0
}

// gotGoAway is the text of the error that x/net gives to requests that the host
// said, in a GOAWAY frame, not to have looked at. x/net does not export it.
// Should the text change, the verdict becomes ambiguous, nothing worse.
const gotGoAway = "http2: Transport received Server's graceful shutdown GOAWAY"

// fromError gives the verdict on a request without an answer. A connection that
// the host ended in order is replaced at once.
func fromError(ctx context.Context, err error, wrote bool, c circumstances) verdict {
	if errors.Is(err, errClosed) {
		return verdict{Result: channels.Result{Outcome: channels.Interrupted, Code: "apns.closed", Detail: "The sender was closed."}}
	}
	if errors.Is(err, egress.ErrHeaders) {
		return verdict{Result: channels.HeadersTooLarge("apns.headers_too_large", egress.MaxHeaderBytes>>10, wrote)}
	}
	v := verdict{Result: channels.FromTransport(ctx, err, wrote)}
	if v.Outcome != channels.Retry {
		return v
	}
	if alert := certificateAlert(err); c.certificate && alert != "" {
		v = verdict{}
		v.set(channels.Denied, channels.ScopeCredential, "certificate_refused", "APNs ended the TLS handshake because of the certificate: "+alert+".")
		return v
	}
	var (
		goAway http2.GoAwayError
		stream http2.StreamError
	)
	switch {
	case errors.As(err, &goAway):
		if a := parseReply(0, nil, []byte(goAway.DebugData)); a.reason != "" && v.aboutCredential(a, c) && (v.Outcome == channels.Denied || isEnvironmentRefusal(a.reason)) {
			v.Ambiguous = false
			return v
		}
		v.Result = channels.FromTransport(ctx, err, wrote)
	case err.Error() == gotGoAway:
		v.Code, v.Detail, v.Ambiguous = "transport.goaway", "The host closed the HTTP/2 connection.", false
	case errors.As(err, &stream) && stream.Code == http2.ErrCodeRefusedStream:
		v.Code, v.Detail, v.Ambiguous = "transport.stream_refused", "The host refused the HTTP/2 stream.", false
	default:
		return v
	}
	v.dropConn = true
	if c.renewed == channels.RenewNothing {
		v.Renew = channels.RenewConnection
	}
	return v
}

// certificateAlert is what a host that ended a TLS handshake has against our
// certificate; "" where it was about something else. Apple says in this manner that a
// certificate is revoked, has expired, or was signed by nobody known.
func certificateAlert(err error) string {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" {
		return ""
	}
	for _, a := range []struct {
		alert tls.AlertError // numbers of RFC 8446, section 6
		means string
	}{{42, "it is bad"}, {43, "it is of an unsupported kind"}, {44, "it is revoked"}, {45, "it has expired"}, {46, "it is not acceptable"}, {48, "nobody known has signed it"}, {49, "access is denied"}} {
		if op.Err.Error() == a.alert.Error() {
			return a.means
		}
	}
	return ""
}
