package simulator_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

const (
	alert = `{"aps":{"alert":"hi"}}`
	uuid  = "6f1c0c3e-1a52-4a0e-9d5b-0123456789ab"
)

// apple sends on one HTTP/2 connection.
type apple struct {
	*rig
	client *http.Client
	token  string // provider token
}

func newApple(t testing.TB, r *rig) *apple {
	t.Helper()
	return &apple{rig: r, client: http2Client(t, r), token: providerToken(t, r.APNs().APNsKey, r.clock.Now())}
}

func providerToken(t testing.TB, k simulator.APNsKey, issued time.Time) string {
	t.Helper()
	return sign(t, jwt.SigningMethodES256, readP8(t, k.P8), k.KeyID, jwt.MapClaims{"iss": k.TeamID, "iat": issued.Unix()})
}

// post sends to path; h is added to good headers, and "" removes one.
func (a *apple) post(t testing.TB, base, path string, h map[string]string, payload string) (got, string) {
	t.Helper()
	headers := map[string]string{"authorization": "bearer " + a.token, "apns-topic": a.APNs().Topic, "apns-push-type": "alert"}
	for k, v := range h {
		if headers[k] = v; v == "" {
			delete(headers, k)
		}
	}
	answer := send(t, a.client, http.MethodPost, base+path, headers, []byte(payload))
	var body struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(answer.body, &body) // empty where it was accepted
	return answer, fmt.Sprint(answer.status, " ", body.Reason)
}

func (a *apple) push(t testing.TB, token string, h map[string]string, payload string) (got, string) {
	t.Helper()
	return a.post(t, a.APNs().URL, "/3/device/"+token, h, payload)
}

func TestAPNsAccepts(t *testing.T) {
	t.Parallel()
	a := newApple(t, setup(t))
	token, topic := a.APNs().NewToken(), a.APNs().Topic
	for _, c := range []struct {
		h       map[string]string
		payload string
	}{
		{nil, alert},
		{map[string]string{"apns-push-type": ""}, alert},
		{map[string]string{"apns-priority": "5", "apns-expiration": "0", "apns-collapse-id": strings.Repeat("c", 64)}, alert},
		{map[string]string{"apns-expiration": fmt.Sprint(time.Now().Unix() + 60), "apns-priority": "1"}, `{"aps":{"badge":0}}`},
		{map[string]string{"apns-push-type": "background", "apns-priority": "5"}, `{"aps":{"content-available":1},"k":"v"}`},
		{map[string]string{"apns-push-type": "voip", "apns-topic": topic + ".voip"}, `{"k":"` + strings.Repeat("x", 5000) + `"}`},
		{map[string]string{"apns-push-type": "liveactivity", "apns-topic": topic + ".push-type.liveactivity"},
			`{"aps":{"event":"update","timestamp":1,"content-state":{}}}`},
		{nil, `{"aps":{"alert":"` + strings.Repeat("x", 4096-len(alert)+2) + `"}}`},
	} {
		_, said := a.push(t, token, c.h, c.payload)
		require.Equal(t, "200 ", said, "%v %.100s", c.h, c.payload)
	}
	answer, _ := a.push(t, strings.ToUpper(token), map[string]string{"apns-id": uuid}, alert)
	require.Equal(t, uuid, answer.header.Get("apns-id"))
	require.Empty(t, answer.header.Get("apns-unique-id"))
	require.Empty(t, answer.body)
	last := a.last(t, simulator.APNs)
	require.Equal(t, token, last.Target)
	require.Equal(t, uuid, last.Delivery)
	require.Equal(t, alert, string(last.Payload))
	require.Equal(t, topic, last.Headers["apns-topic"])
	require.NotContains(t, last.Headers, "authorization")

	answer, said := a.push(t, token, nil, `{"aps":{"alert":"x"},"carillon":"dlv_1"}`)
	require.Equal(t, "200 ", said)
	require.Len(t, answer.header.Get("apns-id"), 36)
	require.Equal(t, "dlv_1", a.last(t, simulator.APNs).Delivery)
}

