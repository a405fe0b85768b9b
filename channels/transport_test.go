package channels_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/carillonhq/carillon/channels"
)

// post makes one request as senders do, and gives the verdict. It reads the
// body, since an answer may end in it.
func post(ctx context.Context, c *http.Client, url string) (r channels.Result, status int) {
	var wrote atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) { wrote.Store(i.Err == nil) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("secret-payload"))
	if err != nil {
		panic(err)
	}
	req.GetBody = nil // no second try by the transport
	res, err := c.Do(req)
	if err == nil {
		status = res.StatusCode
		_, err = io.ReadAll(res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		return channels.Result{}, status
	}
	return channels.FromTransport(ctx, err, wrote.Load()), status
}

// listener accepts connections and lets serve end each of them.
func listener(t *testing.T, serve func(*net.TCPConn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c.(*net.TCPConn))
		}
	}()
	return l.Addr().String()
}

// readRequest reads a request to its end.
func readRequest(c net.Conn) {
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err == nil {
		_, _ = io.Copy(io.Discard, req.Body)
	}
}

func TestTransportErrors(t *testing.T) {
	t.Parallel()
	plain := func(t *testing.T) *http.Client {
		t.Helper()
		tr := &http.Transport{DisableKeepAlives: true}
		t.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	for name, x := range map[string]struct {
		call      func(t *testing.T) (channels.Result, int)
		code      string
		ambiguous bool
		status    int
	}{
		"refused": {code: "transport.refused", call: func(t *testing.T) (channels.Result, int) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			require.NoError(t, l.Close())
			return post(t.Context(), plain(t), "http://"+l.Addr().String())
		}},
		"no such host": {code: "transport.dns_not_found", call: func(t *testing.T) (channels.Result, int) {
			tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x.invalid", IsNotFound: true}}
			}}
			return post(t.Context(), &http.Client{Transport: tr}, "http://x.invalid")
		}},
		"name server": {code: "transport.dns", call: func(t *testing.T) (channels.Result, int) {
			tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "i/o timeout", Name: "x.invalid", IsTimeout: true}}
			}}
			return post(t.Context(), &http.Client{Transport: tr}, "http://x.invalid")
		}},
		"handshake without an answer": {code: "transport.timeout", call: func(t *testing.T) (channels.Result, int) {
			addr := listener(t, func(c *net.TCPConn) { <-never; _ = c.Close() })
			c := plain(t)
			c.Transport.(*http.Transport).TLSHandshakeTimeout = 20 * time.Millisecond
			return post(t.Context(), c, "https://"+addr)
		}},
		"unknown authority": {code: "transport.tls_unknown_authority", call: func(t *testing.T) (channels.Result, int) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // it is the client that fails
			s.StartTLS()
			t.Cleanup(s.Close)
			return post(t.Context(), plain(t), s.URL)
		}},
		"another host's certificate": {code: "transport.tls_wrong_name", call: func(t *testing.T) (channels.Result, int) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // it is the client that fails
			s.StartTLS()
			t.Cleanup(s.Close)
			c := s.Client()
			c.Transport.(*http.Transport).TLSClientConfig.ServerName = "elsewhere.test"
			return post(t.Context(), c, s.URL)
		}},
		"expired certificate": {code: "transport.tls_expired", call: func(t *testing.T) (channels.Result, int) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // it is the client that fails
			s.StartTLS()
			t.Cleanup(s.Close)
			c := s.Client()
			c.Transport.(*http.Transport).TLSClientConfig.Time = func() time.Time { return time.Now().AddDate(200, 0, 0) }
			return post(t.Context(), c, s.URL)
		}},
		"old TLS": {code: "transport.tls_protocol", call: func(t *testing.T) (channels.Result, int) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // it is the client that fails
			s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
			s.StartTLS()
			t.Cleanup(s.Close)
			return post(t.Context(), s.Client(), s.URL)
		}},
		"neither TLS nor HTTP": {code: "transport.tls_protocol", call: func(t *testing.T) (channels.Result, int) {
			addr := listener(t, func(c *net.TCPConn) {
				_, _ = c.Write([]byte("220 mail.example ESMTP\r\n"))
				_, _ = io.Copy(io.Discard, c)
				_ = c.Close()
			})
			return post(t.Context(), plain(t), "https://"+addr)
		}},
		"no TLS": {code: "transport.plain_http", call: func(t *testing.T) (channels.Result, int) {
			s := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(s.Close)
			return post(t.Context(), plain(t), strings.Replace(s.URL, "http", "https", 1))
		}},
		"client certificate wanted": {code: "transport.tls_refused", call: func(t *testing.T) (channels.Result, int) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
			s.Config.ErrorLog = log.New(io.Discard, "", 0) // it is the client that fails
			s.StartTLS()
			t.Cleanup(s.Close)
			return post(t.Context(), s.Client(), s.URL)
		}},
		"no answer in time": {code: "transport.timeout", ambiguous: true, call: func(t *testing.T) (channels.Result, int) {
			read := make(chan struct{})
			addr := listener(t, func(c *net.TCPConn) { readRequest(c); close(read); <-never; _ = c.Close() })
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-read; cancel() }()
			return post(ctx, plain(t), "http://"+addr)
		}},
		"headers late": {code: "transport.timeout", ambiguous: true, call: func(t *testing.T) (channels.Result, int) {
			addr := listener(t, func(c *net.TCPConn) { readRequest(c); <-never; _ = c.Close() })
			c := plain(t)
			c.Transport.(*http.Transport).ResponseHeaderTimeout = 20 * time.Millisecond
			return post(t.Context(), c, "http://"+addr)
		}},
		"stopping": {code: "stopping", ambiguous: true, call: func(t *testing.T) (channels.Result, int) {
			read := make(chan struct{})
			addr := listener(t, func(c *net.TCPConn) { readRequest(c); close(read); <-never; _ = c.Close() })
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() { <-read; cancel(channels.ErrStopping) }()
			return post(ctx, plain(t), "http://"+addr)
		}},
		"reset": {code: "transport.reset", ambiguous: true, call: func(t *testing.T) (channels.Result, int) {
			addr := listener(t, func(c *net.TCPConn) { readRequest(c); _ = c.SetLinger(0); _ = c.Close() })
			return post(t.Context(), plain(t), "http://"+addr)
		}},
		"closed": {code: "transport.closed", ambiguous: true, call: func(t *testing.T) (channels.Result, int) {
			addr := listener(t, func(c *net.TCPConn) { readRequest(c); _ = c.Close() })
			return post(t.Context(), plain(t), "http://"+addr)
		}},
		"body cut": {code: "transport.closed", ambiguous: true, status: 200, call: func(t *testing.T) (channels.Result, int) {
			addr := listener(t, func(c *net.TCPConn) {
				readRequest(c)
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
				_ = c.Close()
			})
			return post(t.Context(), plain(t), "http://"+addr)
		}},
		"stream reset": {code: "transport.stream_reset", ambiguous: true, call: func(t *testing.T) (channels.Result, int) {
			s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				panic(http.ErrAbortHandler)
			}))
			s.EnableHTTP2 = true
			s.StartTLS()
			t.Cleanup(s.Close)
			tr := &http2.Transport{TLSClientConfig: s.Client().Transport.(*http.Transport).TLSClientConfig}
			t.Cleanup(tr.CloseIdleConnections)
			return post(t.Context(), &http.Client{Transport: tr}, s.URL)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, status := x.call(t)
			require.Equal(t, x.code, r.Code)
			require.Equal(t, x.ambiguous, r.Ambiguous)
			require.Equal(t, slices.Contains(unreached, x.code), r.Unreached)
			require.Equal(t, x.status, status)
			want := channels.Retry
			if name == "stopping" {
				want = channels.Interrupted
			}
			require.Equal(t, want, r.Outcome)
			require.NotEmpty(t, r.Detail)
			require.LessOrEqual(t, len(r.Detail), 256)
			require.NotContains(t, r.Detail, "127.0.0.1", "an address may be a secret")
		})
	}
}

