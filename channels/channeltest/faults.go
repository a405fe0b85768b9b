package channeltest

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

// fault is something that goes wrong below HTTP.
type fault struct {
	name   string
	serve  func(t testing.TB, h Harness) *Provider
	codes  []string // any of these
	want   channels.Result
	served int // requests that reach the provider
}

func broken(answer http.HandlerFunc) func(testing.TB, Harness) *Provider {
	return func(t testing.TB, h Harness) *Provider { return serve(t, h.HTTP1, answer) }
}

// cut sends a status and the beginning of a body.
func cut(status int) func(testing.TB, Harness) *Provider {
	return broken(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"error":`))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
}

func faults(h Harness) []fault {
	list := []fault{
		{name: "refused", codes: []string{"transport.refused"}, want: channels.Result{Outcome: channels.Retry},
			serve: func(t testing.TB, h Harness) *Provider {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				require.NoError(t, l.Close())
				return &Provider{URL: "https://" + l.Addr().String(), Roots: x509.NewCertPool()}
			}},
		{name: "unknown CA", codes: []string{"transport.tls_unknown_authority"}, want: channels.Result{Outcome: channels.Retry},
			serve: func(t testing.TB, h Harness) *Provider {
				p := serve(t, h.HTTP1, answer(h.OK))
				p.Roots = x509.NewCertPool()
				return p
			}},
		{name: "reset after the request", codes: []string{"transport.reset", "transport.closed"}, served: 1,
			want:  channels.Result{Outcome: channels.Retry, Ambiguous: true},
			serve: broken(func(_ http.ResponseWriter, r *http.Request) { kill(r, true) })},
		{name: "closed without an answer", codes: []string{"transport.closed", "transport.reset"}, served: 1,
			want:  channels.Result{Outcome: channels.Retry, Ambiguous: true},
			serve: broken(func(_ http.ResponseWriter, r *http.Request) { kill(r, false) })},
		{name: "body cut after 200", served: 1, serve: cut(200), want: channels.Result{Outcome: channels.Accepted, Status: 200}},
		{name: "body cut after 500", served: 1, serve: cut(500), want: channels.Result{Outcome: channels.Retry, Status: 500}},
	}
	if h.HTTP1 {
		return list
	}
	return append(list,
		fault{name: "stream reset", codes: []string{"transport.stream_reset"}, served: 1,
			want:  channels.Result{Outcome: channels.Retry, Ambiguous: true},
			serve: broken(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })},
		fault{name: "GOAWAY", codes: []string{"transport.goaway", "transport.closed", "transport.reset"}, served: 1,
			want:  channels.Result{Outcome: channels.Retry, Ambiguous: true},
			serve: func(t testing.TB, _ Harness) *Provider { return serveGoAway(t) }})
}

func runFaults(t *testing.T, h Harness) {
	for _, f := range faults(h) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			p := f.serve(t, h)
			s := open(t, h, p)
			r := s.Sender.Send(patient(t), s.Target, prepare(t, h, s), life(h, 0))
			wellFormed(t, h, r)
			if len(f.codes) > 0 {
				require.Contains(t, f.codes, r.Code)
			}
			require.Equal(t, f.want, channels.Result{Outcome: r.Outcome, Ambiguous: r.Ambiguous, Status: r.Status})
			require.Len(t, p.Requests(), f.served)
		})
	}
	t.Run("no answer within the deadline", func(t *testing.T) { t.Parallel(); runDeadline(t, h) })
	t.Run("stopping", func(t *testing.T) { t.Parallel(); runStopping(t, h) })
	t.Run("stopped before the request", func(t *testing.T) { t.Parallel(); runStopped(t, h) })
	t.Run("the next send works", func(t *testing.T) { t.Parallel(); runRecovery(t, h) })
}

// hanging accepts the first request and leaves all later ones without an
// answer. entered receives once per request left hanging.
func hanging(t testing.TB, h Harness) (p *Provider, entered chan struct{}) {
	entered = make(chan struct{}, 1)
	release := make(chan struct{})
	first := make(chan struct{}, 1)
	first <- struct{}{}
	p = serve(t, h.HTTP1, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-first:
			answer(h.OK)(w, r)
		default:
			entered <- struct{}{}
			<-release
		}
	})
	t.Cleanup(func() { close(release) }) // before the server's own cleanup waits for handlers
	return p, entered
}

func runDeadline(t *testing.T, h Harness) {
	p, _ := hanging(t, h)
	s := open(t, h, p)
	payload := prepare(t, h, s)
	require.Equal(t, channels.Accepted, s.Sender.Send(patient(t), s.Target, payload, life(h, 0)).Outcome)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	r := s.Sender.Send(ctx, s.Target, payload, life(h, 1))
	wellFormed(t, h, r)
	require.Equal(t, channels.Retry, r.Outcome)
	require.Equal(t, "transport.timeout", r.Code)
	require.LessOrEqual(t, len(p.Requests()), 2)
}

func runStopping(t *testing.T, h Harness) {
	p, entered := hanging(t, h)
	s := open(t, h, p)
	payload := prepare(t, h, s)
	require.Equal(t, channels.Accepted, s.Sender.Send(patient(t), s.Target, payload, life(h, 0)).Outcome)
	ctx, cancel := context.WithCancelCause(patient(t))
	result := make(chan channels.Result, 1)
	go func() { result <- s.Sender.Send(ctx, s.Target, payload, life(h, 1)) }()
	<-entered
	cancel(channels.ErrStopping)
	r := <-result
	wellFormed(t, h, r)
	require.Equal(t, channels.Interrupted, r.Outcome)
	require.True(t, r.Ambiguous, "the request had been written")
	require.Len(t, p.Requests(), 2)
}

func runStopped(t *testing.T, h Harness) {
	p := serve(t, h.HTTP1, answer(h.OK))
	s := open(t, h, p)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(channels.ErrStopping)
	r := s.Sender.Send(ctx, s.Target, prepare(t, h, s), life(h, 0))
	wellFormed(t, h, r)
	require.Equal(t, channels.Interrupted, r.Outcome)
	require.False(t, r.Ambiguous)
	require.Empty(t, p.Requests())
}

// runRecovery loses a connection and sends again at once.
func runRecovery(t *testing.T, h Harness) {
	first := make(chan struct{}, 1)
	first <- struct{}{}
	p := serve(t, h.HTTP1, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-first:
			kill(r, true)
		default:
			answer(h.OK)(w, r)
		}
	})
	s := open(t, h, p)
	payload := prepare(t, h, s)
	require.Equal(t, channels.Retry, s.Sender.Send(patient(t), s.Target, payload, life(h, 0)).Outcome)
	require.Equal(t, channels.Accepted, s.Sender.Send(patient(t), s.Target, payload, life(h, 0)).Outcome)
	require.Len(t, p.Requests(), 2)
}