func TestAPNsRefuses(t *testing.T) {
	t.Parallel()
	a := newApple(t, setup(t))
	token, topic := a.APNs().NewToken(), a.APNs().Topic
	h := func(kv ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i]] = kv[i+1]
		}
		return out
	}
	for _, c := range []struct {
		want    string
		h       map[string]string
		payload string
	}{
		{"400 BadMessageId", h("apns-id", strings.ToUpper(uuid)), alert},
		{"400 BadMessageId", h("apns-id", "1"), alert},
		{"400 InvalidPushType", h("apns-push-type", "loud"), alert},
		{"400 MissingTopic", h("apns-topic", ""), alert},
		{"400 BadTopic", h("apns-topic", "no topic"), alert},
		{"400 TopicDisallowed", h("apns-push-type", "voip"), alert},
		{"400 DeviceTokenNotForTopic", h("apns-topic", "com.example.other"), alert},
		{"400 DeviceTokenNotForTopic", h("apns-topic", topic+".voip"), alert},
		{"400 BadExpirationDate", h("apns-expiration", "soon"), alert},
		{"400 BadExpirationDate", h("apns-expiration", fmt.Sprint(time.Now().UnixMilli())), alert},
		{"400 BadExpirationDate", h("apns-expiration", "-1"), alert},
		{"400 BadPriority", h("apns-priority", "7"), alert},
		{"400 BadPriority", h("apns-push-type", "background"), `{"aps":{"content-available":1}}`},
		{"400 BadPriority", h("apns-push-type", "background", "apns-priority", "10"), `{"aps":{"content-available":1}}`},
		{"400 BadCollapseId", h("apns-collapse-id", strings.Repeat("c", 65)), alert},
		{"400 PayloadEmpty", nil, ``},
		{"400 PayloadEmpty", nil, `null`},
		{"400 PayloadEmpty", nil, `{"aps":`},
		{"400 PayloadEmpty", nil, `{"aps":"x"}`},
		{"400 InvalidPushType", nil, `{"aps":{"content-available":1}}`},
		{"400 InvalidPushType", nil, `{"k":"v"}`},
		{"400 InvalidPushType", nil, `{"aps":{"alert":"x","interruption-level":"loud"}}`},
		{"400 InvalidPushType", h("apns-push-type", "background", "apns-priority", "5"), alert},
		{"400 InvalidPushType", h("apns-push-type", "background", "apns-priority", "5"), `{"aps":{"content-available":true}}`},
		{"400 InvalidPushType", h("apns-push-type", "widgets", "apns-topic", topic+".push-type.widgets"), `{"aps":{}}`},
		{"400 InvalidPushType", h("apns-push-type", "liveactivity", "apns-topic", topic+".push-type.liveactivity"), alert},
		{"413 PayloadTooLarge", nil, `{"aps":{"alert":"` + strings.Repeat("x", 4096-len(alert)+3) + `"}}`},
		{"413 PayloadTooLarge", h("apns-push-type", "voip", "apns-topic", topic+".voip"), `{"k":"` + strings.Repeat("x", 5120) + `"}`},
	} {
		answer, said := a.push(t, token, c.h, c.payload)
		require.Equal(t, c.want, said, "%v %.100s", c.h, c.payload)
		require.NotEmpty(t, answer.header.Get("apns-id"))
		require.NotEmpty(t, a.last(t, simulator.APNs).Detail)
	}
	for path, want := range map[string]string{
		"/3/device/": "400 MissingDeviceToken", "/3/device/xyz": "400 BadDeviceToken", "/3/device/" + token + "0": "400 BadDeviceToken",
		"/3/device/" + token[:62]: "400 BadDeviceToken", "/3/device/a/b": "404 BadPath", "/3/devices/a": "404 BadPath",
	} {
		_, said := a.post(t, a.APNs().URL, path, nil, alert)
		require.Equal(t, want, said, path)
	}
	require.Equal(t, 405, send(t, a.client, http.MethodGet, a.APNs().URL+"/3/device/"+token, nil, nil).status)

	req, err := http.NewRequest(http.MethodPost, a.APNs().URL+"/3/device/"+token, strings.NewReader(alert))
	require.NoError(t, err)
	req.Header = http.Header{"Authorization": {"bearer " + a.token}, "Apns-Topic": {topic, topic}}
	resp, err := a.client.Do(req)
	require.NoError(t, err)
	resp.Body.Close()
	require.Equal(t, 400, resp.StatusCode)
	require.Equal(t, "DuplicateHeaders", a.last(t, simulator.APNs).Reason)
	require.EqualValues(t, 0, a.Report().Accepted)
}

