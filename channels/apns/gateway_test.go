package apns

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

// sendMany sends n at once and counts the verdicts by code.
func sendMany(t *testing.T, s channels.Sender, n int) map[string]int {
	var (
		mu    sync.Mutex
		codes = map[string]int{}
		wg    sync.WaitGroup
		p     = hello(t)
	)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for range n {
		wg.Go(func() {
			r := s.Send(ctx, device(), p, life())
			mu.Lock()
			codes[r.Code]++
			mu.Unlock()
		})
	}
	wg.Wait()
	return codes
}

// inMemory replaces production by a server without a network, so that a test
// can wait, inside a synctest bubble, until everything stands still. handler
// makes the handler of the nth connection.
func inMemory(t *testing.T, conns int, handler func(n int) http.HandlerFunc) (channels.Sender, *atomic.Int32) {
	c := New(Options{Conns: conns})
	var dialled atomic.Int32
	c.hosts[channels.Production] = hostInMemory(func() http.HandlerFunc { return handler(int(dialled.Add(1))) })
	cred, err := c.ParseCredential(credentialJSON(t, map[string]any{"environment": "production"}), nil)
	require.NoError(t, err)
	s, err := c.Open(cred)
	require.NoError(t, err)
	return s, &dialled
}

// hostInMemory asks for a handler for every connection.
func hostInMemory(next func() http.HandlerFunc) host {
	return host{base: "https://apns.test", dial: func(context.Context, *tls.Certificate) (*http2.ClientConn, error) {
		near, far := net.Pipe()
		h := next()
		go (&http2.Server{MaxConcurrentStreams: 300}).ServeConn(far, &http2.ServeConnOpts{Handler: h})
		return (&http2.Transport{}).NewClientConn(egress.Coalesce(near))
	}}
}

// TestAProbeWaitsForTheOtherGatewayABit: one that takes the credential is enough.
func TestAProbeWaitsForTheOtherGatewayABit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		hangs := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
		takes := func(http.ResponseWriter, *http.Request) {} // headers of its own would come out of a pool that bubbles share
		for _, x := range []struct {
			production, sandbox http.HandlerFunc
			took                time.Duration
			detail              string
		}{
			{takes, takes, 0, "APNs takes the credential at production and sandbox."},
			{takes, hangs, patience, "APNs takes the credential at production; sandbox does not (transport.timeout)."},
			{hangs, takes, patience, "APNs takes the credential at sandbox; production does not (transport.timeout)."},
			{hangs, hangs, 5 * time.Second, "No answer came in time."},
		} {
			c := New(Options{})
			c.hosts[channels.Production] = hostInMemory(func() http.HandlerFunc { return x.production })
			c.hosts[channels.Sandbox] = hostInMemory(func() http.HandlerFunc { return x.sandbox })
			cred, err := c.ParseCredential(credentialJSON(t, nil), nil)
			require.NoError(t, err)
			s, err := c.Open(cred)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			start := time.Now()
			require.Equal(t, x.detail, s.Probe(ctx).Detail)
			require.Equal(t, x.took, time.Since(start))
			cancel()
			s.Close()
		}
	})
}

func TestAColdStartSendsOneRequestFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var inside atomic.Int32
		answered := make(chan struct{})
		s, dialled := inMemory(t, 2, func(int) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) {
				inside.Add(1)
				<-answered
			}
		})
		done := make(chan map[string]int)
		go func() { done <- sendMany(t, s, 100) }()
		synctest.Wait()
		require.EqualValues(t, 1, inside.Load(), "the others wait for the first answer")
		close(answered)
		require.Equal(t, map[string]int{"apns.accepted": 100}, <-done)
		require.EqualValues(t, 1, dialled.Load())
		s.Close()
	})
}

func TestConnectionsGrowOnlyUnderLoadAndStayBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var inside atomic.Int32
		answered := make(chan struct{})
		s, dialled := inMemory(t, 2, func(int) http.HandlerFunc {
			var tried atomic.Bool
			return func(http.ResponseWriter, *http.Request) {
				if tried.Swap(true) { // all but the first on the connection
					inside.Add(1)
					<-answered
				}
			}
		})
		require.Equal(t, channels.Accepted, send(t, s).Outcome)
		done := make(chan map[string]int)
		go func() { done <- sendMany(t, s, growAt) }()
		synctest.Wait()
		require.EqualValues(t, 1, dialled.Load(), "one connection has room")
		go func() { done <- sendMany(t, s, 1000) }()
		synctest.Wait()
		require.EqualValues(t, 2, dialled.Load())
		require.EqualValues(t, 600, inside.Load(), "as many as the host allows on two connections")
		close(answered)
		for range 2 {
			codes := <-done
			require.Len(t, codes, 1)
			require.NotZero(t, codes["apns.accepted"])
		}
		require.EqualValues(t, 2, dialled.Load())
		s.Close()
	})
}

func TestRefusedTokensGoOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var inside, most atomic.Int32
		s, dialled := inMemory(t, 2, func(int) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				most.Store(max(most.Load(), inside.Add(1)))
				time.Sleep(time.Millisecond)
				inside.Add(-1)
				answer(403, `{"reason":"InvalidProviderToken"}`)(w, r)
			}
		})
		require.Equal(t, map[string]int{"apns.invalid_provider_token": 50}, sendMany(t, s, 50))
		require.EqualValues(t, 1, most.Load())
		require.EqualValues(t, 1, dialled.Load())
		s.Close()
	})
}

func TestOneStreamUntilATokenIsAccepted(t *testing.T) {
	t.Parallel()
	// As Apple does it: one stream at first, more once a token was accepted. A
	// ping and its answer give whoever does not wait the time to be seen.
	var tooEarly atomic.Int32
	f := rawAPNs(t, func(_ int, fr *http2.Framer) {
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
		var first uint32
		accepted := false
		for {
			frame, err := fr.ReadFrame()
			if err != nil {
				return
			}
			h := frame.Header()
			switch ping, _ := frame.(*http2.PingFrame); {
			case h.Type == http2.FrameHeaders && !accepted && h.StreamID != 1:
				tooEarly.Add(1)
			case h.Type == http2.FrameData && !accepted:
				first = h.StreamID
				_ = fr.WritePing(false, [8]byte{1})
			case h.Type == http2.FrameData:
				ok200(fr, h.StreamID)
			case ping != nil && ping.IsAck():
				accepted = true
				_ = fr.WriteSettings(http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1000})
				ok200(fr, first)
			}
		}
	})
	_, s := open(t, Options{ProductionURL: f.URL, RootCAs: f.pool()}, "production")
	require.Equal(t, map[string]int{"apns.accepted": 200}, sendMany(t, s, 200))
	require.Equal(t, 1, f.conns())
	require.Zero(t, tooEarly.Load())
}

func TestGoAwayAsksForANewConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		goodbye   func(fr *http2.Framer, stream uint32)
		code      string
		ambiguous bool
	}{
		"not looked at": {func(fr *http2.Framer, _ uint32) { _ = fr.WriteGoAway(0, http2.ErrCodeNo, nil) }, "transport.goaway", false},
		"maybe taken": {func(fr *http2.Framer, id uint32) {
			_ = fr.WriteGoAway(id, http2.ErrCodeNo, []byte(`{"reason":"Shutdown"}`))
		}, "transport.goaway", true},
		"refused": {func(fr *http2.Framer, id uint32) { _ = fr.WriteRSTStream(id, http2.ErrCodeRefusedStream) }, "transport.stream_refused", false},
	} {
		f := rawAPNs(t, func(n int, fr *http2.Framer) {
			_ = fr.WriteSettings()
			for {
				h := await(fr, http2.FrameHeaders)
				if h == nil || await(fr, http2.FrameData) == nil {
					return
				}
				if n == 1 {
					c.goodbye(fr, h.Header().StreamID)
					return
				}
				ok200(fr, h.Header().StreamID)
			}
		})
		_, s := open(t, Options{ProductionURL: f.URL, RootCAs: f.pool()}, "production")
		r := send(t, s)
		require.Equal(t, channels.Retry, r.Outcome, name)
		require.Equal(t, c.code, r.Code, name)
		require.Equal(t, channels.RenewConnection, r.Renew, name)
		require.Equal(t, c.ambiguous, r.Ambiguous, name)
		require.Equal(t, channels.Accepted, send(t, s).Outcome, name)
		require.Equal(t, 2, f.conns(), name)
	}
}

func TestGoAwayForACredentialDenies(t *testing.T) {
	t.Parallel()
	f := rawAPNs(t, func(_ int, fr *http2.Framer) {
		_ = fr.WriteSettings()
		if h := await(fr, http2.FrameHeaders); h != nil && await(fr, http2.FrameData) != nil {
			_ = fr.WriteGoAway(h.Header().StreamID, http2.ErrCodeNo, []byte(`{"reason":"BadCertificateEnvironment"}`))
		}
	})
	_, s := open(t, Options{ProductionURL: f.URL, RootCAs: f.pool()}, "production")
	r := send(t, s)
	require.Equal(t, channels.Denied, r.Outcome)
	require.Equal(t, "apns.bad_certificate_environment", r.Code)
}

func TestAVerdictThatEndsTheConnectionDialsANewOne(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{"Shutdown", "IdleTimeout", "UnrelatedKeyIdInToken", "TooManyProviderTokenUpdates"} {
		var n atomic.Int32
		f := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) == 1 {
				answer(403, `{"reason":"`+reason+`"}`)(w, r)
			}
		})
		s := openAt(t, f)
		require.NotEqual(t, channels.Accepted, send(t, s).Outcome, reason)
		require.Equal(t, channels.Accepted, send(t, s).Outcome, reason)
		require.Equal(t, 2, f.conns(), reason)
	}
}

func TestAWaiterLeavesWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		done := make(chan struct{})
		var served atomic.Int32
		s, _ := inMemory(t, 2, func(int) http.HandlerFunc {
			return func(http.ResponseWriter, *http.Request) {
				served.Add(1)
				<-done
			}
		})
		first := make(chan channels.Result)
		go func() { first <- s.Send(t.Context(), device(), hello(t), life()) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		r := s.Send(ctx, device(), hello(t), life())
		require.Equal(t, "transport.timeout", r.Code)
		require.Equal(t, time.Second, time.Since(start))
		require.False(t, r.Ambiguous)
		close(done)
		require.Equal(t, channels.Accepted, (<-first).Outcome)
		require.EqualValues(t, 1, served.Load())
		s.Close()
	})
}

func TestAFailedDialIsSharedByThoseWhoWaitForIt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		g := &gateway{maxConns: 2, dial: func(context.Context) (*http2.ClientConn, error) {
			dials++
			time.Sleep(time.Second) // all others have come by then
			return nil, syscall.ECONNREFUSED
		}}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				_, err := g.acquire(t.Context())
				assert.ErrorIs(t, err, syscall.ECONNREFUSED)
			})
		}
		wg.Wait()
		require.Equal(t, 1, dials)
		require.Empty(t, g.connections)
	})
}

func TestADialGivenUpByOneIsMadeByTheNext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		g := &gateway{maxConns: 2, dial: func(ctx context.Context) (*http2.ClientConn, error) {
			if dials++; dials == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, syscall.ECONNREFUSED
		}}
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error), make(chan error)
		go func() { _, err := g.acquire(ctx); first <- err }()
		synctest.Wait()
		go func() { _, err := g.acquire(t.Context()); second <- err }()
		synctest.Wait()
		cancel()
		require.ErrorIs(t, <-first, context.Canceled)
		require.ErrorIs(t, <-second, syscall.ECONNREFUSED)
		require.Equal(t, 2, dials)
	})
}

func TestAFirstRequestWithoutAnAnswerEndsTheConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, dialled := inMemory(t, 2, func(n int) http.HandlerFunc {
			return func(_ http.ResponseWriter, r *http.Request) {
				if n == 1 {
					<-r.Context().Done()
				}
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.Equal(t, "transport.timeout", s.Send(ctx, device(), hello(t), life()).Code)
		require.Equal(t, channels.Accepted, send(t, s).Outcome)
		require.EqualValues(t, 2, dialled.Load())
		s.Close()
	})
}

func TestAConnectionThatIsReadyAfterCloseIsClosed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, dialled := inMemory(t, 2, func(int) http.HandlerFunc {
			time.Sleep(time.Second) // the dial takes its time
			return answer(200, "")
		})
		results := make(chan channels.Result)
		for range 2 { // one dials, one waits
			go func() { results <- s.Send(t.Context(), device(), hello(t), life()) }()
		}
		synctest.Wait()
		s.Close()
		for range 2 {
			require.Equal(t, channels.Interrupted, (<-results).Outcome)
		}
		require.EqualValues(t, 1, dialled.Load())
	})
}

func TestAPlaceGivenTooLateIsPassedOn(t *testing.T) {
	t.Parallel()
	for range 200 {
		for _, dialled := range []bool{true, false} {
			busy := &connection{inflight: 1} // still to be tried, so one at a time
			if dialled {
				busy.conn = new(http2.ClientConn) // never used
			}
			g := &gateway{maxConns: 1, connections: []*connection{busy}}
			ctx, cancel := context.WithCancel(t.Context())
			got := make(chan *connection)
			go func() { l, _ := g.admit(ctx); got <- l }()
			for g.load() < 2 {
				runtime.Gosched()
			}
			g.mu.Lock()
			cancel()
			runtime.Gosched() // most likely it now wants the lock, to leave
			if busy.inflight--; !dialled {
				g.connections = nil // the dial failed
			}
			g.dispatch()
			g.mu.Unlock()
			if l := <-got; l == nil {
				require.Zero(t, g.load())
				g.mu.Lock()
				require.NotNil(t, g.pick(), "the next one can go")
				g.mu.Unlock()
			}
		}
	}
}

// load counts the requests that have a place or wait for one.
func (g *gateway) load() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := len(g.queue)
	for _, c := range g.connections {
		n += c.inflight
	}
	return n
}

func TestCloseEndsConnectionsAfterTheirLastRequest(t *testing.T) {
	t.Parallel()
	arrived, done := make(chan struct{}), make(chan struct{})
	f := serve(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-done })
	_, s := open(t, Options{ProductionURL: f.URL, RootCAs: f.pool()}, "production")
	first := make(chan channels.Result)
	go func() { first <- send(t, s) }()
	<-arrived
	c := s.(*sender).gateways[channels.Production].connections[0]
	s.Close()
	require.False(t, c.conn.State().Closed)
	close(done)
	require.Equal(t, channels.Accepted, (<-first).Outcome)
	require.True(t, c.conn.State().Closed)
}
