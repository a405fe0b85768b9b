package fcm

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
)

// Codes that the sender looks at.
const (
	codeTokenRefused = "fcm.token_refused"
	codeThirdParty   = "fcm.third_party_auth"
)

// Google's rules for repeating a request ("Best practices when sending FCM
// messages at scale").
const (
	floorError   = 10 * time.Second
	floorGateway = 30 * time.Second // 502 is a page that says so
	floorQuota   = 60 * time.Second
	oddTries     = 3 // for answers that nobody has described
)

// answer is what FCM said to one request.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	cut     bool // the body ended early
	renewed channels.Renewal
	wait    time.Time // Retry-After or RetryInfo, read by classify
}

// failure is the error of Google's APIs (google.rpc.Status), as far as it counts.
type failure struct {
	Error struct {
		Message string   `json:"message"`
		Status  string   `json:"status"`
		Details []detail `json:"details"`
	} `json:"error"`
}

// detail is one of several kinds, which its type tells apart.
type detail struct {
	Type            string `json:"@type"`
	ErrorCode       string `json:"errorCode"`  // of FcmError
	Reason          string `json:"reason"`     // of ErrorInfo and of ApnsError
	StatusCode      int    `json:"statusCode"` // of ApnsError
	FieldViolations []struct {
		Field string `json:"field"`
	} `json:"fieldViolations"` // of BadRequest
	Violations []quotaViolation `json:"violations"` // of QuotaFailure
	RetryDelay string           `json:"retryDelay"` // of RetryInfo: "3.5s"
}

func (d detail) is(name string) bool { return strings.HasSuffix(d.Type, "/"+name) || d.Type == name }

// readFailure takes what can be read of a body: one member of another type than
// expected does not hide the others.
func readFailure(a answer) failure {
	var f failure
	var wrongType *json.UnmarshalTypeError
	if err := json.Unmarshal(a.body, &f); a.cut || err != nil && !errors.As(err, &wrongType) {
		return failure{}
	}
	return f
}

// classify gives the verdict on an answer. What counts is the FcmError in the
// details, in whatever order they come, then error.status, then the HTTP status:
// quota, IAM and OAuth failures have no FcmError.
func classify(a answer, now time.Time) channels.Result {
	if a.status >= 200 && a.status < 300 {
		return accepted(a)
	}
	f := readFailure(a)
	a.wait = f.waitUntil(channels.RetryAfter(a.header, now), now)
	r := verdict(a, f, f.reason(a.status))
	r.Status = a.status
	if r.Outcome == channels.Throttled || r.Outcome == channels.Retry && r.Renew == channels.RenewNothing {
		r.NotBefore = a.wait
	}
	return r
}

// accepted is final even if the answer names no id, or broke off: asking again would
// show the notification twice. What has arrived in full and is no JSON object was not
// written by FCM.
func accepted(a answer) channels.Result {
	var members map[string]json.RawMessage
	if !a.cut && (json.Unmarshal(a.body, &members) != nil || members == nil) {
		return channels.Result{Outcome: channels.Retry, Code: "fcm.unexpected_answer", Status: a.status, Ambiguous: true, Floor: floorError, MaxTries: oddTries,
			Detail: "An answer of success came that is not FCM's: something between this server and Google, such as a proxy, has given it."}
	}
	r := channels.Result{Outcome: channels.Accepted, Code: "fcm.accepted", Status: a.status}
	var name string
	if json.Unmarshal(members["name"], &name) == nil && validID(name) {
		r.ProviderID = name
		return r
	}
	r.Code, r.Detail = "fcm.accepted_without_id", "FCM accepted the message; its answer named no id."
	return r
}

func validID(s string) bool {
	return s != "" && len(s) <= 256 && !slices.ContainsFunc([]byte(s), func(c byte) bool { return c < ' ' || c >= 0x7f })
}

// reason is the one word that decides: FcmError's code where there is one.
func (f failure) reason(status int) string {
	for _, d := range f.Error.Details {
		if d.is("google.firebase.fcm.v1.FcmError") && saysMore(d.ErrorCode, status) {
			return d.ErrorCode
		}
	}
	switch f.Error.Status {
	case "INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED":
		return f.Error.Status
	}
	switch status {
	case http.StatusBadRequest:
		return "INVALID_ARGUMENT"
	case http.StatusUnauthorized:
		return "UNAUTHENTICATED"
	case http.StatusForbidden:
		return "PERMISSION_DENIED"
	case http.StatusNotFound:
		return "NOT_FOUND"
	case http.StatusTooManyRequests:
		return "RESOURCE_EXHAUSTED"
	case http.StatusServiceUnavailable:
		return "UNAVAILABLE"
	case http.StatusGatewayTimeout:
		return "DEADLINE_EXCEEDED"
	}
	return ""
}

// saysMore tells whether FcmError's code says more than the status. One that is not
// known does not where the status is about our speed or our token and not the message.
func saysMore(code string, status int) bool {
	switch code {
	case "", "UNSPECIFIED_ERROR":
		return false
	case "UNREGISTERED", "SENDER_ID_MISMATCH", "THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR", "INVALID_ARGUMENT", "QUOTA_EXCEEDED", "UNAVAILABLE", "INTERNAL":
		return true
	}
	return status != http.StatusTooManyRequests && status != http.StatusUnauthorized
}