// unreached are the codes of requests that nobody has seen anything of.
var unreached = []string{"transport.refused", "transport.dns", "transport.dns_not_found", "transport.plain_http", "transport.tls", "transport.tls_unknown_authority",
	"transport.tls_expired", "transport.tls_wrong_name", "transport.tls_protocol", "transport.tls_refused"}

func TestErrorsWithoutAServer(t *testing.T) {
	t.Parallel()
	for code, err := range map[string]error{
		"transport.goaway":   http2.GoAwayError{LastStreamID: 1, ErrCode: http2.ErrCodeNo, DebugData: "secret-token"},
		"transport.protocol": http2.ConnectionError(http2.ErrCodeProtocol),
		"transport.failed":   errors.New("https://push.example/secret-token: something else"),
	} {
		r := channels.FromTransport(context.Background(), err, true)
		require.Equal(t, code, r.Code)
		require.True(t, r.Ambiguous)
		require.NotContains(t, r.Detail, "secret-token")
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for v, want := range map[string]time.Duration{
		"120": 2 * time.Minute, " 5 ": 5 * time.Second, "0": 0, "-7": 0, "86400": day, "86401": day, "9223372036854775807": day, "99999999999999999999": day, "-99999999999999999999": 0,
		"Sun, 01 Mar 2026 12:00:30 GMT": 30 * time.Second, "Sunday, 01-Mar-26 12:00:30 GMT": 30 * time.Second, "Sun Mar  1 12:00:30 2026": 30 * time.Second,
		"Sun, 01 Mar 2026 11:00:00 GMT": 0, "Fri, 31 Dec 9999 23:59:59 GMT": day,
	} {
		require.Equal(t, now.Add(want), channels.RetryAfter(http.Header{"Retry-After": {v}}, now), v)
	}
	for _, v := range []string{"", "  ", "soon", "1.5", "1e3", "2026-03-01T12:00:30Z"} {
		require.Zero(t, channels.RetryAfter(http.Header{"Retry-After": {v}}, now), v)
	}
	require.Zero(t, channels.RetryAfter(nil, now))
}

func FuzzRetryAfter(f *testing.F) {
	for _, v := range []string{"", "1", "-1", "99999999999", "Sun, 01 Mar 2026 12:00:30 GMT", "x"} {
		f.Add(v)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, v string) {
		at := channels.RetryAfter(http.Header{"Retry-After": {v}}, now)
		if !at.IsZero() && (at.Before(now) || at.After(now.Add(channels.MaxRetryAfter))) {
			t.Errorf("%q leads to %s", v, at)
		}
	})
}
