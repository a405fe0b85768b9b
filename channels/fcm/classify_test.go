package fcm

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/channeltest"
)

const (
	fcmError  = `{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"`
	violation = `{"@type":"type.googleapis.com/google.rpc.BadRequest","fieldViolations":[{"field":"`
	errorInfo = `{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED","domain":"googleapis.com","metadata":{"quota_limit":"SendsPerMinutePerProject"}}`
)

func fcmFailure(code string) string { return fcmError + code + `"}` }

func badField(field string) string { return violation + field + `","description":"x"}]}` }

// failed is an error body of FCM.
func failed(status, message string, details ...string) string {
	b := `{"error":{"code":0,"message":` + quote(message) + `,"status":"` + status + `"`
	for i, d := range details {
		if i == 0 {
			b += `,"details":[`
		} else {
			b += ","
		}
		b += d
	}
	if len(details) > 0 {
		b += "]"
	}
	return b + "}}"
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

var (
	gone         = channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered"}
	invalidToken = channels.Result{Outcome: channels.Gone, Code: "fcm.invalid_token"}
	invalid      = channels.Result{Outcome: channels.Rejected, Code: "fcm.invalid_argument"}
	thirdParty   = channels.Result{Outcome: channels.Rejected, Code: "fcm.third_party_auth"}
	mismatch     = channels.Result{Outcome: channels.Gone, Doubtful: true, Code: "fcm.sender_mismatch"}
	renew        = channels.Result{Outcome: channels.Retry, Renew: channels.RenewToken, Code: "fcm.token_refused"}
	tokenDenied  = channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.token_refused"}
	noPermission = channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.permission_denied"}
	noProject    = channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.project_not_found"}
	deviceQuota  = channels.Result{Outcome: channels.Throttled, Code: "fcm.device_quota"}
	someQuota    = channels.Result{Outcome: channels.Throttled, Wider: channels.ScopeCredential, Code: "fcm.quota"}
	projectQuota = channels.Result{Outcome: channels.Throttled, Scope: channels.ScopeCredential, Code: "fcm.project_quota"}
	internal     = channels.Result{Outcome: channels.Retry, Code: "fcm.internal", Floor: 10 * time.Second}
	unavailable  = channels.Result{Outcome: channels.Retry, Code: "fcm.unavailable", Floor: 10 * time.Second}
	overloaded   = channels.Result{Outcome: channels.Throttled, Code: "fcm.unavailable"}
	notFCMs      = channels.Result{Outcome: channels.Retry, Code: "fcm.unexpected_answer", Ambiguous: true, Floor: 10 * time.Second, MaxTries: 3}
	badGateway   = channels.Result{Outcome: channels.Retry, Code: "fcm.bad_gateway", Floor: 30 * time.Second}
)

func floor(r channels.Result, d time.Duration) channels.Result { r.Floor = d; return r }

func retryAfter(s string) http.Header { return http.Header{"Retry-After": {s}} }

// answers is every answer that FCM is known to give.
func answers() []channeltest.Case {
	const dead = "The registration token is not a valid FCM registration token"
	return []channeltest.Case{
		{Name: "200 without a name", Status: 200, Body: `{}`, Want: channels.Result{Outcome: channels.Accepted, Code: "fcm.accepted_without_id"}},
		{Name: "200 with a name of another type", Status: 200, Body: `{"name":5}`, Want: channels.Result{Outcome: channels.Accepted, Code: "fcm.accepted_without_id"}},
		{Name: "200 not JSON", Status: 200, Body: `<html>`, Want: notFCMs},
		{Name: "200 without a body", Status: 200, Body: ``, Want: notFCMs},
		{Name: "200 JSON that is no object", Status: 200, Body: `null`, Want: notFCMs},
		{Name: "400 dead token by text", Status: 400, Body: failed("INVALID_ARGUMENT", dead, fcmFailure("INVALID_ARGUMENT")), Want: invalidToken},
		{Name: "400 dead token by field", Status: 400, Body: failed("INVALID_ARGUMENT", "x", fcmFailure("INVALID_ARGUMENT"), badField("message.token")), Want: invalidToken},
		{Name: "400 dead fid, details in the other order", Status: 400, Body: failed("INVALID_ARGUMENT", "x", badField("message.fid"), fcmFailure("INVALID_ARGUMENT")), Want: invalidToken},
		{Name: "400 dead token in other words", Status: 400, Body: failed("INVALID_ARGUMENT", "That token is none of ours", fcmFailure("INVALID_ARGUMENT")), Want: invalid},
		{Name: "400 a field that is not the token, with its words", Status: 400, Body: failed("INVALID_ARGUMENT", dead, fcmFailure("INVALID_ARGUMENT"), badField("message.android.ttl")), Want: invalid},
		{Name: "404 unregistered in other words", Status: 404, Body: failed("NOT_FOUND", "The project does not exist.", fcmFailure("UNREGISTERED")), Want: gone},
		{Name: "400 no recipient", Status: 400, Body: failed("INVALID_ARGUMENT", "Recipient of the message is not set.", badField("message"), fcmFailure("INVALID_ARGUMENT")), Want: invalid},
		{Name: "400 wrong type", Status: 400, Body: failed("INVALID_ARGUMENT", "Invalid value", badField("message.data[0].value")), Want: invalid},
		{Name: "400 too large", Status: 400, Body: failed("INVALID_ARGUMENT", "Request contains an invalid argument."), Want: invalid},
		{Name: "400 not JSON", Status: 400, Body: "<html>", Want: invalid},
		{Name: "401 third party", Status: 401, Body: failed("UNAUTHENTICATED", "Auth error from APNS or Web Push Service", fcmFailure("THIRD_PARTY_AUTH_ERROR")), Want: thirdParty},
		{Name: "401 third party with the text of OAuth", Status: 401, Body: failed("UNAUTHENTICATED", "Request is missing required authentication credential.", fcmFailure("THIRD_PARTY_AUTH_ERROR")), Want: thirdParty},
		{Name: "401 third party, old name", Status: 401, Body: failed("UNAUTHENTICATED", "x", fcmFailure("APNS_AUTH_ERROR")),
			Target: func(t *channels.Target) { t.OS = "ios" }, Want: thirdParty},
		{Name: "401 our token", Status: 401, Body: failed("UNAUTHENTICATED", "Request had invalid authentication credentials."), Want: renew, Again: &tokenDenied},
		{Name: "401 not JSON", Status: 401, Body: "", Want: renew, Again: &tokenDenied},
		{Name: "403 other sender", Status: 403, Body: failed("PERMISSION_DENIED", "SenderId mismatch", fcmFailure("SENDER_ID_MISMATCH")), Want: mismatch},
		{Name: "403 IAM", Status: 403, Body: failed("PERMISSION_DENIED", "Permission 'cloudmessaging.messages.create' denied"), Want: noPermission},
		{Name: "404 unregistered", Status: 404, Body: failed("NOT_FOUND", "Requested entity was not found.", fcmFailure("UNREGISTERED")), Want: gone},
		{Name: "404 project", Status: 404, Body: failed("NOT_FOUND", "Requested entity was not found."), Want: noProject},
		{Name: "404 page", Status: 404, Body: "<html>Not Found</html>", Want: noProject},
		{Name: "429 FCM quota", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("QUOTA_EXCEEDED"), `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[]}`), Want: floor(deviceQuota, time.Minute)},
		{Name: "429 FCM quota with a wait", Status: 429, Header: retryAfter("90"), Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("QUOTA_EXCEEDED")), Want: deviceQuota, After: 90 * time.Second},
		{Name: "429 a code that is not known", Status: 429, Header: retryAfter("90"), Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("NEW_QUOTA")), Want: deviceQuota, After: 90 * time.Second},
		{Name: "429 project quota", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "Quota exceeded", errorInfo), Want: floor(projectQuota, time.Minute)},
		{Name: "429 project quota with a wait", Status: 429, Header: retryAfter("30"), Body: failed("RESOURCE_EXHAUSTED", "Quota exceeded", errorInfo), Want: projectQuota, After: 30 * time.Second},
		{Name: "429 project quota of FCM", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("QUOTA_EXCEEDED"), quotaFailure("project:my-project-1")), Want: floor(projectQuota, time.Minute)},
		{Name: "429 project by number, among others", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", quotaFailure("token:x", "project_number:1"), fcmFailure("QUOTA_EXCEEDED")), Want: floor(projectQuota, time.Minute)},
		{Name: "429 project by the id of the quota", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("QUOTA_EXCEEDED"),
			`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"SendsPerMinutePerProject"}]}`), Want: floor(projectQuota, time.Minute)},
		{Name: "429 device quota that speaks of send_requests", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "send_requests SendsPerMinutePerProject",
			fcmFailure("QUOTA_EXCEEDED"), quotaFailure("token:abc")), Want: floor(deviceQuota, time.Minute)},
		{Name: "429 without FcmError and subject", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "other words"), Want: floor(someQuota, time.Minute)},
		{Name: "429 without FcmError and subject, with a wait", Status: 429, Header: retryAfter("86400"), Body: failed("RESOURCE_EXHAUSTED", "x",
			`{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[]}`), Want: someQuota, After: 24 * time.Hour},
		{Name: "429 of a subject without FcmError", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", quotaFailure("token:abc")), Want: floor(deviceQuota, time.Minute)},
		{Name: "429 RetryInfo", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("QUOTA_EXCEEDED"), quotaFailure("project:p"), retryInfo("45s")), Want: projectQuota, After: 45 * time.Second},
		{Name: "429 RetryInfo after Retry-After", Status: 429, Header: retryAfter("30"), Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("QUOTA_EXCEEDED"), retryInfo("120.000s")), Want: deviceQuota, After: 2 * time.Minute},
		{Name: "429 RetryInfo before Retry-After", Status: 429, Header: retryAfter("90"), Body: failed("RESOURCE_EXHAUSTED", "x", retryInfo("1s"), fcmFailure("QUOTA_EXCEEDED")), Want: deviceQuota, After: 90 * time.Second},
		{Name: "429 RetryInfo beyond all bounds", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("QUOTA_EXCEEDED"), retryInfo("999999999s")), Want: deviceQuota, After: channels.MaxRetryAfter},
		{Name: "429 unreadable RetryInfo", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", fcmFailure("QUOTA_EXCEEDED"), retryInfo("-5s"), retryInfo("soon")), Want: floor(deviceQuota, time.Minute)},
		{Name: "503 RetryInfo", Status: 503, Body: failed("UNAVAILABLE", "x", fcmFailure("UNAVAILABLE"), retryInfo("20s")), Want: overloaded, After: 20 * time.Second},
		{Name: "429 with a member of another type", Status: 429, Body: failed("RESOURCE_EXHAUSTED", "x", `{"@type":5,"violations":"none"}`, fcmFailure("QUOTA_EXCEEDED"), quotaFailure("project:p")), Want: floor(projectQuota, time.Minute)},
		{Name: "429 not JSON", Status: 429, Body: "slow down", Want: floor(someQuota, time.Minute)},
		{Name: "500", Status: 500, Body: failed("INTERNAL", "Internal error encountered.", fcmFailure("INTERNAL")), Want: internal},
		{Name: "502", Status: 502, Header: http.Header{"Content-Type": {"text/html"}}, Body: "<html>Please try again in 30 seconds", Want: badGateway},
		{Name: "503", Status: 503, Body: failed("UNAVAILABLE", "The service is currently unavailable.", fcmFailure("UNAVAILABLE")), Want: unavailable},
		{Name: "503 with a wait", Status: 503, Header: retryAfter("120"), Body: failed("UNAVAILABLE", "x", fcmFailure("UNAVAILABLE")), Want: overloaded, After: 2 * time.Minute},
		{Name: "503 page", Status: 503, Body: "<html>", Want: unavailable},
		{Name: "503 with an unreadable wait", Status: 503, Header: retryAfter("soon"), Want: unavailable},
		{Name: "504", Status: 504, Body: "<html>", Want: channels.Result{Outcome: channels.Retry, Code: "fcm.gateway_timeout", Floor: 10 * time.Second}},
		{Name: "599", Status: 599, Want: internal},
		{Name: "unspecified error", Status: 500, Body: failed("INTERNAL", "x", fcmFailure("UNSPECIFIED_ERROR")), Want: internal},
		{Name: "418", Status: 418, Want: channels.Result{Outcome: channels.Rejected, Code: "fcm.refused"}},
		{Name: "302", Status: 302, Header: http.Header{"Location": {"https://example.invalid/"}}, Want: channels.Result{Outcome: channels.Rejected, Code: "fcm.redirect"}},
		{Name: "600", Status: 600, Want: channels.Result{Outcome: channels.Retry, Code: "fcm.unexpected_status", Floor: 10 * time.Second, MaxTries: 3}},
	}
}

