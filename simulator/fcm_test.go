package simulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

const messagingScope = "https://www.googleapis.com/auth/firebase.messaging"

func assertionClaims(a serviceAccount, now time.Time) jwt.MapClaims {
	return jwt.MapClaims{"iss": a.Email, "scope": messagingScope, "aud": a.TokenURI, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
}

func (r *rig) askToken(t testing.TB, grant, assertion string) got {
	t.Helper()
	form := url.Values{"grant_type": {grant}, "assertion": {assertion}}
	return r.do(t, http.MethodPost, r.FCM().TokenURI, map[string]string{"Content-Type": "application/x-www-form-urlencoded"},
		[]byte(form.Encode()))
}

const jwtBearer = "urn:ietf:params:oauth:grant-type:jwt-bearer"

// bearer is an access token of the default service account.
func (r *rig) bearer(t testing.TB) string {
	t.Helper()
	account, key := readAccount(t, r.FCM().ServiceAccount)
	a := r.askToken(t, jwtBearer, sign(t, jwt.SigningMethodRS256, key, account.KeyID, assertionClaims(account, r.clock.Now())))
	require.Equal(t, http.StatusOK, a.status, string(a.body))
	var token struct {
		Access  string `json:"access_token"`
		Type    string `json:"token_type"`
		Expires int    `json:"expires_in"`
	}
	require.NoError(t, json.Unmarshal(a.body, &token))
	require.Equal(t, "Bearer", token.Type)
	require.Equal(t, 3599, token.Expires)
	return token.Access
}

func (r *rig) sendFCM(t testing.TB, bearer, project, body string) got {
	t.Helper()
	return r.do(t, http.MethodPost, r.FCM().URL+"/v1/projects/"+project+"/messages:send",
		map[string]string{"Authorization": "Bearer " + bearer, "Content-Type": "application/json"}, []byte(body))
}

func TestOAuth(t *testing.T) {
	t.Parallel()
	r := setup(t)
	account, key := readAccount(t, r.FCM().ServiceAccount)
	_, foreign := readAccount(t, r.FCM().NewServiceAccount("other-project"))
	now := r.clock.Now()
	with := func(name string, value any) string {
		c := assertionClaims(account, now)
		c[name] = value
		return sign(t, jwt.SigningMethodRS256, key, account.KeyID, c)
	}
	good := with("iss", account.Email)
	for name, c := range map[string]struct{ grant, assertion, want, says string }{
		"other grant":     {"client_credentials", good, "unsupported_grant_type", "client_credentials"},
		"not a token":     {jwtBearer, "a.b", "invalid_grant", "Invalid JWT"},
		"not JSON":        {jwtBearer, "YQ.YQ.YQ", "invalid_grant", "Invalid JWT"},
		"unknown account": {jwtBearer, with("iss", "nobody@example.com"), "invalid_grant", "account not found"},
		"other key": {jwtBearer, sign(t, jwt.SigningMethodRS256, foreign, account.KeyID, assertionClaims(account, now)),
			"invalid_grant", "Signature"},
		"other kid": {jwtBearer, sign(t, jwt.SigningMethodRS256, key, "k", assertionClaims(account, now)), "invalid_grant", "Signature"},
		"other alg": {jwtBearer, sign(t, jwt.SigningMethodRS512, key, account.KeyID, assertionClaims(account, now)),
			"invalid_grant", "Signature"},
		"other audience": {jwtBearer, with("aud", "https://example.com/token"), "invalid_grant", "audience"},
		"expired":        {jwtBearer, with("exp", now.Add(-time.Hour).Unix()), "invalid_grant", "short-lived"},
		"too long":       {jwtBearer, with("exp", now.Add(2*time.Hour).Unix()), "invalid_grant", "short-lived"},
		"from tomorrow":  {jwtBearer, with("iat", now.Add(24*time.Hour).Unix()), "invalid_grant", "short-lived"},
		"no scope":       {jwtBearer, with("scope", ""), "invalid_scope", "scope"},
	} {
		a := r.askToken(t, c.grant, c.assertion)
		require.Equal(t, http.StatusBadRequest, a.status, name)
		var e struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}
		require.NoError(t, json.Unmarshal(a.body, &e), name)
		require.Equal(t, c.want, e.Error, name)
		require.Contains(t, e.Description, c.says, name)
	}
	require.Equal(t, http.StatusOK, r.askToken(t, jwtBearer, good).status)
	require.Equal(t, http.StatusOK, r.askToken(t, jwtBearer, with("aud", "https://oauth2.googleapis.com/token")).status)
	require.Equal(t, http.StatusOK, r.askToken(t, jwtBearer, sign(t, jwt.SigningMethodRS256, key, "", assertionClaims(account, now))).status)

	r.FCM().Register("elsewhere@example.com", "other-project", "k1", &foreign.PublicKey)
	c := assertionClaims(account, now)
	c["iss"] = "elsewhere@example.com"
	require.Equal(t, http.StatusOK, r.askToken(t, jwtBearer, sign(t, jwt.SigningMethodRS256, foreign, "k1", c)).status)
	require.EqualValues(t, 4, r.Report().Channels[simulator.OAuth].Accepted)

	r.SetFault("oauth", simulator.Fault{Status: 503, Times: 1})
	require.Equal(t, 503, r.askToken(t, jwtBearer, good).status)
	require.NoError(t, r.FCM().Revoke(r.FCM().ServiceAccount))
	require.Equal(t, 400, r.askToken(t, jwtBearer, good).status)
}

