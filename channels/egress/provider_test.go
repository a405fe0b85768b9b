package egress

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func roots(s *httptest.Server) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(s.Certificate())
	return p
}

// h2server is a real HTTP/2 server that counts its connections.
func h2server(t testing.TB, streams uint32, h http.Handler) (*httptest.Server, *atomic.Int32) {
	var conns atomic.Int32
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	require.NoError(t, http2.ConfigureServer(s.Config, &http2.Server{MaxConcurrentStreams: streams}))
	s.TLS = s.Config.TLSConfig
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, &conns
}

func provider(t testing.TB, s *httptest.Server, conns int) *ProviderTransport {
	p := Provider(ProviderOptions{RootCAs: roots(s), Conns: conns})
	t.Cleanup(p.CloseIdleConnections)
	return p
}

func post(ctx context.Context, url, body string) *http.Request {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(body)))
	if err != nil {
		panic(err)
	}
	return req
}

func echo(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	_, _ = w.Write(b)
}

// 2,000 requests by 200 goroutines through 10 streams a connection: never more
// than two connections, no request lost, no answer mixed up.
func TestProviderBoundsConnections(t *testing.T) {
	t.Parallel()
	s, conns := h2server(t, 10, http.HandlerFunc(echo))
	p := provider(t, s, 2)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	var wrong atomic.Int32
	for i := range 200 {
		wg.Go(func() {
			for k := range 10 {
				body := string(rune('A'+i)) + string(rune('a'+k))
				a := Exchange(p, post(ctx, s.URL, body), 100)
				if a.Err != nil || string(a.Body) != body || !a.Wrote {
					wrong.Add(1)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, wrong.Load())
	require.EqualValues(t, 2, conns.Load())
	require.Zero(t, p.pool.waiting.Load())
}

func TestProviderReusesOneConnection(t *testing.T) {
	t.Parallel()
	s, conns := h2server(t, 100, http.HandlerFunc(echo))
	p := provider(t, s, 2)
	for range 50 {
		a := Exchange(p, post(context.Background(), s.URL, "x"), 100)
		require.NoError(t, a.Err)
	}
	require.EqualValues(t, 1, conns.Load())

	p.CloseIdleConnections()
	require.NoError(t, Exchange(p, post(context.Background(), s.URL, "x"), 100).Err)
	require.EqualValues(t, 2, conns.Load())
}

// A request that finds no free stream gives up with its context and leaves the
// queue; the next one gets the slot when it becomes free.
func TestProviderWaitsWithinContext(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	s, _ := h2server(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/warm" {
			return
		}
		entered <- struct{}{}
		<-release
	}))
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let)
	p := provider(t, s, 1)
	// The answer comes after the SETTINGS frame, so the limit is known then.
	require.NoError(t, Exchange(p, post(context.Background(), s.URL+"/warm", "0"), 10).Err)
	first := make(chan Answer, 1)
	go func() { first <- Exchange(p, post(context.Background(), s.URL, "1"), 10) }()
	<-entered

	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	a := Exchange(p, post(ctx, s.URL, "2"), 10)
	require.ErrorIs(t, a.Err, context.DeadlineExceeded)
	require.False(t, a.Wrote)

	third := make(chan Answer, 1)
	go func() { third <- Exchange(p, post(context.Background(), s.URL, "3"), 10) }()
	let()
	require.NoError(t, (<-first).Err)
	<-entered
	require.NoError(t, (<-third).Err)
}

func TestProviderErrors(t *testing.T) {
	t.Parallel()
	t.Run("unknown CA", func(t *testing.T) {
		t.Parallel()
		s, _ := h2server(t, 10, http.HandlerFunc(echo))
		p := Provider(ProviderOptions{RootCAs: x509.NewCertPool()})
		a := Exchange(p, post(context.Background(), s.URL, "x"), 10)
		var unknown x509.UnknownAuthorityError
		require.ErrorAs(t, a.Err, &unknown)
		require.False(t, a.Wrote)
	})
	t.Run("no HTTP/2", func(t *testing.T) {
		t.Parallel()
		s := httptest.NewUnstartedServer(http.HandlerFunc(echo))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		s.StartTLS()
		t.Cleanup(s.Close)
		a := Exchange(provider(t, s, 1), post(context.Background(), s.URL, "x"), 10)
		require.Error(t, a.Err)
		require.False(t, a.Wrote)
	})
	t.Run("stream reset", func(t *testing.T) {
		t.Parallel()
		var n atomic.Int32
		s, _ := h2server(t, 10, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n.Add(1)
			_, _ = io.ReadAll(r.Body)
			panic(http.ErrAbortHandler)
		}))
		a := Exchange(provider(t, s, 1), post(context.Background(), s.URL, "x"), 10)
		var stream http2.StreamError
		require.ErrorAs(t, a.Err, &stream)
		require.True(t, a.Wrote)
		require.EqualValues(t, 1, n.Load())
	})
	t.Run("dial gives up with the context", func(t *testing.T) {
		t.Parallel()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		t.Cleanup(func() { _ = l.Close() })
		p := Provider(ProviderOptions{}) // nobody shakes hands
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		defer cancel()
		a := Exchange(p, post(ctx, "https://"+l.Addr().String(), "x"), 10)
		require.ErrorIs(t, a.Err, context.DeadlineExceeded)
		p.CloseIdleConnections() // ends the dial too: goleak would see it
	})
}

func TestProviderPlainHTTP(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(echo))
	t.Cleanup(s.Close)
	p := Provider(ProviderOptions{})
	t.Cleanup(p.CloseIdleConnections)
	a := Exchange(p, post(context.Background(), s.URL, "hello"), 100)
	require.NoError(t, a.Err)
	require.Equal(t, "hello", string(a.Body))
}

func BenchmarkProvider(b *testing.B) {
	s, _ := h2server(b, 1000, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = w.Write([]byte(`{"name":"projects/p/messages/1"}`))
	}))
	body := string(bytes.Repeat([]byte("x"), 300))
	run := func(b *testing.B, rt http.RoundTripper) {
		b.SetParallelism(32)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				res, err := rt.RoundTrip(post(context.Background(), s.URL, body))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				_ = res.Body.Close()
			}
		})
	}
	b.Run("coalescing", func(b *testing.B) { run(b, provider(b, s, 1)) })
	b.Run("plain", func(b *testing.B) {
		p := provider(b, s, 1)
		p.pool.dial = func(ctx context.Context, addr string) (*http2.ClientConn, error) {
			c, err := (&http2Dialer{roots(s)}).dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			return p.h2.NewClientConn(c)
		}
		run(b, p)
	})
}
