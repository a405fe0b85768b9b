package webpush

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/channeltest"
	"github.com/carillonhq/carillon/channels/egress"
)

func TestMain(m *testing.M) { channeltest.Main(m) }

func TestContract(t *testing.T) {
	t.Parallel()
	for _, http1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http1=%v", http1), func(t *testing.T) { t.Parallel(); testContract(t, http1) })
	}
}

func testContract(t *testing.T, http1 bool) {
	b := newBrowser(t)
	private, public := testPair(t)
	good := b.target("https://fcm.googleapis.com/fcm/send/secret-token")
	bad := func(change func(*channels.Target)) channels.Target {
		target := good
		change(&target)
		return target
	}
	channeltest.Run(t, channeltest.Harness{
		HTTP1: http1,
		Open: func(t testing.TB, p *channeltest.Provider) channeltest.Setup {
			c := New(Options{AnyHost: true,
				Rules:  egress.Rules{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AnyPort: true},
				Limits: egress.Limits{RootCAs: p.Roots, IdleTime: time.Second, Timeout: 10 * time.Second}})
			cred, err := c.ParseCredential(put("mailto:ops@example.com", public, private), nil)
			require.NoError(t, err)
			s, err := c.Open(cred)
			require.NoError(t, err)
			target, err := c.CheckTarget(b.target(p.URL + "/push/secret-token"))
			require.NoError(t, err)
			return channeltest.Setup{Channel: c, Credential: cred, Sender: s, Target: target}
		},
		Message: channels.Message{Notification: "ntf_0d1kq3w8r000c", Title: "secret title", Body: "secret body",
			URL: "https://example.com/secret", Data: json.RawMessage(`{"k":"secret value","n":12345678901234567890}`), CollapseKey: "k"},
		OK: channeltest.Case{Status: http.StatusCreated, Body: "created", // an HTTP/2 stream without a body may outlive Send for an instant
			Header: http.Header{"Location": {"https://push.example/m/1"}}},
		Cases: cases(),
		Payload: func(t testing.TB, r channeltest.Request) json.RawMessage {
			plain, _, err := b.decrypt(r.Body)
			require.NoError(t, err)
			return plain
		},
		Secrets: []string{"secret title", "secret body", "secret value", "secret-token", private,
			base64.RawURLEncoding.EncodeToString(b.auth), base64.RawURLEncoding.EncodeToString(good.P256dh)},
		Overrides: map[string]string{
			`{"notification":{"title":"x"}}`:    "notification.title",
			`{"notification":{"actions":[{}]}}`: "notification.actions[0].title",
			`{"urgency":"now"}`:                 "urgency",
		},
		BadTargets: map[string]channels.Target{
			"address":     bad(func(t *channels.Target) { t.Address = "https://10.0.0.1/push/secret-token" }),
			"keys.p256dh": bad(func(t *channels.Target) { t.P256dh = t.P256dh[1:] }),
			"keys.auth":   bad(func(t *channels.Target) { t.Auth = nil }),
		},
		BadCredentials: []string{`{}`, `{"subject":"mailto:ops@example.com"}`, `{"subject":"mailto:ops@example.com","public_key":"x","private_key":"` + private + `"}`},
	})
}

// cases are the rows of the table of answers, as the suite wants them.
func cases() []channeltest.Case {
	var list []channeltest.Case
	for _, row := range answers() {
		c := channeltest.Case{Name: row.name, Status: row.status, Body: row.body, Header: http.Header{}, Want: row.want}
		for k, v := range row.header {
			c.Header.Set(k, v)
		}
		if !row.want.NotBefore.IsZero() {
			c.After = row.want.NotBefore.Sub(noon)
			c.Want.NotBefore = time.Time{}
		}
		renewed := row.at.renewed
		switch {
		case row.status == http.StatusRequestEntityTooLarge && !row.at.padded:
			renewed = channels.RenewPadding
		case row.want == smaller:
			again := reject("too_large")
			c.Again = &again
		case row.want == renew && renewed == channels.RenewNothing:
			c.Again = &denied
		}
		c.Life = func(l *channels.Life) { l.Renewed = renewed }
		list = append(list, c)
	}
	return list
}