func TestFCMAuthorization(t *testing.T) {
	t.Parallel()
	r := setup(t)
	project, token := r.FCM().Project, r.bearer(t)
	const message = `{"message":{"token":"anna","data":{"k":"v"}}}`
	a := r.sendFCM(t, token, project, message)
	require.Equal(t, 200, a.status)
	require.Regexp(t, `^\{\s*"name": "projects/`+project+`/messages/0:\d+%[0-9a-f]+"\s*\}\s*$`, string(a.body))

	require.Equal(t, 401, r.sendFCM(t, "made up", project, message).status)
	other := r.sendFCM(t, token, "other-project", message)
	require.Equal(t, 403, other.status)
	require.Contains(t, string(other.body), "cloudmessaging.messages.create")
	require.Equal(t, 404, r.sendFCM(t, token, "a/b", message).status)
	require.Equal(t, 405, r.do(t, http.MethodGet, r.FCM().URL+"/v1/projects/p/messages:send", nil, nil).status)

	account, key := readAccount(t, r.FCM().ServiceAccount)
	c := assertionClaims(account, r.clock.Now())
	c["scope"] = "https://www.googleapis.com/auth/userinfo.email"
	var narrow struct {
		Access string `json:"access_token"`
	}
	require.NoError(t, json.Unmarshal(r.askToken(t, jwtBearer, sign(t, jwt.SigningMethodRS256, key, account.KeyID, c)).body, &narrow))
	a = r.sendFCM(t, narrow.Access, project, message)
	require.Equal(t, 403, a.status)
	require.Contains(t, string(a.body), "insufficient authentication scopes")

	r.clock.Advance(time.Hour + time.Second)
	require.Equal(t, 401, r.sendFCM(t, token, project, message).status, "an access token lives an hour")
	token = r.bearer(t)
	require.Equal(t, 200, r.sendFCM(t, token, project, message).status)
	r.FCM().ExpireTokens()
	require.Equal(t, 401, r.sendFCM(t, token, project, message).status)
	token = r.bearer(t)
	require.NoError(t, r.FCM().Revoke(r.FCM().ServiceAccount))
	require.Equal(t, 401, r.sendFCM(t, token, project, message).status)
}

// fcmBody is an error in Google's form.
type fcmBody struct {
	Error struct {
		Code    int              `json:"code"`
		Message string           `json:"message"`
		Status  string           `json:"status"`
		Details []map[string]any `json:"details"`
	} `json:"error"`
}

// codes are the errorCode and the fields at fault.
func (b fcmBody) codes() (code string, fields []string) {
	for _, d := range b.Error.Details {
		if c, ok := d["errorCode"].(string); ok {
			code = c
		}
		if violations, ok := d["fieldViolations"].([]any); ok {
			for _, v := range violations {
				fields = append(fields, v.(map[string]any)["field"].(string))
			}
		}
	}
	return code, fields
}

