package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// bad is a request that must be refused.
type bad struct {
	name         string
	method, path string // POST /v1/notifications where empty
	body         string
	header       map[string]string
	status       int
	code         string
	field        string // one of those that the answer names; "": it names none
}

// secretMark is in every token, key and payload of the sweep. No answer repeats it.
const secretMark = "s3cr3tmark"

// TestBadInput sends what is wrong in some way to the real server: it is refused
// with a problem that says what to mend, and nothing changes.
// One after the other: each looks whether a table has changed.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.lists()
	for _, x := range slices.Concat(badJSON(), badNotifications(w), badDevices(), badEndpoints(), badCredentials(t, w), badSettings()) {
		t.Run(x.name, func(t *testing.T) {
			w.refused(t, x)
		})
	}
	require.Equal(t, before, w.lists())
}

// refused sends a request and checks the answer, and that no table has changed.
func (w *world) refused(t *testing.T, x bad) {
	t.Helper()
	if x.path == "" {
		x.method, x.path = http.MethodPost, "/v1/notifications"
	}
	rows := w.rows(t)
	req, err := http.NewRequestWithContext(t.Context(), x.method, w.url+x.path, strings.NewReader(x.body))
	require.NoError(t, err)
	req.Header.Set("Authorization", "Bearer "+w.key)
	req.Header.Set("Content-Type", "application/json")
	for name, v := range x.header {
		req.Header.Set(name, v)
		if v == "" {
			req.Header.Del(name)
		}
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, res.Body.Close()) }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	var p struct {
		Type, Title, Code, Detail string
		Status                    int
		RequestID                 string `json:"request_id"`
		Errors                    []struct{ Path, Detail string }
	}
	what := fmt.Sprintf("%s %s: %s", x.method, x.path, text)
	require.Equal(t, x.status, res.StatusCode, what)
	require.Equal(t, "application/problem+json", res.Header.Get("Content-Type"), what)
	require.NoError(t, json.Unmarshal(text, &p), what)
	require.Equal(t, x.status, p.Status)
	require.Equal(t, http.StatusText(x.status), p.Title)
	require.Equal(t, x.code, p.Code, what)
	require.NotEmpty(t, p.Detail)
	require.Equal(t, res.Header.Get("X-Request-Id"), p.RequestID)
	var fields []string
	for _, e := range p.Errors {
		require.NotEmpty(t, e.Detail, what)
		fields = append(fields, e.Path)
	}
	if x.field != "" {
		require.Contains(t, fields, x.field, what)
	} else {
		require.Empty(t, fields, what)
	}
	require.False(t, bytes.Contains(text, []byte(secretMark)), what)
	require.Equal(t, rows, w.rows(t), "a refused request left something: %s", what)
}

