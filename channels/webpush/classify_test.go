package webpush

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

var noon = time.Unix(1_700_000_000, 0)

// answerRow is one answer of a push service and the verdict on it.
type answerRow struct {
	name   string
	status int
	body   string
	header map[string]string
	at     attempt
	want   channels.Result // Status and Detail are checked apart
}

func autopush(code, errno int, message string) string {
	return fmt.Sprintf(`{"code":%d,"errno":%d,"error":"x","message":%q,"more_info":"http://autopush.readthedocs.io/"}`, code, errno, message)
}

func apple(reason string) string { return `{"reason":"` + reason + `"}` }

var (
	accepted    = channels.Result{Outcome: channels.Accepted, Code: "webpush.accepted"}
	gone        = channels.Result{Outcome: channels.Gone, Code: "webpush.gone"}
	mismatch    = channels.Result{Outcome: channels.Gone, Code: "webpush.key_mismatch", Doubtful: true, Resubscribe: true}
	renew       = channels.Result{Outcome: channels.Retry, Code: "webpush.vapid_refused", Renew: channels.RenewToken}
	denied      = channels.Result{Outcome: channels.Denied, Code: "webpush.vapid_refused", Scope: channels.ScopeOrigin}
	unavailable = channels.Result{Outcome: channels.Retry, Code: "webpush.unavailable"}
	throttle    = channels.Result{Outcome: channels.Throttled, Code: "webpush.throttled", Wider: channels.ScopeOrigin}
	throttleAll = channels.Result{Outcome: channels.Throttled, Code: "webpush.throttled", Scope: channels.ScopeOrigin}
	throttleOne = channels.Result{Outcome: channels.Throttled, Code: "webpush.throttled"}
	smaller     = channels.Result{Outcome: channels.Retry, Code: "webpush.too_large", Renew: channels.RenewPadding}
	padded      = attempt{padded: true}
	renewed     = attempt{renewed: channels.RenewToken}
)

func reject(code string) channels.Result {
	return channels.Result{Outcome: channels.Rejected, Code: "webpush." + code}
}

func floor(r channels.Result, d time.Duration) channels.Result { r.Floor = d; return r }

func until(r channels.Result, wait time.Duration) channels.Result {
	r.NotBefore = noon.Add(wait)
	return r
}

