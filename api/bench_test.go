package api

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/carillonhq/carillon/delivery"
)

const aNotification = `{"to":{"users":["u42"]},"type":"order.shipped","title":"Your order has shipped","body":"It arrives tomorrow.",` +
	`"url":"https://example.com/orders/7","data":{"order":"7","total":"12.30"},"ttl":86400,"priority":"high","collapse_key":"order-7"}`

// BenchmarkSend is what a request costs beside the engine: routing, key, limits,
// strict decoding and the answer.
func BenchmarkSend(b *testing.B) {
	w := setup(b, func(o *Options) { o.Limits = Limits{PerSecond: 1e9, Burst: 1e9} })
	w.engine.accept = func(s delivery.Submission) (delivery.Answer, error) { return acceptAll(s, epoch) }
	body := bytes.NewReader(nil)
	req := httptest.NewRequest(http.MethodPost, "/v1/notifications", nil)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+keyWith("send"))
	rec := httptest.NewRecorder()
	b.ReportAllocs()
	for b.Loop() {
		body.Reset([]byte(aNotification))
		req.Body, req.ContentLength = io.NopCloser(body), int64(len(aNotification))
		rec.Body.Reset()
		clear(rec.Header())
		w.did = w.did[:0]
		w.ServeHTTP(rec, req)
		if rec.Code != http.StatusAccepted {
			b.Fatal(rec.Code, rec.Body.String())
		}
	}
}

// BenchmarkDecode is the strict decoder's share of it.
func BenchmarkDecode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var body NotificationRequest
		if err := decode([]byte(aNotification), &body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNew is what a start costs: every type is read by reflection, the
// document and its page are rendered.
func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		setup(b)
	}
}
