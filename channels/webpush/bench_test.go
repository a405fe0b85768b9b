package webpush

import (
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	webpushgo "github.com/SherClockHolmes/webpush-go"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

// The benchmarks behind docs/adr/0004-web-push-encryption.md: the library and
// this channel, with the same message over the same HTTP/2 transport, and the
// same with no network at all.

// perCPU adds the CPU time of the process per message, the service's share
// included, which depends less on the machine's other work than wall time does.
func perCPU(b *testing.B, run func()) {
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	run()
	b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func libraryInputs(b *testing.B, br browser, endpoint string, client webpushgo.HTTPClient) (*webpushgo.Subscription, *webpushgo.Options) {
	private, public, err := webpushgo.GenerateVAPIDKeys()
	require.NoError(b, err)
	return &webpushgo.Subscription{Endpoint: endpoint, Keys: webpushgo.Keys{
			P256dh: base64.RawURLEncoding.EncodeToString(br.key.PublicKey().Bytes()),
			Auth:   base64.RawURLEncoding.EncodeToString(br.auth),
		}}, &webpushgo.Options{HTTPClient: client, Subscriber: "ops@example.com", TTL: 60,
			VAPIDPublicKey: public, VAPIDPrivateKey: private, RecordSize: 2048}
}

func benchmarkLibrary(b *testing.B, endpoint string, client webpushgo.HTTPClient) {
	br := newBrowser(b)
	sub, o := libraryInputs(b, br, endpoint, client)
	plain := prepare(b, channels.Message{Title: "Hi", Body: "there"}).Preview(deliveryID)
	perCPU(b, func() {
		b.RunParallel(func(pb *testing.PB) { librarySends(b, pb, plain, sub, o) })
	})
}

func librarySends(b *testing.B, pb *testing.PB, plain []byte, sub *webpushgo.Subscription, o *webpushgo.Options) {
	for pb.Next() {
		res, err := webpushgo.SendNotification(bytes.Clone(plain), sub, o)
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
}

func benchmarkOurs(b *testing.B, endpoint string, o Options) {
	s, target := open(b, New(o)), newBrowser(b).target(endpoint)
	p, l := prepare(b, channels.Message{Title: "Hi", Body: "there"}), life(s.now())
	perCPU(b, func() {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if r := s.Send(context.Background(), target, p, l); r.Outcome != channels.Accepted {
					b.Errorf("%+v", r)
					return
				}
			}
		})
	})
}

func BenchmarkNetworkLibrary(b *testing.B) {
	svc := newService(b, created)
	client := New(svc.options()).client
	b.Cleanup(client.CloseIdleConnections)
	benchmarkLibrary(b, svc.URL+"/p", client)
}

func BenchmarkNetworkOurs(b *testing.B) {
	svc := newService(b, created)
	benchmarkOurs(b, svc.URL+"/p", svc.options())
}

// nowhere answers at once, so that only the work before the request is measured.
var nowhere = roundTrip(func(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusCreated, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
})

func BenchmarkLibrary(b *testing.B) {
	benchmarkLibrary(b, "https://push.example/p", &http.Client{Transport: nowhere})
}

func BenchmarkOurs(b *testing.B) {
	benchmarkOurs(b, "https://push.example/p", Options{AnyHost: true, Transport: nowhere})
}

func BenchmarkSeal(b *testing.B) {
	target := newBrowser(b).target("")
	plain := prepare(b, channels.Message{Title: "Hi", Body: "there"}).Preview(deliveryID)
	perCPU(b, func() {
		for range b.N {
			if _, err := encrypt(plain, target, padding(len(plain))); err != nil {
				b.Fatal(err)
			}
		}
	})
}
