package apns

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

// invalidAt is Apple's example of a 410's timestamp.
var invalidAt = time.UnixMilli(1454948015990)

// row is an answer, what it meets, and the verdict without its Detail.
type row struct {
	status int
	body   string
	in     circumstances
	want   channels.Result
	floor  time.Duration // of the verdict
}

// rows is Apple's whole table, and what else may come.
func rows() []row {
	const gone = `{"reason":"Unregistered","timestamp":1454948015990}`
	return []row{
		{200, "", circumstances{}, channels.Result{Outcome: channels.Accepted, Code: "apns.accepted"}, 0},
		{400, `{"reason":"BadCollapseId"}`, circumstances{}, rejected("bad_collapse_id"), 0},
		{400, `{"reason":"BadExpirationDate"}`, circumstances{}, rejected("bad_expiration_date"), 0},
		{400, `{"reason":"BadMessageId"}`, circumstances{}, rejected("bad_message_id"), 0},
		{400, `{"reason":"BadPriority"}`, circumstances{}, rejected("bad_priority"), 0},
		{400, `{"reason":"InvalidPushType"}`, circumstances{}, rejected("invalid_push_type"), 0},
		{400, `{"reason":"DuplicateHeaders"}`, circumstances{}, rejected("duplicate_headers"), 0},
		{400, `{"reason":"PayloadEmpty"}`, circumstances{}, rejected("payload_empty"), 0},
		{400, `{"reason":"MissingDeviceToken"}`, circumstances{}, rejected("missing_device_token"), 0},
		{403, `{"reason":"Forbidden"}`, circumstances{}, rejected("forbidden"), 0},
		{404, `{"reason":"BadPath"}`, circumstances{}, rejected("bad_path"), 0},
		{405, `{"reason":"MethodNotAllowed"}`, circumstances{}, rejected("method_not_allowed"), 0},
		{413, `{"reason":"PayloadTooLarge"}`, circumstances{}, rejected("payload_too_large"), 0},
		{400, `{"reason":"BadDeviceToken"}`, circumstances{}, channels.Result{Outcome: channels.Gone, Code: "apns.bad_device_token", Doubtful: true}, 0},
		{400, `{"reason":"BadDeviceToken"}`, circumstances{tryOther: true}, channels.Result{Outcome: channels.Retry, Code: "apns.bad_device_token", Renew: channels.RenewGateway}, 0},
		{400, `{"reason":"DeviceTokenNotForTopic"}`, circumstances{}, channels.Result{Outcome: channels.Gone, Code: "apns.device_token_not_for_topic", Doubtful: true}, 0},
		{400, `{"reason":"DeviceTokenNotForTopic"}`, circumstances{ownTopic: true}, rejected("device_token_not_for_topic"), 0},
		{410, gone, circumstances{}, channels.Result{Outcome: channels.Gone, Code: "apns.unregistered"}, 0},
		{410, gone, circumstances{registeredAt: invalidAt.Add(-time.Millisecond)}, channels.Result{Outcome: channels.Gone, Code: "apns.unregistered"}, 0},
		{410, gone, circumstances{registeredAt: invalidAt}, channels.Result{Outcome: channels.Retry, Code: "apns.unregistered", MaxTries: 2}, 0},
		{410, `{"reason":"ExpiredToken","timestamp":"1454948015990"}`, circumstances{registeredAt: invalidAt.Add(time.Hour)}, channels.Result{Outcome: channels.Retry, Code: "apns.expired_token", MaxTries: 2}, 0},
		{410, `{"reason":"ExpiredToken","timestamp":null}`, circumstances{registeredAt: invalidAt}, channels.Result{Outcome: channels.Gone, Code: "apns.expired_token"}, 0},
		{410, `<html>`, circumstances{}, channels.Result{Outcome: channels.Gone, Code: "apns.status_410", Doubtful: true}, 0},
		{400, `{"reason":"BadTopic"}`, circumstances{}, denied("bad_topic"), 0},
		{400, `{"reason":"MissingTopic"}`, circumstances{}, denied("missing_topic"), 0},
		{400, `{"reason":"TopicDisallowed"}`, circumstances{}, denied("topic_disallowed"), 0},
		{400, `{"reason":"TopicDisallowed"}`, circumstances{ownTopic: true}, rejected("topic_disallowed"), 0},
		{403, `{"reason":"BadCertificate"}`, circumstances{}, denied("bad_certificate"), 0},
		{403, `{"reason":"BadCertificateEnvironment"}`, circumstances{}, denied("bad_certificate_environment"), 0},
		{403, `{"reason":"InvalidProviderToken"}`, circumstances{}, denied("invalid_provider_token"), 0},
		{403, `{"reason":"MissingProviderToken"}`, circumstances{}, denied("missing_provider_token"), 0},
		{403, `{"reason":"BadEnvironmentKeyIdInToken"}`, circumstances{}, denied("bad_environment_key_id_in_token"), 0},
		{403, `{"reason":"BadEnvironmentKeyInToken"}`, circumstances{}, denied("bad_environment_key_id_in_token"), 0},
		{403, `{"reason":"BadEnvironmentKeyInToken"}`, circumstances{auto: true, fallible: true}, denied("bad_environment_key_id_in_token"), 0},
		{403, `{"reason":"BadEnvironmentKeyIdInToken"}`, circumstances{other: otherUnknown, auto: true}, channels.Result{Outcome: channels.Retry, Code: "apns.bad_environment_key_id_in_token"}, 10 * time.Second},
		{403, `{"reason":"BadEnvironmentKeyIdInToken"}`, circumstances{other: otherTakes}, rejected("environment_mismatch"), 0},
		{403, `{"reason":"BadEnvironmentKeyIdInToken"}`, circumstances{other: otherTakes, auto: true}, channels.Result{Outcome: channels.Retry, Code: "apns.bad_environment_key_id_in_token", Renew: channels.RenewGateway}, 0},
		{403, `{"reason":"BadEnvironmentKeyInToken"}`, circumstances{other: otherTakes, auto: true, renewed: channels.RenewGateway}, channels.Result{Outcome: channels.Gone, Code: "apns.bad_device_token", Doubtful: true}, 0},
		{403, `{"reason":"ExpiredProviderToken"}`, circumstances{}, channels.Result{Outcome: channels.Retry, Code: "apns.expired_provider_token", Renew: channels.RenewToken}, 0},
		{403, `{"reason":"ExpiredProviderToken"}`, circumstances{renewed: channels.RenewToken}, denied("expired_provider_token"), 0},
		{403, `{"reason":"ExpiredProviderToken"}`, circumstances{renewed: channels.RenewGateway}, channels.Result{Outcome: channels.Retry, Code: "apns.expired_provider_token"}, 0},
		{403, `{"reason":"UnrelatedKeyIdInToken"}`, circumstances{}, channels.Result{Outcome: channels.Retry, Code: "apns.unrelated_key_id_in_token", Renew: channels.RenewConnection}, 0},
		{403, `{"reason":"UnrelatedKeyIdInToken"}`, circumstances{renewed: channels.RenewConnection}, denied("unrelated_key_id_in_token"), 0},
		{429, `{"reason":"TooManyProviderTokenUpdates"}`, circumstances{}, channels.Result{Outcome: channels.Throttled, Scope: channels.ScopeCredential, Code: "apns.too_many_provider_token_updates"}, 20 * time.Minute},
		{429, `{"reason":"TooManyRequests"}`, circumstances{}, channels.Result{Outcome: channels.Throttled, Code: "apns.too_many_requests"}, time.Minute},
		{429, ``, circumstances{}, channels.Result{Outcome: channels.Throttled, Code: "apns.status_429"}, time.Minute},
		{400, `{"reason":"IdleTimeout"}`, circumstances{}, channels.Result{Outcome: channels.Retry, Code: "apns.idle_timeout", Renew: channels.RenewConnection}, 0},
		{503, `{"reason":"Shutdown"}`, circumstances{}, channels.Result{Outcome: channels.Retry, Code: "apns.shutdown", Renew: channels.RenewConnection}, 0},
		{503, `{"reason":"Shutdown"}`, circumstances{renewed: channels.RenewConnection}, channels.Result{Outcome: channels.Retry, Code: "apns.shutdown"}, 10 * time.Second},
		{500, `{"reason":"InternalServerError"}`, circumstances{}, channels.Result{Outcome: channels.Retry, Code: "apns.internal_server_error"}, 10 * time.Second},
		{503, `{"reason":"ServiceUnavailable"}`, circumstances{}, channels.Result{Outcome: channels.Retry, Code: "apns.service_unavailable"}, 10 * time.Second},
		{502, `<html>`, circumstances{}, channels.Result{Outcome: channels.Retry, Code: "apns.status_502"}, 10 * time.Second},
		{418, `{"reason":5}`, circumstances{}, rejected("status_418"), 0},
		{302, ``, circumstances{}, rejected("status_302"), 0},
		{204, ``, circumstances{}, channels.Result{Outcome: channels.Retry, Code: "apns.status_204", MaxTries: 3}, 0},
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for _, c := range rows() {
		c.in.now = now
		c.want.Floor = c.floor
		a := parseReply(c.status, http.Header{"Apns-Id": {testUUID}}, []byte(c.body))
		a.jwtNext = true
		got := classify(a, c.in).Result
		require.Equal(t, c.status, got.Status)
		require.Equal(t, testUUID, got.ProviderID)
		if got.Outcome != channels.Accepted {
			require.NotEmpty(t, got.Detail)
		}
		got.Status, got.ProviderID, got.Detail = 0, "", ""
		require.Equal(t, c.want, got, "%d %s", c.status, c.body)
	}
}

func rejected(code string) channels.Result {
	return channels.Result{Outcome: channels.Rejected, Code: "apns." + code}
}

func denied(code string) channels.Result {
	return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "apns." + code}
}