// appleAnswers are those that FCM passes on from Apple.
func appleAnswers() []channeltest.Case {
	doubtful := func(code string) channels.Result {
		return channels.Result{Outcome: channels.Gone, Doubtful: true, Code: "fcm.apns_" + code}
	}
	refused := channels.Result{Outcome: channels.Rejected, Code: "fcm.apns_refused"}
	down := channels.Result{Outcome: channels.Retry, Code: "fcm.apns_unavailable", Floor: 10 * time.Second}
	var cases []channeltest.Case
	for reason, want := range map[string]channels.Result{
		"BadDeviceToken": doubtful("bad_device_token"), "DeviceTokenNotForTopic": doubtful("device_token_not_for_topic"),
		"Unregistered": doubtful("unregistered"), "ExpiredToken": doubtful("expired_token"), "TooManyRequests": floor(deviceQuota, time.Minute),
		"ServiceUnavailable": down, "Shutdown": down, "TooManyProviderTokenUpdates": down,
		"TopicDisallowed": thirdParty, "InvalidProviderToken": thirdParty, "BadEnvironmentKeyInToken": thirdParty,
		"PayloadTooLarge": refused, "BadPriority": refused, "NobodyKnowsThis": invalid,
	} {
		cases = append(cases, channeltest.Case{Name: "400 Apple " + reason, Status: 400, Want: want,
			Body: failed("INVALID_ARGUMENT", "Request contains an invalid argument.", fcmFailure("INVALID_ARGUMENT"), apnsFailure(400, reason))})
	}
	return append(cases,
		channeltest.Case{Name: "400 Apple, without FcmError", Status: 400, Body: failed("INVALID_ARGUMENT", "x", apnsFailure(400, "BadDeviceToken")), Want: doubtful("bad_device_token")},
		channeltest.Case{Name: "400 Apple 410 of a new kind", Status: 400, Body: failed("INVALID_ARGUMENT", "x", apnsFailure(410, "Retired"), fcmFailure("INVALID_ARGUMENT")), Want: doubtful("gone")},
		channeltest.Case{Name: "404 Apple", Status: 404, Body: failed("NOT_FOUND", "x", fcmFailure("UNREGISTERED"), apnsFailure(410, "Unregistered")), Want: gone},
		channeltest.Case{Name: "401 Apple", Status: 401, Body: failed("UNAUTHENTICATED", "x", fcmFailure("THIRD_PARTY_AUTH_ERROR"), apnsFailure(403, "Unheard")), Want: thirdParty},
	)
}

