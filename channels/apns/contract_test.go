package apns

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/channeltest"
)

func TestMain(m *testing.M) { channeltest.Main(m) }

func TestContract(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	channeltest.Run(t, channeltest.Harness{
		Open: func(t testing.TB, p *channeltest.Provider) channeltest.Setup {
			c := New(Options{ProductionURL: p.URL, SandboxURL: p.URL, RootCAs: p.Roots})
			cred, err := c.ParseCredential(credentialJSON(t, map[string]any{"key": key}), nil)
			require.NoError(t, err)
			s, err := c.Open(cred)
			require.NoError(t, err)
			target, err := c.CheckTarget(device())
			require.NoError(t, err)
			return channeltest.Setup{Channel: c, Credential: cred, Sender: s, Target: target}
		},
		Message: channels.Message{Title: "secret title", Body: "secret <body>", Data: json.RawMessage(`{"k":"secret value","n":12345678901234567890}`)},
		OK:      channeltest.Case{Status: 200, Header: http.Header{"apns-id": {testUUID}}, Want: channels.Result{Outcome: channels.Accepted, Code: "apns.accepted", ProviderID: testUUID, Environment: channels.Production}},
		Cases:   contractCases(),
		Probes: []channeltest.Case{
			{Name: "unknown token", Status: 400, Body: `{"reason":"BadDeviceToken"}`, Want: channels.Result{Outcome: channels.Accepted}},
			{Name: "accepted", Status: 200, Want: channels.Result{Outcome: channels.Accepted}},
			{Name: "wrong key", Status: 403, Body: `{"reason":"InvalidProviderToken"}`, Want: denied("invalid_provider_token")},
			{Name: "wrong topic", Status: 400, Body: `{"reason":"TopicDisallowed"}`, Want: denied("topic_disallowed")},
		},
		Payload: func(_ testing.TB, r channeltest.Request) json.RawMessage { return r.Body },
		Secrets: []string{"secret title", "secret <body>", "secret value", strings.Split(key, "\n")[1]},
		Overrides: map[string]string{
			`{"aps":{"colour":1}}`: "aps.colour",
			`{"topic":"*"}`:        "topic",
		},
		BadTargets: map[string]channels.Target{
			"address":     {Kind: channels.APNsToken, Address: "../../../secret"},
			"environment": {Kind: channels.APNsToken, Address: testToken, Environment: "development"},
		},
		BadCredentials: []string{`{}`, `{"key":"` + strings.ReplaceAll(key, "\n", "") + `","key_id":"ABC123DEFG","team_id":"DEF123GHIJ","topics":["a"]}`},
	})
}

// contractCases are all rows of TestClassify that depend on nothing but the
// answer, the target and the attempt, and those that depend on the sender.
func contractCases() []channeltest.Case {
	final, unknown := denied("unrelated_key_id_in_token"), channels.Result{Outcome: channels.Gone, Code: "apns.bad_device_token", Doubtful: true}
	auto := func(t *channels.Target) { t.Environment = channels.Auto }
	cases := []channeltest.Case{
		{Name: "bad token in both environments", Status: 400, Body: `{"reason":"BadDeviceToken"}`, Target: auto, Again: &unknown,
			Want: channels.Result{Outcome: channels.Retry, Code: "apns.bad_device_token", Renew: channels.RenewGateway}},
		{Name: "unrelated key on a new connection", Status: 403, Body: `{"reason":"UnrelatedKeyIdInToken"}`, Again: &final,
			Want: channels.Result{Outcome: channels.Retry, Code: "apns.unrelated_key_id_in_token", Renew: channels.RenewConnection}},
		{Name: "young JWT called expired", Status: 403, Body: `{"reason":"ExpiredProviderToken"}`, Want: denied("expired_provider_token")},
		{Name: "Retry-After", Status: 503, Header: http.Header{"Retry-After": {"90"}}, Body: `{"reason":"Shutdown"}`, After: 90 * time.Second,
			Want: channels.Result{Outcome: channels.Retry, Code: "apns.shutdown"}},
	}
	for i, r := range rows() {
		// A key's environment is asked for at the other gateway, which is this one here.
		if r.in.ownTopic || strings.Contains(r.body, "ExpiredProviderToken") || strings.Contains(r.body, "BadEnvironmentKey") {
			continue
		}
		r.want.Floor = r.floor
		if r.want.Outcome == channels.Accepted {
			r.want.Environment = channels.Production
		}
		cases = append(cases, channeltest.Case{Name: fmt.Sprint(i, " ", r.status, " ", r.body), Status: r.status, Body: r.body, Want: r.want,
			Life: func(l *channels.Life) { l.Renewed = r.in.renewed },
			Target: func(t *channels.Target) {
				t.RegisteredAt = r.in.registeredAt
				if r.in.tryOther {
					auto(t)
				}
			},
		})
	}
	return cases
}