func TestFCMChecksMessages(t *testing.T) {
	t.Parallel()
	r := setup(t)
	token := r.bearer(t)
	for _, good := range []string{
		`"token":"a"`, `"fid":"a"`, `"topic":"news_1"`, `"condition":"'a' in topics"`,
		`"token":"a","data":{"k":"v"},"notification":{"title":"t","body":"b","image":"https://example.com/i.png"}`,
		`"token":"a","android":{"priority":"HIGH","ttl":"2419200s","collapse_key":"c","data":{"x":"y"},"restricted_package_name":"com.example.app",
			"notification":{"channel_id":"c","color":"#a0B1c2","tag":"t","notification_count":3,"title_loc_key":"k","title_loc_args":["a"]}}`,
		`"token":"a","android":{"ttl":"3.5s"}`, `"token":"a","android":{"ttl":"0s"}`,
		`"token":"a","apns":{"live_activity_token":"` + strings.Repeat("ab", 40) + `","payload":{"aps":{"event":"end","timestamp":1,"content-state":{}}}}`,
		`"token":"a","apns":{"headers":{"apns-priority":"5","apns-expiration":"0"},"payload":{"aps":{"alert":"x"},"own":1}}`,
		`"token":"a","webpush":{"headers":{"TTL":"60","Urgency":"high"},"notification":{"title":"t"},"fcm_options":{"link":"https://example.com/"}}`,
		`"token":"a","fcm_options":{"analytics_label":"a-b_c"}`,
		`"token":"a","data":{"k":"` + strings.Repeat("x", 4095) + `"}`,
		`"topic":"a","data":{"k":"` + strings.Repeat("x", 2047) + `"}`,
	} {
		a := r.sendFCM(t, token, r.FCM().Project, `{"message":{`+good+`}}`)
		require.Equal(t, 200, a.status, "%.200s: %s", good, a.body)
	}
	for bad, want := range map[string]string{ // message -> "field errorCode"
		`"data":{}`:                                                                             "message INVALID_ARGUMENT",
		`"token":"a","topic":"b"`:                                                               "message INVALID_ARGUMENT",
		`"token":"a","fid":"b"`:                                                                 "message INVALID_ARGUMENT",
		`"topic":"a b"`:                                                                         "message.topic INVALID_ARGUMENT",
		`"topic":"/topics/a"`:                                                                   "message.topic INVALID_ARGUMENT",
		`"token":"a","name":"n"`:                                                                "message.name INVALID_ARGUMENT",
		`"token":"a","data":{"k":12}`:                                                           "message.data[0].value ",
		`"token":"a","data":{"k":{"a":"b"}}`:                                                    "message.data[0].value ",
		`"token":12`:                                                                            "message.token ",
		`"token":"a","unheard":1`:                                                               "message ",
		`"token":"a","android":{"unheard":1}`:                                                   "message ",
		`"token":"a","data":{"from":"x"}`:                                                       "message.data INVALID_ARGUMENT",
		`"token":"a","data":{"message_type":"x"}`:                                               "message.data INVALID_ARGUMENT",
		`"token":"a","data":{"google.x":"x"}`:                                                   "message.data INVALID_ARGUMENT",
		`"token":"a","data":{"gcm.notification.x":"x"}`:                                         "message.data INVALID_ARGUMENT",
		`"token":"a","android":{"data":{"googlex":"x"}}`:                                        "message.data INVALID_ARGUMENT",
		`"token":"a","webpush":{"data":{"gcm":"x"}}`:                                            "message.data INVALID_ARGUMENT",
		`"token":"a","notification":{"image":"i.png"}`:                                          "message.notification.image INVALID_ARGUMENT",
		`"token":"a","android":{"ttl":"60"}`:                                                    "message.android.ttl INVALID_ARGUMENT",
		`"token":"a","android":{"ttl":"-1s"}`:                                                   "message.android.ttl INVALID_ARGUMENT",
		`"token":"a","android":{"ttl":"1m"}`:                                                    "message.android.ttl INVALID_ARGUMENT",
		`"token":"a","android":{"ttl":"2419201s"}`:                                              "message.android.ttl INVALID_ARGUMENT",
		`"token":"a","android":{"ttl":""}`:                                                      "message.android.ttl INVALID_ARGUMENT",
		`"token":"a","android":{"priority":"urgent"}`:                                           "message.android.priority INVALID_ARGUMENT",
		`"token":"a","android":{"restricted_package_name":"x"}`:                                 "message.android.restricted_package_name INVALID_ARGUMENT",
		`"token":"a","android":{"notification":{"color":"red"}}`:                                "message.android.notification.color INVALID_ARGUMENT",
		`"token":"a","android":{"notification":{"image":"x"}}`:                                  "message.android.notification.image INVALID_ARGUMENT",
		`"token":"a","android":{"notification":{"body_loc_args":["x"]}}`:                        "message.android.notification.body_loc_key INVALID_ARGUMENT",
		`"token":"a","android":{"notification":{"title_loc_args":["x"]}}`:                       "message.android.notification.title_loc_key INVALID_ARGUMENT",
		`"token":"a","apns":{"headers":{"apns-priority":"7"}}`:                                  "message.apns.headers INVALID_ARGUMENT",
		`"token":"a","apns":{"headers":{"apns-expiration":"soon"}}`:                             "message.apns.headers INVALID_ARGUMENT",
		`"token":"a","apns":{"headers":{"apns-collapse-id":"` + strings.Repeat("c", 65) + `"}}`: "message.apns.headers INVALID_ARGUMENT",
		`"token":"a","apns":{"live_activity_token":"x"}`:                                        "message.apns.live_activity_token INVALID_ARGUMENT",
		`"token":"a","apns":{"live_activity_token":"` + strings.Repeat("ab", 40) + `","payload":{"aps":{"event":"end","timestamp":1}}}`: "message.apns.payload.aps.content-state INVALID_ARGUMENT",
		`"token":"a","apns":{"payload":{"aps":"x"}}`:                                                                                          "message.apns.payload.aps INVALID_ARGUMENT",
		`"token":"a","webpush":{"headers":{"TTL":"1h"}}`:                                                                                      "message.webpush.headers INVALID_ARGUMENT",
		`"token":"a","webpush":{"headers":{"Urgency":"now"}}`:                                                                                 "message.webpush.headers INVALID_ARGUMENT",
		`"token":"a","webpush":{"fcm_options":{"link":"http://a.b/"}}`:                                                                        "message.webpush.fcm_options.link INVALID_ARGUMENT",
		`"token":"a","fcm_options":{"analytics_label":"a b"}`:                                                                                 "message.fcm_options.analytics_label INVALID_ARGUMENT",
		`"token":"a","data":{"k":"` + strings.Repeat("x", 4096) + `"}`:                                                                        " ",
		`"topic":"a","data":{"k":"` + strings.Repeat("x", 2048) + `"}`:                                                                        " ",
		`"token":"a","apns":{"payload":{"k":"` + strings.Repeat("x", 4094) + `"}}`:                                                            " ",
		`"token":"a","webpush":{"notification":{"k":"` + strings.Repeat("x", 4094) + `"}}`:                                                    " ",
		`"token":"a","data":{"k":"` + strings.Repeat("x", 4000) + `"},"android":{"notification":{"body":"` + strings.Repeat("x", 100) + `"}}`: " ",
	} {
		a := r.sendFCM(t, token, r.FCM().Project, `{"message":{`+bad+`}}`)
		require.Equal(t, 400, a.status, "%.200s", bad)
		var b fcmBody
		require.NoError(t, json.Unmarshal(a.body, &b), bad)
		require.Equal(t, "INVALID_ARGUMENT", b.Error.Status)
		code, fields := b.codes()
		require.Equal(t, want, strings.Join(fields, ",")+" "+code, "%.200s", bad)
		require.NotEmpty(t, r.last(t, simulator.FCM).Detail, "%.200s", bad)
	}
	for _, bad := range []string{``, `[]`, `{`, `{}`, `{"message":{"token":"a"}} {}`, `{"message":{"token":"a"},"more":1}`} {
		require.Equal(t, 400, r.sendFCM(t, token, r.FCM().Project, bad).status, bad)
	}
	a := r.do(t, http.MethodPost, r.FCM().URL+"/v1/projects/"+r.FCM().Project+"/messages:send",
		map[string]string{"Authorization": "Bearer " + token, "Content-Type": "text/plain"}, []byte(`{"message":{"token":"a"}}`))
	require.Equal(t, 400, a.status)
}