func answers() []answerRow {
	located := accepted
	located.ProviderID = "https://push.example/m/1"
	wnsID := accepted
	wnsID.ProviderID = "1A2B"
	dropped := wnsID
	dropped.Code = "webpush.dropped"
	const googleMismatch = "the VAPID credentials in the authorization header do not correspond to the credentials used to create the subscriptions.\n"
	return []answerRow{
		{name: "RFC 8030 created", status: 201, header: map[string]string{"Location": "https://push.example/m/1"}, want: located},
		{name: "ok", status: 200, want: accepted},
		{name: "with receipt", status: 202, want: accepted},
		{name: "a long Location", status: 201, header: map[string]string{"Location": strings.Repeat("x", 600)}, want: accepted},
		{name: "200 whatever the body", status: 200, body: apple("BadJwtToken"), want: accepted},
		{name: "moved", status: 308, header: map[string]string{"Location": "https://elsewhere.example"}, want: reject("redirect")},
		{name: "found", status: 302, want: reject("redirect")},
		{name: "bad request", status: 400, want: reject("bad_request")},
		{name: "unauthorized", status: 401, want: renew},
		{name: "unauthorized again", status: 401, at: renewed, want: denied},
		{name: "forbidden", status: 403, want: renew},
		{name: "forbidden again", status: 403, at: renewed, want: denied},
		{name: "forbidden after another renewal", status: 403, at: attempt{renewed: channels.RenewPadding}, want: renew},
		{name: "not found", status: 404, want: gone},
		{name: "gone", status: 410, want: gone},
		{name: "too large", status: 413, at: padded, want: smaller},
		{name: "too large without padding", status: 413, want: reject("too_large")},
		{name: "too many", status: 429, want: throttle},
		{name: "too many, with a wait", status: 429, header: map[string]string{"Retry-After": "90"}, want: until(throttle, 90*time.Second)},
		{name: "request timeout", status: 408, want: unavailable},
		{name: "other 4xx", status: 418, want: reject("refused")},
		{name: "500", status: 500, want: unavailable},
		{name: "503 with a wait", status: 503, header: map[string]string{"Retry-After": "120"}, want: until(unavailable, 2*time.Minute)},
		{name: "not HTTP", status: 600, want: channels.Result{Outcome: channels.Retry, Code: "webpush.unexpected_status", MaxTries: 3}},

		{name: "Google before VAPID", status: 400, body: "UnauthorizedRegistration", want: mismatch},
		{name: "Google token format", status: 400, body: "<TITLE>InvalidTokenFormat</TITLE>", want: mismatch},
		{name: "Google TTL", status: 400, body: "InvalidTtlParameter", want: reject("bad_ttl")},
		{name: "Google no header", status: 401, body: "authorization header must be specified.", want: renew},
		{name: "Google no header again", status: 401, body: "authorization header must be specified.", at: renewed, want: denied},
		{name: "Google mismatch in its older words", status: 403, body: "The key in the authorization header does not correspond to the sender ID used to subscribe this user. Please ensure you are using the correct sender ID and server Key from the Firebase console.", want: mismatch},
		{name: "Google reworded", status: 403, body: "these credentials are not those of the subscription", want: renew},
		{name: "Google reworded again", status: 403, body: "these credentials are not those of the subscription", at: renewed, want: denied},
		{name: "Google TTL reworded", status: 400, body: "the TTL is not valid", want: reject("bad_request")},
		{name: "Google intermittent", status: 401, body: "invalid push subscription endpoint.",
			want: channels.Result{Outcome: channels.Retry, Code: "webpush.endpoint_refused", MaxTries: 3}},
		{name: "Google mismatch", status: 403, body: googleMismatch, want: mismatch},
		{name: "Google mismatch after a renewal", status: 403, body: googleMismatch, at: renewed, want: mismatch},
		{name: "Google invalid JWT", status: 403, body: "invalid JWT provided", want: renew},
		{name: "Google aud", status: 403, body: "aud claim in JWT invalid", at: renewed, want: denied},
		{name: "Google unsubscribed", status: 410, body: "push subscription has unsubscribed or expired.", want: gone},
		{name: "a mismatch text with another status", status: 503, body: googleMismatch, want: unavailable},

		{name: "Mozilla router type", status: 400, body: autopush(400, 108, ""), want: reject("bad_request")},
		{name: "Mozilla encryption headers", status: 400, body: autopush(400, 110, ""), want: reject("bad_encryption")},
		{name: "Mozilla no TTL", status: 400, body: autopush(400, 111, ""), want: reject("bad_ttl")},
		{name: "Mozilla negative TTL", status: 400, body: autopush(400, 114, ""), want: reject("bad_ttl")},
		{name: "Mozilla topic", status: 400, body: autopush(400, 113, ""), want: reject("bad_topic")},
		{name: "Mozilla VAPID", status: 401, body: autopush(401, 109, "Invalid bearer token"), want: renew},
		{name: "Mozilla VAPID again", status: 401, body: autopush(401, 109, "Invalid bearer token"), at: renewed, want: denied},
		{name: "Mozilla mismatch", status: 401, body: autopush(401, 109, "VAPID public key mismatch"), want: mismatch},
		{name: "Mozilla mismatch reworded", status: 401, body: autopush(401, 109, "The key is another one"), want: renew},
		{name: "Mozilla code with another's words", status: 400, body: autopush(400, 110, "VAPID public key mismatch, invalidTtlParameter"), want: reject("bad_encryption")},
		{name: "Mozilla code with Google's words", status: 401, body: autopush(401, 109, "invalid push subscription endpoint"), want: renew},
		{name: "Mozilla endpoint", status: 404, body: autopush(404, 102, ""), want: gone},
		{name: "Mozilla user", status: 410, body: autopush(410, 103, ""), want: gone},
		{name: "Mozilla deleted", status: 410, body: autopush(410, 105, ""), want: gone},
		{name: "Mozilla subscription", status: 410, body: autopush(410, 106, ""), header: map[string]string{"Cache-Control": "max-age=86400"}, want: gone},
		{name: "Mozilla Android", status: 413, body: autopush(413, 104, "This message is intended for a constrained device"), at: padded, want: smaller},
		{name: "Mozilla Android again", status: 413, body: autopush(413, 104, ""), at: attempt{renewed: channels.RenewPadding}, want: reject("too_large")},
		{name: "Mozilla internal", status: 500, body: `{"code":500,"errno":null}`, want: unavailable},
		{name: "Mozilla bridge", status: 502, body: autopush(502, 901, ""), want: unavailable},
		{name: "Mozilla database", status: 503, body: autopush(503, 201, ""), header: map[string]string{"Retry-After": "120"}, want: until(unavailable, 2*time.Minute)},

		{name: "Apple TTL", status: 400, body: apple("BadTtl"), want: reject("bad_ttl")},
		{name: "Apple urgency", status: 400, body: apple("BadUrgency"), want: reject("bad_urgency")},
		{name: "Apple topic", status: 400, body: apple("BadWebPushTopic"), want: reject("bad_topic")},
		{name: "Apple request", status: 400, body: apple("BadWebPushRequest"), want: reject("bad_request")},
		{name: "Apple mismatch", status: 400, body: apple("VapidPkHashMismatch"), want: mismatch},
		{name: "Apple code with another's words", status: 403, body: `{"reason":"BadJwtToken","message":"VAPID public key mismatch: they do not correspond to the credentials"}`, want: renew},
		{name: "Apple new code", status: 403, body: apple("BadVapidPkHash"), want: renew},
		{name: "Apple idle", status: 400, body: apple("IdleTimeout"), want: channels.Result{Outcome: channels.Retry, Code: "webpush.idle_timeout"}},
		{name: "Apple JWT", status: 403, body: apple("BadJwtToken"), want: renew},
		{name: "Apple JWT again", status: 403, body: apple("BadJwtToken"), at: renewed, want: denied},
		{name: "Apple header", status: 403, body: apple("BadAuthorizationHeader"), want: renew},
		{name: "Apple public key", status: 403, body: apple("BadVapidPublicKey"), want: renew},
		{name: "Apple path", status: 404, body: apple("BadPath"), want: gone},
		{name: "Apple method", status: 405, body: apple("MethodNotAllowed"), want: reject("refused")},
		{name: "Apple expired", status: 410, body: apple("ExpiredToken"), want: gone},
		{name: "Apple size", status: 413, body: apple("PayloadTooLarge"), want: reject("too_large")},
		{name: "Apple too many", status: 429, body: apple("TooManyRequests"), want: throttle},
		{name: "Apple shutdown", status: 503, body: apple("Shutdown"), want: unavailable},

		{name: "WNS received", status: 201, header: map[string]string{"X-WNS-Status": "received", "X-WNS-Msg-ID": "1A2B"}, want: wnsID},
		{name: "WNS dropped", status: 201, header: map[string]string{"X-WNS-Status": "dropped", "X-WNS-Msg-ID": "1A2B"}, want: dropped},
		{name: "WNS channel throttled", status: 200, header: map[string]string{"X-WNS-Status": "channelthrottled"}, want: floor(throttleOne, 10*time.Minute)},
		{name: "WNS app throttled", status: 200, header: map[string]string{"X-WNS-Status": "appthrottled", "X-WNS-CONTINUE-AFTER": "1200"}, want: until(throttleAll, 20*time.Minute)},
		{name: "WNS 406", status: 406, want: floor(throttleAll, 10*time.Minute)},
		{name: "WNS 406 with both headers", status: 406, header: map[string]string{"Retry-After": "700", "X-WNS-CONTINUE-AFTER": "60"}, want: until(throttleAll, 700*time.Second)},
		{name: "WNS 406 of a channel", status: 406, header: map[string]string{"X-WNS-Status": "channelthrottled"}, want: floor(throttleOne, 10*time.Minute)},
		{name: "WNS 429 of the app", status: 429, header: map[string]string{"X-WNS-Status": "appthrottled"}, want: floor(throttleAll, 10*time.Minute)},
		{name: "WNS 429 of a channel", status: 429, header: map[string]string{"X-WNS-Status": "channelthrottled", "Retry-After": "90"}, want: until(throttleOne, 90*time.Second)},
		{name: "WNS 429", status: 429, header: map[string]string{"X-WNS-Status": "dropped"}, want: floor(throttle, 10*time.Minute)},
		{name: "WNS channel gone", status: 410, header: map[string]string{"X-WNS-Error-Description": "Channel expired"}, want: gone},
		{name: "WNS TTL", status: 400, header: map[string]string{"X-WNS-Error-Description": "Ttl value conflicts with X-WNS-Cache-Policy"}, want: reject("bad_request")},
		{name: "WNS too large", status: 413, want: reject("too_large")},
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, row := range answers() {
		header := http.Header{}
		for k, v := range row.header {
			header.Set(k, v)
		}
		row.at.now = noon
		got := classify(context.Background(), egress.Answer{Status: row.status, Header: header, Body: []byte(row.body), Wrote: true}, row.at)
		require.Equal(t, row.status, got.Status, row.name)
		require.NotEmpty(t, got.Detail, row.name)
		require.LessOrEqual(t, len(got.Detail), 256, row.name)
		got.Status, got.Detail = 0, ""
		require.Equal(t, row.want, got, row.name)
	}
}

// A body that was cut tells what it can; the status decides.
func TestClassifyCutBody(t *testing.T) {
	t.Parallel()
	got := classify(context.Background(), egress.Answer{Status: 201, Header: http.Header{}, BodyErr: errors.New("cut")}, attempt{now: noon})
	require.Equal(t, channels.Accepted, got.Outcome)
	got = classify(context.Background(), egress.Answer{Status: 401, Header: http.Header{}, Body: []byte(`{"errno":109,"message":"VAPID public key mis`), BodyErr: errors.New("cut")}, attempt{now: noon})
	require.Equal(t, channels.RenewToken, got.Renew)
}

func TestClassifyDetail(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		apple("BadJwtToken"):           "BadJwtToken",
		autopush(401, 109, "secret-x"): "errno 109",
		apple("secret-x"):              "(403)",
		`{"reason":5,"errno":"109"}`:   "(403)",
		"secret-x":                     "(403)",
	} {
		got := classify(context.Background(), egress.Answer{Status: 403, Header: http.Header{}, Body: []byte(body)}, attempt{now: noon, renewed: channels.RenewToken})
		require.Contains(t, got.Detail, want)
		require.NotContains(t, got.Detail, "secret-x")
	}
}

