package simulator_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/simulator"
)

// BenchmarkHandler is the work on one request without the network and net/http.
func BenchmarkHandler(b *testing.B) {
	p := &pushRig{rig: setup(b), vapid: newVAPID(b)}
	var err error
	p.sub, err = p.Push().NewSubscription(p.vapid.public)
	require.NoError(b, err)
	push := map[string]string{"Authorization": p.vapid.header(b, p.claims(b)), "TTL": "60", "Content-Encoding": "aes128gcm"}
	fcm := map[string]string{"Authorization": "Bearer " + p.bearer(b), "Content-Type": "application/json"}
	apple := newApple(b, p.rig)
	apns := map[string]string{"Authorization": "bearer " + apple.token, "Apns-Topic": p.APNs().Topic, "Apns-Push-Type": "alert"}
	require.NoError(b, p.Webhook().SetSecret("orders", secret))
	const event = `{"type":"order.shipped","timestamp":"2026-01-02T03:04:05Z","data":{"id":"1234567890","total":"12.50"}}`
	n := ids.FormatDelivery(1<<40, 1)
	for _, c := range []struct {
		name, url string
		h         map[string]string
		body      string
	}{
		{"webhook", p.Webhook().URL("orders"), hookHeaders(b, secret, "ntf_1", p.clock.Now(), event), event},
		{"fcm", p.FCM().URL + "/v1/projects/" + p.FCM().Project + "/messages:send", fcm, `{"message":{"token":"anna","notification":` +
			`{"title":"Your order","body":"It is on its way"},"data":{"carillon":"` + n + `","order":"1234"},"android":{"priority":"high","ttl":"3600s"}}}`},
		{"apns", p.APNs().URL + "/3/device/" + p.APNs().NewToken(), apns,
			`{"aps":{"alert":{"title":"Your order","body":"It is on its way"},"sound":"default"},"carillon":"` + n + `","order":"1234"}`},
		{"webpush", p.sub.Endpoint, push, string(sealed(b, p.sub, plaintext))},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := simulator.Handler(p.Simulator, c.name == "apns")
			header := http.Header{}
			for k, v := range c.h {
				header.Set(k, v)
			}
			b.ReportAllocs()
			for b.Loop() {
				req := httptest.NewRequest(http.MethodPost, c.url, strings.NewReader(c.body))
				req.Header, req.ProtoMajor = header, 2
				w := &discard{header: http.Header{}}
				h.ServeHTTP(w, req)
				if w.status > 299 {
					b.Fatal(w.status, p.Arrivals(simulator.Filter{Limit: 1}))
				}
			}
		})
	}
}

// discard is a ResponseWriter that keeps the status alone.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