func TestFCMValidateOnly(t *testing.T) {
	t.Parallel()
	r := setup(t)
	token := r.bearer(t)
	a := r.sendFCM(t, token, r.FCM().Project, `{"validate_only":true,"message":{"token":"a","data":{"carillon":"d"}}}`)
	require.Equal(t, 200, a.status)
	require.Contains(t, string(a.body), "/messages/fake_message_id")
	c := r.Report().Channels[simulator.FCM]
	require.Zero(t, c.Accepted)
	require.Equal(t, map[string]uint64{"200 validate_only": 1}, c.Answers)
	r.SetFault("fcm", simulator.Fault{Status: 401})
	require.Equal(t, 401, r.sendFCM(t, token, r.FCM().Project, `{"validate_only":true,"message":{"token":"a"}}`).status)
}

func TestFCMFaults(t *testing.T) {
	t.Parallel()
	r := setup(t)
	token := r.bearer(t)
	send := func(target string) (got, fcmBody) {
		a := r.sendFCM(t, token, r.FCM().Project, fmt.Sprintf(`{"message":{"token":%q}}`, target))
		var b fcmBody
		_ = json.Unmarshal(a.body, &b) // some answers are HTML
		return a, b
	}
	for word, want := range map[string]string{
		"400": "400 INVALID_ARGUMENT INVALID_ARGUMENT message.android.ttl", "401": "401 UNAUTHENTICATED  ",
		"403": "403 PERMISSION_DENIED  ", "404": "404 NOT_FOUND UNREGISTERED ", "unregistered": "404 NOT_FOUND UNREGISTERED ",
		"gone": "404 NOT_FOUND UNREGISTERED ", "invalid": "400 INVALID_ARGUMENT INVALID_ARGUMENT message.token",
		"sender": "403 PERMISSION_DENIED SENDER_ID_MISMATCH ", "auth": "401 UNAUTHENTICATED  ",
		"forbidden": "403 PERMISSION_DENIED  ", "thirdparty": "401 UNAUTHENTICATED THIRD_PARTY_AUTH_ERROR ",
		"quota": "429 RESOURCE_EXHAUSTED QUOTA_EXCEEDED ", "projectquota": "429 RESOURCE_EXHAUSTED  ",
		"toolarge": "400 INVALID_ARGUMENT  ", "429": "429 RESOURCE_EXHAUSTED QUOTA_EXCEEDED ",
		"500": "500 INTERNAL INTERNAL ", "503": "503 UNAVAILABLE UNAVAILABLE ",
	} {
		a, b := send("sim-" + word)
		code, fields := b.codes()
		require.Equal(t, want, fmt.Sprintf("%d %s %s %s", a.status, b.Error.Status, code, strings.Join(fields, ",")), word)
		require.Equal(t, a.status, b.Error.Code, word)
	}
	a, _ := send("sim-502")
	require.Equal(t, 502, a.status)
	require.Contains(t, a.header.Get("Content-Type"), "text/html")
	a, _ = send("sim-429-30s")
	require.Equal(t, "30", a.header.Get("Retry-After"))
	a, b := send("sim-apnstoken")
	require.Equal(t, 400, a.status)
	require.Equal(t, "INVALID_ARGUMENT", b.Error.Status)
	require.Contains(t, string(a.body), `"@type":"type.googleapis.com/google.firebase.fcm.v1.ApnsError","statusCode":400,"reason":"BadDeviceToken"`)
	r.SetFault("anna", simulator.Fault{Status: 429, Reason: "PROJECT_QUOTA", RetryAfter: 20 * time.Second})
	a, _ = send("anna")
	require.Contains(t, string(a.body), `"subject":"project:`)
	require.Contains(t, string(a.body), `"retryDelay":"20s"`)
	r.SetFault("anna", simulator.Fault{Status: 429, Reason: "SOME_QUOTA", RetryAfter: 20 * time.Second})
	a, b = send("anna")
	require.Equal(t, 429, a.status)
	require.Equal(t, "20", a.header.Get("Retry-After"))
	require.Equal(t, "RESOURCE_EXHAUSTED", b.Error.Status)
	require.NotContains(t, string(a.body), "details")
	a, _ = send("sim-anna")
	require.Equal(t, 200, a.status, "free text alone is no fault")
	a = r.sendFCM(t, token, r.FCM().Project, `{"message":{"topic":"sim-503-news"}}`)
	require.Equal(t, 503, a.status)
	var statuses []int
	for range 4 {
		a, _ = send("sim-503x2-anna")
		statuses = append(statuses, a.status)
	}
	require.Equal(t, []int{503, 503, 200, 200}, statuses)
}