// badJSON is what no decoder should take.
func badJSON() []bad {
	const malformed = 400
	return []bad{
		{name: "no body", status: malformed, code: "malformed"},
		{name: "not JSON", body: `{"title":`, status: malformed, code: "malformed"},
		{name: "two values", body: `{"title":"x"}{}`, status: malformed, code: "malformed"},
		{name: "duplicate member", body: `{"title":"x","title":"` + secretMark + `"}`, status: malformed, code: "malformed", field: "title"},
		{name: "duplicate member within", body: `{"to":{"users":["a"],"users":["b"]},"title":"x"}`, status: malformed, code: "malformed", field: "to.users"},
		{name: "invalid UTF-8", body: "{\"title\":\"\xff" + secretMark + "\"}", status: malformed, code: "malformed"},
		{name: "half a surrogate pair", body: `{"to":{"users":["a"]},"title":"\ud800"}`, status: malformed, code: "malformed"},
		{name: "1,000 deep", body: `{"data":{"a":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}}`, status: malformed, code: "malformed"},
		{name: "1,000 deep and not closed", body: strings.Repeat("[", 1000), status: malformed, code: "malformed"},
		{name: "2 MB", body: `{"to":{"users":["a"]},"title":"` + strings.Repeat("x", 2<<20) + `"}`, status: 413, code: "too_large"},
		{name: "an array", body: `[]`, status: 422, code: "invalid"},
		{name: "a text", body: `"` + secretMark + `"`, status: 422, code: "invalid"},
		{name: "unknown member", body: `{"titel":"x"}`, status: 422, code: "invalid", field: "titel"},
		{name: "unknown member within", body: `{"to":{"user":["a"]},"title":"x"}`, status: 422, code: "invalid", field: "to.user"},
		{name: "member in another case", body: `{"Title":"x"}`, status: 422, code: "invalid", field: "Title"},
		{name: "number for a text", body: `{"title":7}`, status: 422, code: "invalid", field: "title"},
		{name: "text for a list", body: `{"to":{"users":"alice"},"title":"x"}`, status: 422, code: "invalid", field: "to.users"},
		{name: "object in a list", body: `{"to":{"users":["a",{}]},"title":"x"}`, status: 422, code: "invalid", field: "to.users[1]"},
		{name: "fraction for a whole number", body: `{"ttl":1.5}`, status: 422, code: "invalid", field: "ttl"},
		{name: "number out of range", body: `{"ttl":99999999999999999999}`, status: 422, code: "invalid", field: "ttl"},
		{name: "no time", body: `{"send_at":"tomorrow"}`, status: 422, code: "invalid", field: "send_at"},
		{name: "no channel", body: `{"channels":["sms"]}`, status: 422, code: "invalid", field: "channels[0]"},
		{name: "text, not JSON", body: `title=x`, header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, status: 415, code: "unsupported_media"},
		{name: "no content type", body: `{}`, header: map[string]string{"Content-Type": ""}, status: 415, code: "unsupported_media"},
		{name: "another charset", body: `{}`, header: map[string]string{"Content-Type": "application/json; charset=latin1"}, status: 415, code: "unsupported_media"},
		{name: "compressed", body: `{}`, header: map[string]string{"Content-Encoding": "gzip"}, status: 415, code: "unsupported_media"},
		{name: "HTML wanted", body: `{}`, header: map[string]string{"Accept": "text/html"}, status: 406, code: "not_acceptable"},
		{name: "no such path", method: "POST", path: "/v1/notification", body: `{}`, status: 404, code: "not_found"},
		{name: "no such method", method: "DELETE", path: "/v1/notifications", status: 405, code: "method_not_allowed"},
		{name: "unknown parameter", method: "GET", path: "/v1/devices?usr=alice", status: 422, code: "invalid", field: "usr"},
		{name: "limit too high", method: "GET", path: "/v1/devices?limit=201", status: 422, code: "invalid", field: "limit"},
		{name: "limit is no number", method: "GET", path: "/v1/devices?limit=all", status: 422, code: "invalid", field: "limit"},
		{name: "cursor of another list", method: "GET", path: "/v1/devices?cursor=AAAA", status: 422, code: "invalid", field: "cursor"},
		{name: "unknown state", method: "GET", path: "/v1/deliveries?state=lost", status: 422, code: "invalid", field: "state"},
		{name: "unknown reason", method: "GET", path: "/v1/deliveries?reason=bad+luck", status: 422, code: "invalid", field: "reason"},
	}
}

