package simulator_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

const (
	secret    = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	oldSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

// hookHeaders are signed by the reference library.
func hookHeaders(t testing.TB, secret, id string, at time.Time, body string) map[string]string {
	t.Helper()
	w, err := standard.NewWebhook(secret)
	require.NoError(t, err)
	signature, err := w.Sign(id, at, []byte(body))
	require.NoError(t, err)
	return map[string]string{"webhook-id": id, "webhook-timestamp": strconv.FormatInt(at.Unix(), 10),
		"webhook-signature": signature, "Content-Type": "application/json"}
}

func TestWebhookReceiver(t *testing.T) {
	t.Parallel()
	r := setup(t)
	const body = `{"type":"order.shipped"}`
	now := r.clock.Now()
	post := func(url string, h map[string]string) int {
		return r.do(t, http.MethodPost, url, h, []byte(body)).status
	}
	orders := r.Webhook().URL("orders")
	require.Equal(t, 204, post(orders, nil), "without a secret everything is taken")
	require.NoError(t, r.Webhook().SetSecret("orders", secret, oldSecret))
	require.Equal(t, 204, post(orders, hookHeaders(t, secret, "ntf_1", now, body)))
	require.Equal(t, 204, post(orders, hookHeaders(t, oldSecret, "ntf_2", now, body)))
	require.Equal(t, 204, post(r.Webhook().TLSURL("orders"), hookHeaders(t, secret, "ntf_3", now, body)))
	last := r.last(t, simulator.Webhook)
	require.Equal(t, "orders", last.Target)
	require.Equal(t, "ntf_3", last.Delivery)
	require.Equal(t, body, string(last.Payload))
	require.Equal(t, "ntf_3", last.Headers["webhook-id"])

	require.Equal(t, 401, post(orders, nil))
	require.Equal(t, 401, post(orders, hookHeaders(t, secret, "ntf_1", now, body+" ")))
	require.Equal(t, 401, post(orders, hookHeaders(t, secret, "ntf_1", now.Add(-6*time.Minute), body)))
	require.Equal(t, 401, post(orders, hookHeaders(t, "whsec_"+strings.Repeat("B", 32), "ntf_1", now, body)))
	require.Equal(t, 204, post(r.Webhook().URL("others"), nil))
	require.Equal(t, 405, r.do(t, http.MethodGet, orders, nil, nil).status)
	require.Equal(t, 413, r.do(t, http.MethodPost, orders, nil, make([]byte, 1<<20+1)).status)
	require.Error(t, r.Webhook().SetSecret("orders", "whsec_short"))
	require.NoError(t, r.Webhook().SetSecret("orders"))
	require.Equal(t, 204, post(orders, nil))
}

func TestWebhookFaults(t *testing.T) {
	t.Parallel()
	r := setup(t)
	post := func(name string) got { return r.do(t, http.MethodPost, r.Webhook().URL(name), nil, []byte("{}")) }
	require.Equal(t, 503, post("sim-503x1-orders").status)
	require.Equal(t, 204, post("sim-503x1-orders").status)
	require.Equal(t, 503, post("sim-503x1-other").status, "another receiver counts for itself")
	require.Equal(t, 410, post("sim-gone").status)
	require.Equal(t, 200, post("sim-200").status)
	moved := post("sim-302")
	require.Equal(t, 302, moved.status)
	require.Equal(t, "/hook/redirected", moved.header.Get("Location"))
	require.Equal(t, "2", post("sim-429-2s").header.Get("Retry-After"))
	r.SetFault(r.Webhook().URL("plain"), simulator.Fault{Status: 500})
	require.Equal(t, 500, post("plain").status)
	r.SetFault("webhook", simulator.Fault{Status: 502, Times: 1})
	require.Equal(t, 500, post("plain").status, "the target goes before its channel")
	require.Equal(t, 502, post("unplain").status)
	require.Equal(t, 204, post("unplain").status)
	r.ClearFault("")
	require.Equal(t, 204, post("plain").status)
	require.NoError(t, r.Webhook().SetSecret("sim-503-signed", secret))
	require.Equal(t, 401, post("sim-503-signed").status, "a fault strikes only what would be accepted")
}
