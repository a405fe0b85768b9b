package webpush

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

const (
	// throttledWNS is how long Microsoft's service is left alone where it does
	// not say.
	throttledWNS = 10 * time.Minute
	// fewTries ends what is most likely final but has been seen to pass.
	fewTries = 3
	// maxProviderID is the longest message id of a push service that is kept, in bytes.
	maxProviderID = 500
)

// attempt is what a verdict depends on besides the answer.
type attempt struct {
	renewed channels.Renewal
	padded  bool
	now     time.Time
}

// classify turns an answer into a verdict: RFC 8030 sections 5 and 7, RFC 8292
// section 4, and what the vendors' own bodies add. The bodies are recognised by
// their content whatever the host, because Google's and Microsoft's hosts
// change and none of the texts can mean anything else.
func classify(ctx context.Context, a egress.Answer, at attempt) channels.Result {
	switch {
	case errors.Is(a.Err, egress.ErrRefused):
		return rejected("webpush.refused_address", "The push service's address is not allowed by the operator.")
	case errors.Is(a.Err, egress.ErrHeaders):
		return channels.HeadersTooLarge("webpush.headers_too_large", egress.MaxHeaderBytes>>10, a.Wrote)
	case a.Err != nil:
		r := channels.FromTransport(ctx, a.Err, a.Wrote)
		if r.Code == "transport.dns_not_found" {
			r.MaxTries = fewTries // the name came from the browser, so it is not our network's fault
		}
		return r
	}
	why := readReason(a)
	r := verdict(a, why, at)
	r.Status = a.Status
	if r.Detail == "" {
		r.Detail = "The push service answered " + strconv.Itoa(a.Status) + why.String() + "."
	}
	return r
}

func verdict(a egress.Answer, why reason, at attempt) channels.Result {
	switch s := a.Status; {
	case s >= 200 && s <= 299:
		return taken(a, at.now)
	case s >= 300 && s <= 399:
		return rejected("webpush.redirect", "The push service redirected the message, which is never followed; the browser has to subscribe again.")
	case (s == 400 || s == 401 || s == 403) && why.otherKey():
		return channels.Result{Outcome: channels.Gone, Code: "webpush.key_mismatch", Doubtful: true, Resubscribe: true,
			Detail: "The subscription was made with another VAPID key; the browser has to subscribe again."}
	case a.BodyErr != nil && (s == 400 || (s == 401 || s == 403) && at.renewed == channels.RenewToken):
		// The reason would have told a message, a browser and a VAPID pair apart.
		return channels.Result{Outcome: channels.Retry, Code: "webpush.answer_cut", MaxTries: fewTries,
			Detail: "The push service answered " + strconv.Itoa(s) + ", and its reason did not come."}
	case s == http.StatusBadRequest:
		return malformed(why)
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		return unauthorized(s, why, at)
	case s == http.StatusNotFound, s == http.StatusGone:
		return channels.Result{Outcome: channels.Gone, Code: "webpush.gone"}
	case s == http.StatusRequestEntityTooLarge && at.padded:
		return channels.Result{Outcome: channels.Retry, Code: "webpush.too_large", Renew: channels.RenewPadding}
	case s == http.StatusRequestEntityTooLarge:
		return rejected("webpush.too_large", "The message is larger than the push service takes, even without padding.")
	case s == http.StatusNotAcceptable, s == http.StatusTooManyRequests:
		return throttled(a, at.now)
	case s >= 500 && s <= 599, s == http.StatusRequestTimeout, s == http.StatusTooEarly:
		return channels.Result{Outcome: channels.Retry, Code: "webpush.unavailable", NotBefore: notBefore(a.Header, at.now)}
	case s >= 400 && s <= 499:
		return rejected("webpush.refused", "")
	default:
		return channels.Result{Outcome: channels.Retry, Code: "webpush.unexpected_status", MaxTries: fewTries}
	}
}

// taken is the verdict on 2xx. Microsoft reports throttling and drops with it.
func taken(a egress.Answer, now time.Time) channels.Result {
	switch a.Header.Get("X-WNS-Status") {
	case channelThrottled, appThrottled:
		return throttled(a, now)
	case "dropped":
		return channels.Result{Outcome: channels.Accepted, Code: "webpush.dropped", ProviderID: providerID(a.Header),
			Detail: "The push service took the message and dropped it: the browser is away or has its notifications off."}
	}
	return channels.Result{Outcome: channels.Accepted, Code: "webpush.accepted", ProviderID: providerID(a.Header)}
}

// providerID is the message resource (RFC 8030 section 5), or the vendor's id.
func providerID(h http.Header) string {
	for _, name := range []string{"Location", "X-WNS-Msg-ID", "Apns-Id"} {
		if v := h.Get(name); v != "" && len(v) <= maxProviderID {
			return v
		}
	}
	return ""
}

// What Microsoft's service says in X-WNS-Status of whose limit is reached.
const (
	channelThrottled = "channelthrottled" // this subscription's
	appThrottled     = "appthrottled"     // ours
)

// throttled honours what the service asks for. Microsoft's says whose limit it is,
// with 406 that it is ours, and is left alone for a while where it names no time.
func throttled(a egress.Answer, now time.Time) channels.Result {
	r := channels.Result{Outcome: channels.Throttled, Code: "webpush.throttled", NotBefore: notBefore(a.Header, now)}
	says := a.Header.Get("X-WNS-Status")
	switch {
	case says == channelThrottled:
	case says == appThrottled, a.Status == http.StatusNotAcceptable:
		r.Scope = channels.ScopeOrigin
	default:
		r.Wider = channels.ScopeOrigin
	}
	if r.NotBefore.IsZero() && (a.Status == http.StatusNotAcceptable || says != "") {
		r.Floor = throttledWNS
	}
	return r
}

