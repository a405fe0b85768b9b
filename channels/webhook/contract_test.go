package webhook

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/channeltest"
	"github.com/carillonhq/carillon/channels/egress"
	"github.com/carillonhq/carillon/webhooks"
)

func TestMain(m *testing.M) { channeltest.Main(m) }

func TestContract(t *testing.T) {
	t.Parallel()
	key, _ := webhooks.NewSecret()
	for _, http1 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http1=%v", http1), func(t *testing.T) {
			t.Parallel()
			channeltest.Run(t, channeltest.Harness{
				HTTP1: http1,
				Open: func(t testing.TB, p *channeltest.Provider) channeltest.Setup {
					c := New(Options{
						Rules:  egress.Rules{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AnyPort: true},
						Limits: egress.Limits{RootCAs: p.Roots}})
					s, err := c.Open(channels.Credential{})
					require.NoError(t, err)
					to, err := c.CheckTarget(target(p.URL+"/hooks?secret=token", key))
					require.NoError(t, err)
					return channeltest.Setup{Channel: c, Sender: s, Target: to}
				},
				Message: channels.Message{Notification: notificationID, Type: "order.shipped", Title: "secret title",
					Data: json.RawMessage(`{"k":"secret value"}`)},
				OK:         channeltest.Case{Status: http.StatusOK, Body: "taken"}, // an HTTP/2 stream without a body may outlive Send for an instant
				Cases:      cases(),
				Payload:    func(_ testing.TB, r channeltest.Request) json.RawMessage { return r.Body },
				Secrets:    []string{"secret title", "secret value", "secret=token", base64.StdEncoding.EncodeToString(key)},
				Overrides:  map[string]string{`{"data":[]}`: "data", `{"data":{"carillon":1}}`: "data.carillon"},
				BadTargets: map[string]channels.Target{"url": target("http://example.com/hooks")},
			})
		})
	}
}

func cases() []channeltest.Case {
	var list []channeltest.Case
	for _, row := range answers() {
		c := channeltest.Case{Name: fmt.Sprint(row.status, " ", row.after), Status: row.status,
			Want: channels.Result{Outcome: row.want, Code: row.code}, After: row.wait}
		if row.wait == dated {
			continue // the date counts from the table's own clock
		}
		if row.after != "" {
			c.Header = http.Header{"Retry-After": {row.after}}
		}
		list = append(list, c)
	}
	return list
}