func quotaFailure(subjects ...string) string {
	b := `{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[`
	for i, s := range subjects {
		if i > 0 {
			b += ","
		}
		b += `{"subject":"` + s + `","description":"Message rate exceeded"}`
	}
	return b + "]}"
}

func retryInfo(delay string) string {
	return `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"` + delay + `"}`
}

func apnsFailure(status int, reason string) string {
	return `{"@type":"type.googleapis.com/google.firebase.fcm.v1.ApnsError","statusCode":` + strconv.Itoa(status) + `,"reason":"` + reason + `"}`
}

func probes() []channeltest.Case {
	good := channels.Result{Outcome: channels.Accepted, Code: "fcm.credential_good"}
	return []channeltest.Case{
		{Name: "200", Status: 200, Body: `{"name":"projects/p/messages/fake_message_id"}`, Want: good},
		{Name: "bad token", Status: 400, Body: failed("INVALID_ARGUMENT", "x", badField("message.token")), Want: good},
		{Name: "bad message", Status: 400, Body: failed("INVALID_ARGUMENT", "x"), Want: good},
		{Name: "unregistered", Status: 404, Body: failed("NOT_FOUND", "x", fcmFailure("UNREGISTERED")), Want: good},
		{Name: "other sender", Status: 403, Body: failed("PERMISSION_DENIED", "x", fcmFailure("SENDER_ID_MISMATCH")), Want: good},
		{Name: "third party", Status: 401, Body: failed("UNAUTHENTICATED", "x", fcmFailure("THIRD_PARTY_AUTH_ERROR")), Want: good},
		{Name: "token", Status: 401, Body: failed("UNAUTHENTICATED", "x"), Want: tokenDenied},
		{Name: "IAM", Status: 403, Body: failed("PERMISSION_DENIED", "x"), Want: noPermission},
		{Name: "project", Status: 404, Body: failed("NOT_FOUND", "x"), Want: noProject},
		{Name: "overload", Status: 503, Want: unavailable},
	}
}