func TestAPNsWantsHTTP2(t *testing.T) {
	t.Parallel()
	r := setup(t)
	transport := r.client.Transport.(*http.Transport).Clone()
	transport.ForceAttemptHTTP2, transport.TLSClientConfig.NextProtos = false, []string{"http/1.1"}
	defer transport.CloseIdleConnections()
	url := r.APNs().URL + "/3/device/" + r.APNs().NewToken()
	require.Equal(t, 505, send(t, &http.Client{Transport: transport}, http.MethodPost, url, nil, []byte(alert)).status)
}

func TestAPNsEnvironments(t *testing.T) {
	t.Parallel()
	a := newApple(t, setup(t))
	at := func(base, token string) string {
		_, said := a.post(t, base, "/3/device/"+token, nil, alert)
		return said
	}
	production, sandbox := a.APNs().URL, a.APNs().SandboxURL
	require.Equal(t, "200 ", at(production, a.APNs().NewToken()))
	require.Equal(t, "400 BadDeviceToken", at(sandbox, a.APNs().NewToken()))
	require.Equal(t, "200 ", at(sandbox, a.APNs().NewSandboxToken()))
	require.Equal(t, "400 BadDeviceToken", at(production, a.APNs().NewSandboxToken()))
	busy := simulator.Fault{Status: 503}
	require.Equal(t, "503 ServiceUnavailable", at(sandbox, a.APNs().SandboxFault(busy, 1)))
	require.Equal(t, "400 BadDeviceToken", at(production, a.APNs().SandboxFault(busy, 1)))
	answer, _ := a.post(t, sandbox, "/3/device/"+a.APNs().NewSandboxToken(), nil, alert)
	require.Len(t, answer.header.Get("apns-unique-id"), 36)
}

// TestAPNsTokensAreBoundToATopic: an app gets one for each kind of push.
func TestAPNsTokensAreBoundToATopic(t *testing.T) {
	t.Parallel()
	a := newApple(t, setup(t))
	suffix := map[string]string{"alert": "", "voip": ".voip", "liveactivity": ".push-type.liveactivity", "widgets": ".push-type.widgets"}
	body := map[string]string{"alert": alert, "voip": alert, "widgets": `{"aps":{"content-changed":true}}`,
		"liveactivity": `{"aps":{"event":"update","timestamp":1,"content-state":{}}}`}
	for of := range suffix {
		token := a.APNs().NewTokenFor(of)
		for pushed := range suffix {
			want := "400 DeviceTokenNotForTopic"
			if of == pushed {
				want = "200 "
			}
			_, said := a.push(t, token, map[string]string{"apns-push-type": pushed, "apns-topic": a.APNs().Topic + suffix[pushed]}, body[pushed])
			require.Equal(t, want, said, "%s to a token for %s", pushed, of)
		}
	}
	_, said := a.push(t, a.APNs().NewToken(), map[string]string{"apns-push-type": "voip", "apns-topic": a.APNs().Topic + ".voip"}, alert)
	require.Equal(t, "200 ", said, "a token that is not bound takes all")
	require.Panics(t, func() { a.APNs().NewTokenFor("mdm") })
}