func badNotifications(w *world) []bad {
	invalid := func(name, body, field string) bad {
		return bad{name: name, body: body, status: 422, code: "invalid", field: field}
	}
	users := func(n int) string { return strings.TrimSuffix(strings.Repeat(`"u",`, n), ",") }
	return []bad{
		invalid("to nobody", `{"title":"x"}`, "to"),
		invalid("nothing to say", `{"to":{"users":["alice"]}}`, "title"),
		invalid("1,001 users", `{"to":{"users":[`+users(1001)+`]},"title":"x"}`, "to"),
		invalid("user without a name", `{"to":{"users":["alice",""]},"title":"x"}`, "to.users[1]"),
		invalid("user of 256 bytes", `{"to":{"users":["`+strings.Repeat("u", 256)+`"]},"title":"x"}`, "to.users[0]"),
		invalid("endpoint for a device", `{"to":{"devices":["`+w.ids["endpoints"]+`"]},"title":"x"}`, "to.devices[0]"),
		invalid("no id of a device", `{"to":{"devices":["dev_0/../x"]},"title":"x"}`, "to.devices[0]"),
		invalid("negative ttl", `{"to":{"users":["alice"]},"title":"x","ttl":-1}`, "ttl"),
		invalid("ttl of a year", `{"to":{"users":["alice"]},"title":"x","ttl":31536000}`, "ttl"),
		invalid("send_at in the past", `{"to":{"users":["alice"]},"title":"x","send_at":"2020-01-01T00:00:00Z"}`, "send_at"),
		invalid("send_at ten years ahead", `{"to":{"users":["alice"]},"title":"x","send_at":"2036-12-01T00:00:00Z"}`, "send_at"),
		invalid("negative badge", `{"to":{"users":["alice"]},"title":"x","badge":-1}`, "badge"),
		invalid("no priority", `{"to":{"users":["alice"]},"title":"x","priority":"urgent"}`, "priority"),
		invalid("channel twice", `{"to":{"users":["alice"]},"title":"x","channels":["fcm","fcm"]}`, "channels[1]"),
		invalid("silent and loud", `{"to":{"users":["alice"]},"title":"x","silent":true}`, "silent"),
		invalid("image without TLS", `{"to":{"users":["alice"]},"title":"x","image":"http://example.com/x.png"}`, "image"),
		invalid("code for a tap", `{"to":{"users":["alice"]},"title":"x","url":"javascript:alert(1)"}`, "url"),
		invalid("data is a list", `{"to":{"users":["alice"]},"title":"x","data":[1]}`, "data"),
		invalid("reserved data", `{"to":{"users":["alice"]},"title":"x","data":{"carillon":"dlv_1"}}`, "data.carillon"),
		invalid("reserved type", `{"type":"carillon.delivery.sent"}`, "type"),
		invalid("type with a space", `{"type":"order shipped"}`, "type"),
		invalid("unknown override", `{"to":{"users":["alice"]},"title":"x","overrides":{"fcm":{"token":"`+secretMark+`"}}}`, "overrides.fcm.token"),
		{name: "payload too large", body: `{"to":{"users":["alice"]},"channels":["fcm"],"title":"x","body":"` + secretMark + strings.Repeat("x", 5000) + `"}`, status: 422, code: "payload_too_large"},
		invalid("dry run of nothing", `{"to":{"users":["alice"]},"dry_run":true}`, "title"),
		{name: "batch of none", method: "POST", path: "/v1/notifications/batch", body: `{"notifications":[]}`, status: 422, code: "invalid", field: "notifications"},
		{name: "batch of 501", method: "POST", path: "/v1/notifications/batch", status: 422, code: "invalid", field: "notifications",
			body: `{"notifications":[` + strings.TrimSuffix(strings.Repeat(`{"to":{"users":["alice"]},"title":"x"},`, 501), ",") + `]}`},
		{name: "idempotency key with another body", header: map[string]string{"Idempotency-Key": w.idempotencyKey},
			body: `{"to":{"users":["alice"]},"title":"other"}`, status: 422, code: "idempotency_mismatch"},
		{name: "idempotency key of 256 characters", header: map[string]string{"Idempotency-Key": strings.Repeat("k", 256)},
			body: `{"to":{"users":["alice"]},"title":"x"}`, status: 422, code: "invalid", field: "Idempotency-Key"},
		{name: "replay of what is not dead", method: "POST", path: "/v1/deliveries/" + w.ids["deliveries"] + "/replay", status: 409, code: "conflict"},
		{name: "no id", method: "POST", path: "/v1/notifications/ntf_x/cancel", status: 404, code: "not_found"},
	}
}

