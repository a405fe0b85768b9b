package simulator_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

func (r *rig) control(t testing.TB, method, path, body string) got {
	t.Helper()
	return r.do(t, method, r.Push().URL+path, map[string]string{"Content-Type": "application/json"}, []byte(body))
}

func TestControlReports(t *testing.T) {
	t.Parallel()
	r := setup(t)
	r.hook(t, "orders", "ntf_1")
	r.hook(t, "<b>sim", "ntf_2")
	var report simulator.Report
	r.getJSON(t, "/report.json", &report)
	require.EqualValues(t, 2, report.Accepted)
	require.EqualValues(t, 2, report.Channels[simulator.Webhook].Answers["204"])
	require.Len(t, report.Channels, len(simulator.Channels()))
	var arrivals []map[string]any
	r.getJSON(t, "/arrivals.json?channel=webhook&target=orders&delivery=ntf_1&limit=5", &arrivals)
	require.Len(t, arrivals, 1)
	require.Equal(t, map[string]any{}, arrivals[0]["payload"], "JSON stands as JSON")
	r.getJSON(t, "/arrivals.json?target=nobody", &arrivals)
	require.Empty(t, arrivals)
	require.Equal(t, 422, r.control(t, http.MethodGet, "/arrivals.json?limit=x", "").status)

	page := r.control(t, http.MethodGet, "/", "")
	require.Equal(t, 200, page.status)
	text := string(page.body)
	for _, want := range []string{"ntf_1", "&lt;b&gt;sim", "2 requests", "projectquota", "sim-503x2-anna", "5e503002", r.APNs().SandboxURL} {
		require.Contains(t, text, want)
	}
	require.NotContains(t, text, "<b>sim")
	require.NotContains(t, text, "PRIVATE KEY")
	require.NotContains(t, text, "src=")
	require.Equal(t, 404, r.control(t, http.MethodGet, "/nothing", "").status)
	require.Equal(t, 204, r.control(t, http.MethodPost, "/reset", "").status)
	require.Zero(t, r.Report().Requests)
}

func TestControlAccess(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var access simulator.Access
	r.getJSON(t, "/access.json", &access)
	account, _ := readAccount(t, access.FCM.ServiceAccount)
	require.Equal(t, access.FCM.TokenURI, account.TokenURI)
	require.Equal(t, access.FCM.Project, account.Project)
	readP8(t, []byte(access.APNs.P8))
	require.Contains(t, access.APNs.CA, "BEGIN CERTIFICATE")
	require.Len(t, access.APNs.Token, 64)
	require.True(t, strings.HasPrefix(access.WebPush.SocketURL, "ws://"))
	require.Equal(t, 204, r.do(t, http.MethodPost, access.Webhook.URL+"orders", nil, nil).status)
}

func TestControlFaults(t *testing.T) {
	t.Parallel()
	r := setup(t)
	post := func(body string) int { return r.control(t, http.MethodPost, "/faults", body).status }
	require.Equal(t, 204, post(`{"target":"webhook","fault":"503x1"}`))
	require.Equal(t, 204, post(`{"target":"`+r.Webhook().URL("orders")+`","status":429,"retry_after":"30s","latency":"1ms","times":1}`))
	require.Equal(t, 204, post(`{"target":"apns","status":410,"timestamp":"2026-01-02T03:04:05Z"}`))
	require.Equal(t, 204, post(`{"target":"`+r.APNs().NewToken()+`","fault":"gone"}`))
	var rules map[string]simulator.FaultJSON
	r.getJSON(t, "/faults", &rules)
	require.Len(t, rules, 4)
	require.Equal(t, simulator.FaultJSON{Status: 429, RetryAfter: "30s", Latency: "1ms", Times: 1}, rules["orders"])
	require.Equal(t, 410, rules["apns"].Status)
	require.NotNil(t, rules["apns"].Timestamp)
	a := r.hook(t, "orders", "ntf_1")
	require.Equal(t, 429, a.status)
	require.Equal(t, "30", a.header.Get("Retry-After"))
	require.Equal(t, 503, r.hook(t, "orders", "ntf_1").status)
	require.Equal(t, 204, r.hook(t, "orders", "ntf_1").status)
	require.Equal(t, 204, r.control(t, http.MethodDelete, "/faults?target=orders", "").status)
	r.getJSON(t, "/faults", &rules)
	for bad, want := range map[string]int{
		`{`: 400, `{"unheard":1}`: 400, `{"status":503}`: 422, `{"target":"x","fault":"anna"}`: 422,
		`{"target":"x","status":99}`: 422, `{"target":"x","times":-1}`: 422, `{"target":"x","latency":"soon"}`: 422,
		`{"target":"x","retry_after":"-1s"}`: 422,
	} {
		require.Equal(t, want, post(bad), bad)
	}
	require.Equal(t, 204, r.control(t, http.MethodDelete, "/faults", "").status)
	clear(rules)
	r.getJSON(t, "/faults", &rules)
	require.Empty(t, rules)
}

func TestControlMakesAddresses(t *testing.T) {
	t.Parallel()
	r := setup(t)
	var tokens []string
	r.getJSON(t, "/tokens.json?fault=503x2&count=3", &tokens)
	require.Equal(t, []string{"sim-503x2-n1", "sim-503x2-n2", "sim-503x2-n3"}, tokens)
	r.getJSON(t, "/tokens.json?channel=apns&fault=gone", &tokens)
	require.Len(t, tokens, 1)
	_, said := newApple(t, r).push(t, tokens[0], nil, alert)
	require.Equal(t, "410 Unregistered", said)
	r.getJSON(t, "/tokens.json?channel=apns&push_type=voip&count=2", &tokens)
	require.Len(t, tokens, 2)
	_, said = newApple(t, r).push(t, tokens[1], nil, alert)
	require.Equal(t, "400 DeviceTokenNotForTopic", said)
	for _, bad := range []string{"fault=anna", "count=0", "count=x", "push_type=voip", "channel=apns&push_type=mdm", "channel=apns&push_type=voip&fault=gone"} {
		require.Equal(t, 422, r.control(t, http.MethodGet, "/tokens.json?"+bad, "").status, bad)
	}
	a := r.control(t, http.MethodPost, "/subscriptions", `{"vapid_key":"`+newVAPID(t).public+`","fault":"410","count":2}`)
	require.Equal(t, 200, a.status)
	require.Equal(t, 2, strings.Count(string(a.body), "sim-410"))
	require.Equal(t, 200, r.control(t, http.MethodPost, "/subscriptions", "").status)
	for _, bad := range []string{`{"vapid_key":"x"}`, `{"fault":"anna"}`, `{"count":-1}`} {
		require.Equal(t, 422, r.control(t, http.MethodPost, "/subscriptions", bad).status, bad)
	}

	require.Equal(t, 204, r.control(t, http.MethodPost, "/secrets", `{"name":"orders","secrets":["`+secret+`"]}`).status)
	require.Equal(t, 401, r.hook(t, "orders", "ntf_1").status)
	for _, bad := range []string{`{"name":"orders","secrets":["whsec_x"]}`, `{"secrets":[]}`} {
		require.Equal(t, 422, r.control(t, http.MethodPost, "/secrets", bad).status, bad)
	}
}