// TestAPNsLimitedKeys: as Apple's portal makes them.
func TestAPNsLimitedKeys(t *testing.T) {
	t.Parallel()
	r := setup(t)
	a := newApple(t, r)
	for _, c := range []struct {
		sandbox        bool
		atProd, atTest string
	}{
		{false, "200 ", "403 BadEnvironmentKeyIdInToken"},
		{true, "403 BadEnvironmentKeyIdInToken", "200 "},
	} {
		key, err := r.APNs().NewKey(r.APNs().TeamID)
		require.NoError(t, err)
		r.APNs().LimitKey(key.KeyID, c.sandbox)
		a.client, a.token = http2Client(t, r), providerToken(t, key, r.clock.Now())
		_, said := a.post(t, r.APNs().URL, "/3/device/"+r.APNs().NewToken(), nil, alert)
		require.Equal(t, c.atProd, said)
		_, said = a.post(t, r.APNs().SandboxURL, "/3/device/"+r.APNs().NewSandboxToken(), nil, alert)
		require.Equal(t, c.atTest, said)
	}
	r.APNs().LimitKey("nobody's", true) // changes nothing
}

func TestAPNsAuthorization(t *testing.T) {
	t.Parallel()
	r := setup(t)
	device, key, now := r.APNs().NewToken(), r.APNs().APNsKey, r.clock.Now()
	private := readP8(t, key.P8)
	other, err := r.APNs().NewKey("OTHERTEAM1")
	require.NoError(t, err)
	claims := jwt.MapClaims{"iss": key.TeamID, "iat": now.Unix()}
	for name, c := range map[string]struct{ header, want string }{
		"none":       {"", "403 MissingProviderToken"},
		"empty":      {"bearer ", "403 MissingProviderToken"},
		"basic":      {"basic x", "403 MissingProviderToken"},
		"garbage":    {"bearer x", "403 InvalidProviderToken"},
		"no kid":     {"bearer " + sign(t, jwt.SigningMethodES256, private, "", claims), "403 InvalidProviderToken"},
		"other kid":  {"bearer " + sign(t, jwt.SigningMethodES256, private, other.KeyID, claims), "403 InvalidProviderToken"},
		"other team": {"bearer " + sign(t, jwt.SigningMethodES256, private, key.KeyID, jwt.MapClaims{"iss": "T", "iat": now.Unix()}), "403 InvalidProviderToken"},
		"other key":  {"bearer " + sign(t, jwt.SigningMethodES256, readP8(t, other.P8), key.KeyID, claims), "403 InvalidProviderToken"},
		"hmac":       {"bearer " + sign(t, jwt.SigningMethodHS256, []byte("k"), key.KeyID, claims), "403 InvalidProviderToken"},
		"no iat":     {"bearer " + sign(t, jwt.SigningMethodES256, private, key.KeyID, jwt.MapClaims{"iss": key.TeamID}), "403 InvalidProviderToken"},
		"future":     {"bearer " + providerToken(t, key, now.Add(time.Hour)), "403 InvalidProviderToken"},
		"old":        {"bearer " + providerToken(t, key, now.Add(-61*time.Minute)), "403 ExpiredProviderToken"},
		"fresh":      {"bearer " + providerToken(t, key, now), "200 "},
		"50 minutes": {"Bearer " + providerToken(t, key, now.Add(-50*time.Minute)), "200 "},
		"other good": {"bearer " + providerToken(t, other, now), "200 "},
	} {
		a := newApple(t, r) // each on a connection of its own
		_, said := a.push(t, device, map[string]string{"authorization": c.header}, alert)
		require.Equal(t, c.want, said, name)
	}
	a := newApple(t, r)
	_, said := a.push(t, device, nil, alert)
	require.Equal(t, "200 ", said)
	r.APNs().Revoke(key.KeyID)
	_, said = a.push(t, device, nil, alert)
	require.Equal(t, "403 InvalidProviderToken", said, "revocation counts for tokens already seen")
}