func TestContract(t *testing.T) {
	t.Parallel()
	channeltest.Run(t, channeltest.Harness{
		Open: func(t testing.TB, p *channeltest.Provider) channeltest.Setup {
			return open(t, newOAuth(t), p.URL, p.Roots, nil)
		},
		Message: channels.Message{Title: "secret title", Body: "secret body", Badge: new(int), Sound: "default", CollapseKey: "k",
			Data: json.RawMessage(`{"word":"secret value <&>","number":12345678901234567890,"list":[1, 2]}`), URL: "https://example.com/secret"},
		OK: channeltest.Case{Status: 200, Body: `{"name":"projects/my-project-1/messages/0:1"}`,
			Want: channels.Result{Outcome: channels.Accepted, Code: "fcm.accepted", ProviderID: "projects/my-project-1/messages/0:1"}},
		Cases:  append(answers(), appleAnswers()...),
		Probes: probes(),
		Payload: func(t testing.TB, r channeltest.Request) json.RawMessage {
			b, err := withoutAttempt(r.Body)
			require.NoError(t, err)
			return b
		},
		Secrets: []string{"secret title", "secret body", "secret value", "ya29.token", "PRIVATE KEY", testToken},
		Overrides: map[string]string{
			`{"token":"x"}`: "token", `{"data":{}}`: "data", `{"android":{"ttl":"3s"}}`: "android.ttl",
			`{"android":{"notification":{"foo":1}}}`:       "android.notification.foo",
			`{"android":{"data":{"a":"b"}}}`:               "android.data",
			`{"android":{"priority":"urgent"}}`:            "android.priority",
			`{"android":[]}`:                               "android",
			`{"apns":{"headers":{"apns-expiration":"0"}}}`: "apns.headers.apns-expiration",
			`{"apns":{"headers":{"apns-topic":"x"}}}`:      "apns.headers.apns-topic",
			`{"apns":{"payload":{"carillon":"x"}}}`:        "apns.payload.carillon",
			`{"apns":{"live_activity_token":"x"}}`:         "apns.live_activity_token",
			`{"apns":{"live_activity_token":"` + strings.Repeat("ab", 40) + `","payload":{"aps":{"event":"end","timestamp":1}}}}`: "apns.payload.aps.content-state",
			`{"webpush":{"headers":{"TTL":"5"}}}`:           "webpush.headers.TTL",
			`{"webpush":{"fcm_options":{"link":"http:a"}}}`: "webpush.fcm_options.link",
			`{"fcm_options":{"analytics_label":"a b"}}`:     "fcm_options.analytics_label",
			`{"notification":{"title":5}}`:                  "notification.title",
		},
		BadTargets: map[string]channels.Target{
			"kind":    {Kind: channels.APNsToken, Address: testToken},
			"address": {Kind: channels.FCMToken, Address: `../../evil?x="y"`},
		},
		BadCredentials: []string{`{}`, `{"service_account":"x"}`, `{"service_account":{}}`, `{"service_account":{"type":"external_account"}}`},
	})
}

