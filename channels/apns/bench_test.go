package apns

import (
	"context"
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
	"golang.org/x/net/http2"

	"github.com/carillonhq/carillon/channels"
)

// The two benchmarks do the same: 64 senders, a server in the same process that
// answers at once. The second one is the library as shipped.

const benchSenders = 64

func benchServer(b *testing.B) *fakeAPNs {
	f := &fakeAPNs{Server: httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Apns-Id"] = r.Header["Apns-Id"]
	}))}
	f.EnableHTTP2 = true
	f.StartTLS()
	b.Cleanup(f.Close)
	return f
}

func inParallel(b *testing.B, send func() bool) {
	b.ReportAllocs()
	b.SetParallelism(max(benchSenders/runtime.GOMAXPROCS(0), 1))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if !send() {
				b.Error("not accepted")
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "sends/s")
}

func BenchmarkSend(b *testing.B) {
	f := benchServer(b)
	_, s := open(b, Options{ProductionURL: f.URL, RootCAs: f.pool()}, "production")
	p, l, t := hello(b), life(), device()
	inParallel(b, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
		defer cancel()
		return s.Send(ctx, t, p, l).Outcome == channels.Accepted
	})
}

func BenchmarkPlainAPNs2(b *testing.B) {
	f := benchServer(b)
	_, key, err := parseKey([]byte(newKey(b)))
	if err != nil {
		b.Fatal(err)
	}
	c := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: "ABC123DEFG", TeamID: "DEF123GHIJ"})
	c.Host = f.URL
	c.HTTPClient.Transport.(*http2.Transport).TLSClientConfig = &tls.Config{RootCAs: f.pool()}
	body, l := hello(b).Preview(testDelivery), life()
	inParallel(b, func() bool {
		r, err := c.Push(&apns2.Notification{ApnsID: testUUID, DeviceToken: testToken, Topic: "com.example.app",
			Expiration: l.ExpiresAt, Priority: 10, PushType: apns2.PushTypeAlert, Payload: []byte(body)})
		return err == nil && r.Sent()
	})
}
