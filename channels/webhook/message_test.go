package webhook

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

func TestBody(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_999_999, time.FixedZone("", 3600))
	for want, m := range map[string]channels.Message{
		`{"type":"order.shipped","timestamp":"2026-03-04T04:06:07.089Z","id":"ntf_1","data":{"order":12345678901234567890,"html":"<b>&"},` +
			`"notification":{"title":"T","body":"B","image":"https://example.com/i.png","url":"https://example.com"}}`: {
			Notification: "ntf_1", Type: "order.shipped", CreatedAt: at, Title: "T", Body: "B", Image: "https://example.com/i.png",
			URL: "https://example.com", Data: json.RawMessage(` { "order": 12345678901234567890, "html": "<b>&" } `)},
		`{"type":"notification","timestamp":"2026-03-04T04:06:07.089Z","id":"ntf_1","data":{}}`: {Notification: "ntf_1", CreatedAt: at},
		`{"type":"notification","timestamp":"2026-03-04T04:06:07.089Z","id":"ntf_1","data":{"own":true},"notification":{"body":"B"}}`: {
			Notification: "ntf_1", CreatedAt: at, Body: "B", Data: json.RawMessage(`{"a":1}`), Override: json.RawMessage(`{"data":{"own":true}}`)},
	} {
		p := prepare(t, m)
		require.Equal(t, want, string(p.Preview(deliveryID)))
		require.Equal(t, len(want), p.Size())
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		data, override string
		want           []string
	}{
		{`[]`, ``, []string{"data"}},
		{`null`, ``, []string{"data"}},
		{`{`, ``, []string{"data"}},
		{`{"carillon":1}`, ``, []string{"data.carillon"}},
		{``, `[]`, []string{"overrides.webhook"}},
		{``, `null`, []string{"overrides.webhook"}},
		{``, `{"url":"x","headers":{}}`, []string{"overrides.webhook.headers", "overrides.webhook.url"}},
		{``, `{"data":1,"x":2}`, []string{"overrides.webhook.data", "overrides.webhook.x"}},
		{``, `{"data":{"carillon":1}}`, []string{"overrides.webhook.data.carillon"}},
	} {
		_, err := (&Channel{}).Prepare(channels.Message{Data: json.RawMessage(c.data), Override: json.RawMessage(c.override)})
		require.Equal(t, problem.Invalid, problem.CodeOf(err))
		require.Equal(t, c.want, paths(t, err), "%+v", c)
	}
}

func TestSizeLimit(t *testing.T) {
	t.Parallel()
	bare := prepare(t, channels.Message{Body: "x"}).Size()
	fits := strings.Repeat("x", MaxBody-bare+1)
	require.Equal(t, MaxBody, prepare(t, channels.Message{Body: fits}).Size())
	_, err := (&Channel{}).Prepare(channels.Message{Body: fits + "x"})
	require.Equal(t, problem.PayloadTooLarge, problem.CodeOf(err))
}