func TestAPNsBindsTheConnection(t *testing.T) {
	t.Parallel()
	a := newApple(t, setup(t))
	device, key := a.APNs().NewToken(), a.APNs().APNsKey
	say := func(token string) string {
		_, said := a.push(t, device, map[string]string{"authorization": "bearer " + token}, alert)
		return said
	}
	first := a.token
	require.Equal(t, "200 ", say(first))
	require.Equal(t, "429 TooManyProviderTokenUpdates", say(providerToken(t, key, a.clock.Now())))
	other, err := a.APNs().NewKey("OTHERTEAM1")
	require.NoError(t, err)
	require.Equal(t, "403 InvalidProviderToken", say(providerToken(t, other, a.clock.Now())), "one team per connection")

	a.clock.Advance(21 * time.Minute)
	second := providerToken(t, key, a.clock.Now())
	require.Equal(t, "200 ", say(second))
	require.Equal(t, "200 ", say(first), "requests that were under way with the old token")
	require.Equal(t, "200 ", say(second))

	a.SetFault("apns", simulator.Fault{Status: 403, Reason: "ExpiredProviderToken", Times: 1})
	require.Equal(t, "403 ExpiredProviderToken", say(second))
	require.Equal(t, "200 ", say(providerToken(t, key, a.clock.Now())), "a refused token may be renewed at once")
}

func TestAPNsFaults(t *testing.T) {
	t.Parallel()
	a := newApple(t, setup(t))
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		fault simulator.Fault
		want  string
	}{
		{simulator.Fault{Status: 410, Reason: "ExpiredToken"}, "410 ExpiredToken"},
		{simulator.Fault{Status: 410}, "410 Unregistered"},
		{simulator.Fault{Status: 400}, "400 BadDeviceToken"},
		{simulator.Fault{Status: 400, Reason: "DeviceTokenNotForTopic"}, "400 DeviceTokenNotForTopic"},
		{simulator.Fault{Status: 403}, "403 InvalidProviderToken"},
		{simulator.Fault{Status: 429}, "429 TooManyRequests"},
		{simulator.Fault{Status: 500}, "500 InternalServerError"},
		{simulator.Fault{Status: 503}, "503 ServiceUnavailable"},
		{simulator.Fault{Status: 503, Reason: "Shutdown"}, "503 Shutdown"},
		{simulator.Fault{Status: 413}, "413 PayloadTooLarge"},
		{simulator.Fault{Status: 404}, "404 BadPath"},
	} {
		answer, said := a.push(t, simulator.Token(simulator.APNs, c.fault, 1), map[string]string{"apns-id": uuid}, alert)
		require.Equal(t, c.want, said)
		require.Equal(t, uuid, answer.header.Get("apns-id"))
	}
	answer, said := a.push(t, simulator.Token(simulator.APNs, simulator.Fault{Status: 410, Timestamp: since, RetryAfter: time.Minute}, 1), nil, alert)
	require.Equal(t, "410 Unregistered", said)
	require.JSONEq(t, fmt.Sprintf(`{"reason":"Unregistered","timestamp":%d}`, since.UnixMilli()), string(answer.body))
	require.Equal(t, "60", answer.header.Get("Retry-After"))

	byHand := "5e503002" + strings.Repeat("0", 56)
	for _, want := range []string{"503 ServiceUnavailable", "503 ServiceUnavailable", "200 "} {
		_, said = a.push(t, byHand, nil, alert)
		require.Equal(t, want, said)
	}
	_, said = a.push(t, "5e999"+strings.Repeat("0", 59), nil, alert)
	require.Equal(t, "200 ", said, "no fault has status 999")
	_, said = a.push(t, "5e50300f"+strings.Repeat("0", 56), nil, alert)
	require.Equal(t, "200 ", said, "a random token that begins alike")
}