// A body that was cut says nothing about the device or the key.
func TestClassifyCut(t *testing.T) {
	t.Parallel()
	unread := channels.Result{Outcome: channels.Retry, Code: "fcm.answer_cut", Floor: 10 * time.Second, MaxTries: 3}
	for status, want := range map[int]channels.Result{
		200: {Outcome: channels.Accepted, Code: "fcm.accepted_without_id"},
		400: unread, 403: unread, 404: unread,
		401: renew, 429: floor(someQuota, time.Minute), 500: internal, 502: badGateway, 503: unavailable,
	} {
		r := classify(answer{status: status, body: []byte(`{"error":{"details":[`), cut: true}, time.Now())
		want.Status, want.Detail = status, r.Detail
		require.Equal(t, want, r)
	}
}

func TestClassifyToken(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for status, want := range map[int]channels.Outcome{400: channels.Denied, 401: channels.Denied, 403: channels.Denied,
		404: channels.Retry, 429: channels.Throttled, 500: channels.Retry, 503: channels.Retry, 200: channels.Retry} {
		r := classifyToken(status, http.Header{}, "invalid_grant", now)
		require.Equal(t, want, r.Outcome, status)
	}
	require.NotContains(t, classifyToken(400, nil, "ya29.secret", now).Detail, "ya29")
}

