package webhook

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

// closing is a receiver over HTTP/1.1 that closes a connection without an answer when
// it has served so many requests, as one whose idle time ends at that moment.
type closing struct {
	*receiver
	mu     sync.Mutex
	served map[net.Conn]int
}

func newClosing(t *testing.T, after int) *closing {
	c := &closing{receiver: &receiver{}, served: map[net.Conn]int{}}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn := r.Context().Value(connKey{}).(*tls.Conn)
		c.mu.Lock()
		n := c.served[conn]
		c.served[conn]++
		c.mu.Unlock()
		if n >= after {
			_ = conn.NetConn().Close()
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	c.Config.ErrorLog = log.New(io.Discard, "", 0)
	c.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conn)
	}
	c.StartTLS()
	t.Cleanup(c.Close)
	return c
}

type connKey struct{}

func (c *closing) connections() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.served)
}

// What meets a connection that the receiver closes is sent again at once, on one of
// its own.
func TestAClosedKeepAliveConnection(t *testing.T) {
	t.Parallel()
	srv := newClosing(t, 1)
	s, p, to := open(t, srv.options()), prepare(t, channels.Message{}), target(srv.URL)
	require.Equal(t, channels.Accepted, s.Send(t.Context(), to, p, life(1)).Outcome)
	r := s.Send(t.Context(), to, p, life(1))
	require.Equal(t, channels.Retry, r.Outcome)
	require.Equal(t, channels.RenewConnection, r.Renew)
	require.Contains(t, []string{"transport.closed", "transport.reset"}, r.Code)
	require.True(t, r.Ambiguous)
	again := life(2)
	again.Renewed = r.Renew
	require.Equal(t, channels.Accepted, s.Send(t.Context(), to, p, again).Outcome)
	require.Equal(t, 2, srv.connections())
}

// A receiver that does it on a new connection is at fault as others are.
func TestAClosedNewConnection(t *testing.T) {
	t.Parallel()
	srv := newClosing(t, 0)
	s, p := open(t, srv.options()), prepare(t, channels.Message{})
	for _, renewed := range []channels.Renewal{channels.RenewNothing, channels.RenewConnection} {
		l := life(1)
		l.Renewed = renewed
		r := s.Send(t.Context(), target(srv.URL), p, l)
		require.Equal(t, channels.Retry, r.Outcome)
		require.Equal(t, channels.RenewNothing, r.Renew)
		require.True(t, r.Ambiguous)
	}
}

// What must not be sent twice never goes over a connection that may be closed at this
// moment.
func TestAtMostOnceHasAConnectionOfItsOwn(t *testing.T) {
	t.Parallel()
	srv := newClosing(t, 1)
	s, p, l := open(t, srv.options()), prepare(t, channels.Message{}), life(1)
	l.AtMostOnce = true
	for range 3 {
		require.Equal(t, channels.Accepted, s.Send(t.Context(), target(srv.URL), p, l).Outcome)
	}
	require.Equal(t, 3, srv.connections())
}

func TestIdleConnectionsAreClosedBeforeReceiversDo(t *testing.T) {
	t.Parallel()
	require.Less(t, idleTime, 5*time.Second, "what Node.js waits")
	closed := make(chan struct{}, 1)
	srv := newReceiver(t, ok)
	for _, http2 := range []bool{true, false} {
		other := httptest.NewUnstartedServer(srv.Config.Handler)
		other.EnableHTTP2 = http2
		other.Config.ConnState = func(_ net.Conn, st http.ConnState) {
			if st == http.StateClosed {
				closed <- struct{}{}
			}
		}
		other.StartTLS()
		t.Cleanup(other.Close)
		o := srv.options()
		o.Limits.RootCAs = other.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		o.Limits.IdleTime = 20 * time.Millisecond
		require.Equal(t, channels.Accepted, open(t, o).Send(t.Context(), target(other.URL), prepare(t, channels.Message{}), life(1)).Outcome)
		<-closed
	}
}

// The status counts, whatever headers come with it; beyond the limit there is none, and
// another try would bring the same.
func TestLargeHeaders(t *testing.T) {
	t.Parallel()
	// HTTP/2 counts more for a header than its bytes, and ends the connection where
	// frames come beyond the one in which the limit was reached.
	for http2, tooMuch := range map[bool]int{true: 255_000, false: 265_000} {
		for size, want := range map[int]channels.Result{
			33_000:  {Outcome: channels.Accepted, Code: "webhook.accepted", Status: 200},
			100_000: {Outcome: channels.Accepted, Code: "webhook.accepted", Status: 200},
			tooMuch: {Outcome: channels.Rejected, Code: "webhook.headers_too_large", Ambiguous: true},
		} {
			t.Run(fmt.Sprint(size, http2), func(t *testing.T) {
				t.Parallel()
				srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					for i := range size / 1000 {
						w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
					}
				}))
				srv.EnableHTTP2 = http2
				srv.StartTLS()
				t.Cleanup(srv.Close)
				r := open(t, (&receiver{Server: srv}).options()).Send(t.Context(), target(srv.URL), prepare(t, channels.Message{}), life(1))
				require.NotEmpty(t, r.Detail)
				r.Detail = ""
				require.Equal(t, want, r)
			})
		}
	}
}

// A connection is used again when the answer's body is short, and never for the sake of
// a long one.
func TestTheBodyOfAnAnswer(t *testing.T) {
	t.Parallel()
	for size, connections := range map[int]int{0: 1, 100: 1, bodyBytes: 1, bodyBytes + 100: 2, 1 << 20: 2} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			seen := map[string]bool{}
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				seen[r.RemoteAddr] = true
				mu.Unlock()
				_, _ = w.Write(make([]byte, size))
			}))
			srv.Config.ErrorLog = log.New(io.Discard, "", 0)
			srv.StartTLS()
			t.Cleanup(srv.Close)
			s := open(t, (&receiver{Server: srv}).options())
			for range 2 {
				require.Equal(t, channels.Accepted, s.Send(t.Context(), target(srv.URL), prepare(t, channels.Message{}), life(1)).Outcome)
			}
			require.Len(t, seen, connections)
		})
	}
}