func TestRetryAfterIsHonouredEverywhere(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	for body, want := range map[string]time.Duration{
		`{"reason":"ServiceUnavailable"}`:          2 * time.Minute,
		`{"reason":"Shutdown"}`:                    2 * time.Minute,
		`{"reason":"TooManyRequests"}`:             2 * time.Minute,
		`{"reason":"TooManyProviderTokenUpdates"}`: 2 * time.Minute,
	} {
		v := classify(parseReply(503, http.Header{"Retry-After": {"120"}}, []byte(body)), circumstances{now: now})
		require.Equal(t, now.Add(want), v.NotBefore, body)
		require.Zero(t, v.Renew, body)
	}
}

func TestUnknownReasonsAreShownOnlyIfTheyLookLikeOne(t *testing.T) {
	t.Parallel()
	s := openAt(t, serve(t, answer(400, `{"reason":"NewReasonOfApple"}`)))
	require.Contains(t, send(t, s).Detail, "NewReasonOfApple")
	for _, reason := range []string{testToken, "eyJhbGciOi.J", strings.Repeat("Abc", 20), "A b"} {
		v := classify(parseReply(400, nil, []byte(`{"reason":"`+reason+`"}`)), circumstances{})
		require.NotContains(t, v.Detail, reason)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(410, `{"reason":"Unregistered","timestamp":1454948015990}`, "", int64(0), uint8(0))
	f.Add(503, `<html>`, "120", int64(1), uint8(4))
	f.Add(403, `{"reason":"ExpiredProviderToken","timestamp":-1e400}`, "x", int64(5), uint8(1))
	f.Add(403, `{"reason":"BadEnvironmentKeyIdInToken"}`, "", int64(0), uint8(4))
	f.Add(429, `<html>`, "0", int64(0), uint8(0))
	f.Add(403, `{"rea`, "", int64(8), uint8(0))
	f.Fuzz(func(t *testing.T, status int, body, retryAfter string, registered int64, renewed uint8) {
		now := time.Unix(1_800_000_000, 0)
		c := circumstances{renewed: channels.Renewal(renewed), registeredAt: time.UnixMilli(registered), tryOther: renewed != uint8(channels.RenewGateway), now: now,
			other: otherGateway(registered & 3 % 3), auto: registered&4 != 0}
		a := parseReply(status, http.Header{"Retry-After": {retryAfter}}, []byte(body))
		a.cut = registered&8 != 0
		v := classify(a, c)
		require.Contains(t, []channels.Outcome{channels.Accepted, channels.Retry, channels.Throttled, channels.Gone, channels.Rejected, channels.Denied}, v.Outcome)
		require.Equal(t, status == 200, v.Outcome == channels.Accepted)
		require.True(t, strings.HasPrefix(v.Code, "apns."))
		require.LessOrEqual(t, len(v.Code), 64)
		require.LessOrEqual(t, len(v.Detail), 256)
		require.False(t, v.NotBefore.After(now.Add(channels.MaxRetryAfter)))
		if v.Outcome == channels.Throttled {
			require.True(t, v.Floor > 0 || v.NotBefore.After(now))
		}
		if v.Renew != channels.RenewNothing {
			require.Equal(t, channels.Retry, v.Outcome)
			require.NotEqual(t, c.renewed, v.Renew, "two equal renewals in a row")
		}
	})
}

func TestSendingNeedsNoDeadline(t *testing.T) {
	t.Parallel()
	f := serve(t, answer(200, ""))
	r := openAt(t, f).Send(context.Background(), device(), hello(t), life())
	require.Equal(t, channels.Accepted, r.Outcome)
}

// TestWhoseReasonDidNotComeIsNotJudged: it would have told a device, a message and a
// credential apart.
func TestWhoseReasonDidNotComeIsNotJudged(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 403, 404, 410} {
		v := classify(replyOf(egress.Answer{Status: status, Body: []byte(`{"rea`), BodyErr: io.ErrUnexpectedEOF}), circumstances{})
		require.Equal(t, channels.Retry, v.Outcome, status)
		require.Equal(t, "apns.answer_cut", v.Code)
		require.Equal(t, 3, v.MaxTries)
	}
	v := classify(replyOf(egress.Answer{Status: 200, BodyErr: io.ErrUnexpectedEOF}), circumstances{})
	require.Equal(t, channels.Accepted, v.Outcome)
	v = classify(replyOf(egress.Answer{Status: 410, Body: []byte(`{"reason":"Unregistered"}`), BodyErr: io.ErrUnexpectedEOF}), circumstances{})
	require.Equal(t, "apns.unregistered", v.Code, "what did come counts")
}