func TestClassifyTransport(t *testing.T) {
	t.Parallel()
	const endpoint = "https://push.example/secret-endpoint"
	stopping, stop := context.WithCancelCause(context.Background())
	stop(channels.ErrStopping)
	for name, c := range map[string]struct {
		ctx   context.Context
		err   error
		wrote bool
		want  channels.Result
	}{
		"refused by the guard": {context.Background(), egress.ErrRefused, false, reject("refused_address")},
		"no such name": {context.Background(), &net.DNSError{IsNotFound: true}, false,
			channels.Result{Outcome: channels.Retry, Code: "transport.dns_not_found", MaxTries: 3, Unreached: true}},
		"no answer": {context.Background(), context.DeadlineExceeded, true,
			channels.Result{Outcome: channels.Retry, Code: "transport.timeout", Ambiguous: true}},
		"we stop": {stopping, context.Canceled, true,
			channels.Result{Outcome: channels.Interrupted, Code: "stopping", Ambiguous: true}},
	} {
		got := classify(c.ctx, egress.Answer{Err: &url.Error{Op: "Post", URL: endpoint, Err: c.err}, Wrote: c.wrote}, attempt{now: noon})
		require.NotContains(t, got.Detail, "secret", name)
		got.Detail = ""
		require.Equal(t, c.want, got, name)
	}
}