// verdict is the table: one row per reason. What Apple said behind FCM goes
// before the general codes, under which FCM passes it on.
func verdict(a answer, f failure, reason string) channels.Result {
	switch reason {
	case "UNREGISTERED":
		return channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered", Detail: "The app was removed, or the token expired or was replaced."}
	case "SENDER_ID_MISMATCH":
		// A service account of the wrong project would get this for every device.
		return channels.Result{Outcome: channels.Gone, Doubtful: true, Code: "fcm.sender_mismatch", Detail: "The token belongs to another Firebase project."}
	case "THIRD_PARTY_AUTH_ERROR", "APNS_AUTH_ERROR":
		return thirdPartyAuth()
	}
	if r, known := f.apnsError(); known {
		return r
	}
	switch reason {
	case "INVALID_ARGUMENT":
		return invalidArgument(a, f)
	case "QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED":
		return throttled(a, f)
	case "UNAUTHENTICATED":
		return unauthenticated(a)
	case "PERMISSION_DENIED":
		if a.cut {
			return unread()
		}
		return denied("fcm.permission_denied", "Google refuses the service account: grant it the role Firebase Cloud Messaging API Admin, and enable the Firebase Cloud Messaging API (V1) in the project.")
	case "NOT_FOUND":
		if a.cut {
			return unread()
		}
		return denied("fcm.project_not_found", "Google knows no such project, or the configured endpoint is not FCM's.")
	case "UNAVAILABLE":
		if !a.wait.IsZero() {
			return channels.Result{Outcome: channels.Throttled, Code: "fcm.unavailable", Detail: "FCM is overloaded."}
		}
		return channels.Result{Outcome: channels.Retry, Code: "fcm.unavailable", Detail: "FCM is overloaded.", Floor: floorError}
	case "INTERNAL":
		return channels.Result{Outcome: channels.Retry, Code: "fcm.internal", Detail: "FCM had an internal error.", Floor: floorError}
	case "DEADLINE_EXCEEDED":
		return channels.Result{Outcome: channels.Retry, Code: "fcm.gateway_timeout", Detail: "FCM did not answer its own front end in time.", Floor: floorError}
	}
	return byStatus(a.status)
}

func byStatus(status int) channels.Result {
	switch {
	case status == http.StatusBadGateway:
		return channels.Result{Outcome: channels.Retry, Code: "fcm.bad_gateway", Detail: "Google's front end could not reach FCM.", Floor: floorGateway}
	case status >= 500 && status < 600:
		return channels.Result{Outcome: channels.Retry, Code: "fcm.internal", Detail: "FCM had an internal error.", Floor: floorError}
	case status >= 400 && status < 500:
		return channels.Result{Outcome: channels.Rejected, Code: "fcm.refused", Detail: "FCM refused the message."}
	case status >= 300 && status < 400:
		return channels.Result{Outcome: channels.Rejected, Code: "fcm.redirect", Detail: "FCM answered with a redirect, which is never followed."}
	}
	return channels.Result{Outcome: channels.Retry, Code: "fcm.unexpected_status", Detail: "FCM gave an answer that it does not document.", Floor: floorError, MaxTries: oddTries}
}

// invalidArgument tells a dead token from a wrong message. A token of another
// project has a reason of its own, so a dead one is no sign of a wrong key.
func invalidArgument(a answer, f failure) channels.Result {
	if a.cut {
		return unread()
	}
	fields, dead := 0, false
	for _, d := range f.Error.Details {
		for _, v := range d.FieldViolations {
			fields++
			dead = dead || v.Field == "message.token" || v.Field == "message.fid"
		}
	}
	if fields == 0 { // then the words are all that there is
		dead = strings.Contains(f.Error.Message, "not a valid FCM registration token")
	}
	if dead {
		return channels.Result{Outcome: channels.Gone, Code: "fcm.invalid_token", Detail: "FCM does not know this token."}
	}
	return channels.Result{Outcome: channels.Rejected, Code: "fcm.invalid_argument", Detail: "FCM refused a field of the message, or found it too large."}
}

// unauthenticated asks for one fresh token; refused again, it is the key.
func unauthenticated(a answer) channels.Result {
	if a.renewed == channels.RenewToken {
		return denied(codeTokenRefused, "Google refuses a fresh access token of the service account.")
	}
	return channels.Result{Outcome: channels.Retry, Code: codeTokenRefused, Renew: channels.RenewToken, Detail: "Google refused the access token; a fresh one is fetched."}
}

// unread is for 400, 403 and 404 whose body did not arrive: it would have told a
// dead device from a refused credential, so nothing is concluded.
func unread() channels.Result {
	return channels.Result{Outcome: channels.Retry, Code: "fcm.answer_cut", Detail: "The connection broke before FCM's reason arrived.", Floor: floorError, MaxTries: oddTries}
}

func denied(code, detail string) channels.Result {
	return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: code, Detail: detail}
}

// classifyToken gives the verdict on what the token endpoint said (RFC 6749
// section 5.2).
func classifyToken(status int, h http.Header, reason string, now time.Time) channels.Result {
	r := channels.Result{Outcome: channels.Retry, Code: "fcm.oauth_unavailable", Detail: "Google's token endpoint gave no token.", Floor: floorError}
	switch {
	case status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden:
		r = denied("fcm.credential_refused", "Google refuses the service account's key.")
		switch reason {
		case "invalid_grant":
			r.Detail = "Google refuses the service account's key (invalid_grant): it was revoked, its account was deleted, or this host's clock is wrong."
		case "invalid_client", "unauthorized_client", "invalid_scope", "access_denied", "invalid_request":
			r.Detail = "Google refuses the service account's key (" + reason + ")."
		}
	case status == http.StatusTooManyRequests:
		r.Outcome, r.NotBefore = channels.Throttled, channels.RetryAfter(h, now)
	case status >= 500:
		r.NotBefore = channels.RetryAfter(h, now)
	}
	r.Status = status
	return r
}