func FuzzClassify(f *testing.F) {
	for _, c := range append(answers(), appleAnswers()...) {
		f.Add(c.Status, []byte(c.Body), c.Header.Get("Retry-After"), false)
	}
	f.Add(403, []byte(`{"error":{"details":[{"@type":"google.firebase.fcm.v1.FcmError","errorCode":"UNREG`), "-5", true)
	f.Add(404, []byte(`{"error":[]}`), "Wed, 21 Oct 2015 07:28:00 GMT", false)
	f.Fuzz(func(t *testing.T, status int, body []byte, wait string, cut bool) {
		now := time.Unix(1_800_000_000, 0)
		r := classify(answer{status: status, header: retryAfter(wait), body: body, cut: cut}, now)
		require.NotZero(t, r.Outcome)
		require.NotEmpty(t, r.Code)
		require.LessOrEqual(t, len(r.Detail), 256)
		require.Equal(t, status >= 200 && status < 300, r.Outcome == channels.Accepted || r.Code == "fcm.unexpected_answer")
		require.False(t, r.NotBefore.Before(now) && !r.NotBefore.IsZero())
		require.False(t, r.NotBefore.After(now.Add(channels.MaxRetryAfter)))
		if cut {
			require.NotEqual(t, channels.Gone, r.Outcome)
			require.NotEqual(t, channels.Denied, r.Outcome)
		}
	})
}

// TestAProxysPageIsNoSuccess: neither of a send, nor of a question about the credential.
func TestAProxysPageIsNoSuccess(t *testing.T) {
	t.Parallel()
	s := openAt(t, newOAuth(t), plainFCM(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>Sign in</html>")) }), nil)
	for _, r := range []channels.Result{send(t, s, life()), s.Sender.Probe(t.Context())} {
		require.Equal(t, channels.Retry, r.Outcome)
		require.Equal(t, "fcm.unexpected_answer", r.Code)
		require.True(t, r.Ambiguous)
	}
}