func badDevices() []bad {
	put := func(name, body, field string) bad {
		return bad{name: "device: " + name, method: "PUT", path: "/v1/devices", body: body, status: 422, code: "invalid", field: field}
	}
	subscription := func(endpoint, p256dh, auth string) string {
		return fmt.Sprintf(`{"user":"mallory","subscription":{"endpoint":"%s","expirationTime":null,"keys":{"p256dh":"%s","auth":"%s"}}}`, endpoint, p256dh, auth)
	}
	const mozilla = "https://updates.push.services.mozilla.com/wpush/v2/" + secretMark
	return []bad{
		put("no address", `{"user":"mallory","channel":"fcm"}`, "token"),
		put("two addresses", `{"user":"mallory","channel":"fcm","token":"a","fid":"b"}`, "token"),
		put("no user", `{"channel":"fcm","token":"`+secretMark+`"}`, "user"),
		put("no channel", `{"user":"mallory","token":"`+secretMark+`"}`, "channel"),
		put("a webhook", `{"user":"mallory","channel":"webhook","token":"`+secretMark+`"}`, "channel"),
		put("FCM token with a path", `{"user":"mallory","channel":"fcm","token":"../../`+secretMark+`"}`, "token"),
		put("FCM token with a query", `{"user":"mallory","channel":"fcm","token":"`+secretMark+`?x=1#y"}`, "token"),
		put("FCM token with a line break", `{"user":"mallory","channel":"fcm","token":"`+secretMark+`\r\nX: y"}`, "token"),
		put("FCM token that is too long", `{"user":"mallory","channel":"fcm","token":"`+strings.Repeat("x", 5000)+`"}`, "token"),
		put("APNs token with a path", `{"user":"mallory","channel":"apns","token":"../device/`+strings.Repeat("0", 54)+`"}`, "token"),
		put("APNs token that is not hexadecimal", `{"user":"mallory","channel":"apns","token":"`+strings.Repeat("zz", 32)+`"}`, "token"),
		put("APNs token that is short", `{"user":"mallory","channel":"apns","token":"00ff"}`, "token"),
		put("no environment", `{"user":"mallory","channel":"apns","token":"`+strings.Repeat("0f", 32)+`","environment":"staging"}`, "environment"),
		put("no name of an app", `{"user":"mallory","channel":"fcm","app":"No App","token":"x"}`, "app"),
		put("no time zone", `{"user":"mallory","channel":"fcm","token":"x","time_zone":"Mars/Base"}`, "time_zone"),
		put("33 tags", `{"user":"mallory","channel":"fcm","token":"x","tags":{`+manyTags(33)+`}}`, "tags"),
		put("auth of 3 bytes", subscription(mozilla, goodPoint, "AAAA"), "subscription.keys.auth"),
		put("auth that is not base64", subscription(mozilla, goodPoint, "!!!!"), "subscription.keys.auth"),
		put("point off the curve", subscription(mozilla, offCurve, goodAuth), "subscription.keys.p256dh"),
		put("point that is short", subscription(mozilla, "BAAA", goodAuth), "subscription.keys.p256dh"),
		put("endpoint without TLS", subscription("http://updates.push.services.mozilla.com/wpush/v2/x", goodPoint, goodAuth), "subscription.endpoint"),
		put("endpoint of nobody's", subscription("https://push.example.com/x", goodPoint, goodAuth), "subscription.endpoint"),
		put("endpoint that looks like Mozilla's", subscription("https://updates.push.services.mozilla.com.example.com/x", goodPoint, goodAuth), "subscription.endpoint"),
		put("endpoint with a user", subscription("https://updates.push.services.mozilla.com@10.0.0.1/x", goodPoint, goodAuth), "subscription.endpoint"),
		put("endpoint at a private address", subscription("https://10.0.0.1/x", goodPoint, goodAuth), "subscription.endpoint"),
		put("endpoint at this machine", subscription("https://[::1]/x", goodPoint, goodAuth), "subscription.endpoint"),
	}
}

func manyTags(n int) string {
	tags := make([]string, n)
	for i := range tags {
		tags[i] = fmt.Sprintf(`"t%d":"x"`, i)
	}
	return strings.Join(tags, ",")
}