func FuzzClassify(f *testing.F) {
	for _, row := range answers() {
		f.Add(row.status, []byte(row.body), row.header["Retry-After"], row.header["X-WNS-Status"], uint8(row.at.renewed), row.at.padded)
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, after, wns string, renewed uint8, padded bool) {
		header := http.Header{"Retry-After": {after}, "X-Wns-Status": {wns}}
		r := classify(context.Background(), egress.Answer{Status: status, Header: header, Body: body},
			attempt{renewed: channels.Renewal(renewed), padded: padded, now: noon})
		switch {
		case r.Outcome < channels.Accepted || r.Outcome > channels.Denied:
			t.Fatalf("%v for %d", r.Outcome, status)
		case r.Outcome == channels.Accepted && (status < 200 || status > 299):
			t.Fatalf("%d counts as accepted", status)
		case r.Code == "" || r.Detail == "" || len(r.Detail) > 256:
			t.Fatalf("%+v", r)
		case r.Renew != channels.RenewNothing && r.Renew == channels.Renewal(renewed) && r.Renew == channels.RenewToken:
			t.Fatalf("asks twice for a fresh token")
		case r.NotBefore.After(noon.Add(channels.MaxRetryAfter)):
			t.Fatalf("waits until %v", r.NotBefore)
		case len(body) > 40 && strings.Contains(r.Detail, string(body)):
			t.Fatalf("the detail shows the body")
		}
	})
}

// TestWhoseReasonDidNotComeIsNotJudged: it would have told a message, a browser and a
// VAPID pair apart.
func TestWhoseReasonDidNotComeIsNotJudged(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403} {
		r := classify(t.Context(), egress.Answer{Status: status, Body: []byte(`{"rea`), BodyErr: io.ErrUnexpectedEOF}, renewed)
		require.Equal(t, channels.Retry, r.Outcome, status)
		require.Equal(t, "webpush.answer_cut", r.Code)
		require.Equal(t, fewTries, r.MaxTries)
	}
	for status, code := range map[int]string{201: "webpush.accepted", 404: "webpush.gone", 410: "webpush.gone", 500: "webpush.unavailable"} {
		require.Equal(t, code, classify(t.Context(), egress.Answer{Status: status, BodyErr: io.ErrUnexpectedEOF}, attempt{}).Code)
	}
}

// TestHeadersThatAreTooLargeAreNotRepeated: the push service has answered.
func TestHeadersThatAreTooLargeAreNotRepeated(t *testing.T) {
	t.Parallel()
	r := classify(t.Context(), egress.Answer{Err: egress.ErrHeaders, Wrote: true}, attempt{})
	require.Equal(t, channels.Rejected, r.Outcome)
	require.Equal(t, "webpush.headers_too_large", r.Code)
	require.True(t, r.Ambiguous)
}