// notBefore is the later of Retry-After and Microsoft's header of that kind.
func notBefore(h http.Header, now time.Time) time.Time {
	standard := channels.RetryAfter(h, now)
	microsoft := channels.RetryAfter(http.Header{"Retry-After": h.Values("X-WNS-CONTINUE-AFTER")}, now)
	if microsoft.After(standard) {
		return microsoft
	}
	return standard
}

// malformed is the verdict on 400: our message is at fault, but for Apple's
// idle connections.
func malformed(why reason) channels.Result {
	switch {
	case why.apple == "IdleTimeout":
		return channels.Result{Outcome: channels.Retry, Code: "webpush.idle_timeout"}
	case why.apple == "BadTtl", why.errno == 111, why.errno == 114, !why.coded() && why.has("invalidttlparameter"):
		return rejected("webpush.bad_ttl", "")
	case why.apple == "BadWebPushTopic", why.errno == 113:
		return rejected("webpush.bad_topic", "")
	case why.apple == "BadUrgency":
		return rejected("webpush.bad_urgency", "")
	case why.errno == 110:
		return rejected("webpush.bad_encryption", "")
	}
	return rejected("webpush.bad_request", "")
}

// unauthorized is the verdict on 401 and 403 where no key mismatch was named. A
// fresh token is tried once; then this origin refuses us, others may not.
func unauthorized(status int, why reason, at attempt) channels.Result {
	if status == http.StatusUnauthorized && !why.coded() && why.has("invalid push subscription endpoint") {
		// Google says so now and then of subscriptions that work again later.
		return channels.Result{Outcome: channels.Retry, Code: "webpush.endpoint_refused", MaxTries: fewTries}
	}
	r := channels.Result{Outcome: channels.Retry, Code: "webpush.vapid_refused", Renew: channels.RenewToken}
	if at.renewed == channels.RenewToken {
		r.Outcome, r.Scope, r.Renew = channels.Denied, channels.ScopeOrigin, channels.RenewNothing
		r.Detail = fmt.Sprintf("The push service refuses the VAPID key, its subject or this server's clock (%d%v).", status, why)
	}
	return r
}

// resubscribe is how Google says that a subscription belongs to another key, or
// to none: its service has no codes.
const resubscribe = "do not correspond to the credentials|does not correspond to the sender id|unauthorizedregistration|invalidtokenformat"

// Mozilla's code of everything that is wrong with VAPID, another key included.
const errnoVAPID = 109

// reason is what an answer's body tells beyond its status.
type reason struct {
	apple string // one of appleReasons
	errno int    // Mozilla's
	text  []byte // lower case; never shown
}

func readReason(a egress.Answer) reason {
	if a.Status < 400 {
		return reason{}
	}
	var body struct {
		Reason string `json:"reason"`
		Errno  int    `json:"errno"`
	}
	r := reason{text: bytes.ToLower(a.Body)}
	if json.Unmarshal(a.Body, &body) != nil { // not JSON, or a member of another type
		return r
	}
	if slices.Contains(appleReasons(), body.Reason) {
		r.apple = body.Reason
	}
	if body.Errno >= 100 && body.Errno <= 999 {
		r.errno = body.Errno
	}
	return r
}

// coded tells whether the body has a code. Its prose does not count then, since
// vendors reword it.
func (r reason) coded() bool { return r.apple != "" || r.errno != 0 }

// otherKey tells whether the subscription was made with another VAPID key. Apple
// has a code for it; Mozilla's code covers more, so its words have to tell; what
// is not understood is no mismatch, which a subscription could not be cured of.
func (r reason) otherKey() bool {
	switch {
	case r.apple != "":
		return r.apple == "VapidPkHashMismatch"
	case r.errno != 0:
		return r.errno == errnoVAPID && r.has("vapid public key mismatch")
	}
	return r.has(resubscribe) || r.has("vapid public key mismatch")
}

// has tells whether the body holds one of the texts, which are in lower case
// with "|" between them.
func (r reason) has(texts string) bool {
	for text := range bytes.SplitSeq([]byte(texts), []byte("|")) {
		if bytes.Contains(r.text, text) {
			return true
		}
	}
	return false
}

// String adds what is known to a sentence. A push service may write anything
// into a body, so only known words are shown.
func (r reason) String() string {
	switch {
	case r.apple != "":
		return " " + r.apple
	case r.errno != 0:
		return fmt.Sprintf(" with errno %d", r.errno)
	}
	return ""
}

func appleReasons() []string {
	return []string{"BadTtl", "BadUrgency", "BadWebPushTopic", "BadWebPushRequest", "VapidPkHashMismatch", "IdleTimeout",
		"BadJwtToken", "BadAuthorizationHeader", "BadVapidPublicKey", "BadPath", "MethodNotAllowed", "ExpiredToken",
		"Unregistered", "PayloadTooLarge", "TooManyRequests", "InternalServerError", "ServiceUnavailable", "Shutdown"}
}

func rejected(code, detail string) channels.Result {
	return channels.Result{Outcome: channels.Rejected, Code: code, Detail: detail}
}