// badEndpoints: receivers that a tenant may not make the server call.
func badEndpoints() []bad {
	var list []bad
	for _, url := range []string{
		"https://10.0.0.1/hook", "https://172.16.0.1/", "https://192.168.1.1/", "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/",
		"https://0/", "https://0.0.0.0/", "https://169.254.169.254/latest/meta-data/", "https://168.63.129.16/", "https://100.64.0.1/", "https://224.0.0.1/",
		"https://[::1]/", "https://[::]/", "https://[fe80::1]/", "https://[fc00::1]/", "https://[::ffff:10.0.0.1]/", "https://[64:ff9b::a00:1]/",
		"https://localhost/", "https://LOCALHOST./", "https://api.localhost/", "http://example.com/", "ftp://example.com/", "//example.com/", "example.com", "https://",
		"https://user:" + secretMark + "@example.com/", "https://example.com/#x", "https://example.com:8443/", "https://example.com:0/",
		"https://example.com/" + strings.Repeat("x", 2048), "",
	} {
		body, _ := json.Marshal(map[string]any{"url": url, "event_types": []string{"*"}})
		list = append(list, bad{name: "endpoint: " + url[:min(len(url), 40)], method: "POST", path: "/v1/endpoints", body: string(body), status: 422, code: "invalid", field: "url"})
	}
	post := func(name, body, field string) bad {
		return bad{name: "endpoint: " + name, method: "POST", path: "/v1/endpoints", body: body, status: 422, code: "invalid", field: field}
	}
	return append(list,
		post("bad event type", `{"url":"https://example.com/","event_types":["order.*","a b"]}`, "event_types[1]"),
		post("short secret", `{"url":"https://example.com/","secret":"whsec_AAAA"}`, "secret"),
		post("no secret", `{"url":"https://example.com/","secret":"`+secretMark+`"}`, "secret"),
	)
}

func badSettings() []bad {
	put := func(name, settings, field string) bad {
		return bad{name: "tenant: " + name, method: "PUT", path: "/v1/tenant", body: `{"settings":` + settings + `}`, status: 422, code: "invalid", field: field}
	}
	return []bad{
		put("origin with a path", `{"origins":["https://example.com/"]}`, "settings.origins[0]"),
		put("any origin", `{"origins":["*"]}`, "settings.origins[0]"),
		put("no preset", `{"retry":{"fcm":{"preset":"never"}}}`, "settings.retry.fcm.preset"),
		put("negative delay", `{"retry":{"fcm":{"delays_ms":[1,-1]}}}`, "settings.retry.fcm.delays_ms[1]"),
		put("ttl of nothing", `{"ttl":{"fcm":0}}`, "settings.ttl.fcm"),
		put("no channel", `{"ttl":{"sms":60}}`, "settings.ttl.sms"),
		{name: "key: no scope", method: "POST", path: "/v1/keys", body: `{"name":"x","scopes":[]}`, status: 422, code: "invalid", field: "scopes"},
		{name: "key: unknown scope", method: "POST", path: "/v1/keys", body: `{"name":"x","scopes":["root"]}`, status: 422, code: "invalid", field: "scopes[0]"},
		{name: "key: operator", method: "POST", path: "/v1/keys", body: `{"name":"x","scopes":["operator"]}`, status: 422, code: "invalid", field: "scopes[0]"},
		{name: "key: expired", method: "POST", path: "/v1/keys", body: `{"name":"x","scopes":["read"],"expires_at":"2020-01-01T00:00:00Z"}`, status: 422, code: "invalid", field: "expires_at"},
		{name: "app: bad name", method: "PUT", path: "/v1/apps/Not%20A%20Name", status: 422, code: "invalid", field: "app"},
		{name: "user key: no name", method: "POST", path: "/v1/user-keys", body: `{"name":"` + strings.Repeat("x", 101) + `"}`, status: 422, code: "invalid", field: "name"},
	}
}
