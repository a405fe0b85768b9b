package fcm

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

// clock is a time that tests move.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time      { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) add(d time.Duration) { c.offset.Add(int64(d)) }

// However many sends begin at once, one token is fetched for them.
func TestTokenSingleFlight(t *testing.T) {
	t.Parallel()
	o := newOAuth(t)
	var seen sync.Map
	s := openAt(t, o, plainFCM(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("Authorization"), true)
		ok(w, r)
	}), nil)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if r := send(t, s, life()); r.Outcome != channels.Accepted {
				t.Errorf("%+v", r)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, o.issued.Load())
	_, used := seen.Load("Bearer ya29.token-1")
	require.True(t, used)
}

// A token is replaced shortly before it expires, while the old one still serves.
func TestTokenRenewal(t *testing.T) {
	t.Parallel()
	o, c := newOAuth(t), &clock{}
	var last atomic.Value
	s := openAt(t, o, plainFCM(t, func(w http.ResponseWriter, r *http.Request) {
		last.Store(r.Header.Get("Authorization"))
		ok(w, r)
	}), c.now)
	require.Equal(t, channels.Accepted, send(t, s, life()).Outcome)
	c.add(50 * time.Minute)
	require.Equal(t, channels.Accepted, send(t, s, life()).Outcome)
	require.EqualValues(t, 1, o.issued.Load())

	// An early renewal that fails hurts nobody.
	release := make(chan struct{})
	o.respond(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		w.WriteHeader(http.StatusInternalServerError)
	})
	c.add(7 * time.Minute)
	require.Equal(t, channels.Accepted, send(t, s, life()).Outcome)
	own := s.Sender.(*sender).tokens
	own.mu.Lock()
	early := own.fetch
	own.mu.Unlock()
	close(release)
	<-early.done
	require.Equal(t, "Bearer ya29.token-1", last.Load())

	o.respond(nil)
	c.add(5 * time.Minute) // past its end: the send waits for the new one
	require.Equal(t, channels.Accepted, send(t, s, life()).Outcome)
	require.Equal(t, "Bearer ya29.token-2", last.Load())
}

// A refused token is dropped once, whoever used it, and the next attempt has
// another; the same answer again is the key's fault.
func TestTokenRefused(t *testing.T) {
	t.Parallel()
	o := newOAuth(t)
	var refuse atomic.Bool
	refuse.Store(true)
	var last atomic.Value
	s := openAt(t, o, plainFCM(t, func(w http.ResponseWriter, r *http.Request) {
		last.Store(r.Header.Get("Authorization"))
		if refuse.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		ok(w, r)
	}), nil)
	r := send(t, s, life())
	require.Equal(t, channels.Retry, r.Outcome)
	require.Equal(t, channels.RenewToken, r.Renew)
	l := life()
	l.Renewed = r.Renew
	require.Equal(t, channels.Denied, send(t, s, l).Outcome)
	require.Equal(t, "Bearer ya29.token-2", last.Load())
	refuse.Store(false)
	require.Equal(t, channels.Accepted, send(t, s, life()).Outcome)
	require.Equal(t, "Bearer ya29.token-3", last.Load())

	own := s.Sender.(*sender)
	own.tokens.drop("ya29.token-1") // a late 401 for an old token
	require.Equal(t, channels.Accepted, send(t, s, life()).Outcome)
	require.EqualValues(t, 3, o.issued.Load())
}

// Without a token nothing reaches FCM, and everything of the credential waits.
func TestTokenEndpointFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status int
		body   string
		want   channels.Outcome
		code   string
	}{
		{400, `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`, channels.Denied, "fcm.credential_refused"},
		{401, `{"error":"invalid_client"}`, channels.Denied, "fcm.credential_refused"},
		{429, ``, channels.Throttled, "fcm.oauth_unavailable"},
		{500, `oops`, channels.Retry, "fcm.oauth_unavailable"},
		{200, `{}`, channels.Retry, "fcm.oauth_unavailable"},
		{200, `{"access_token":"a\r\nb"}`, channels.Retry, "fcm.oauth_unavailable"},
		{302, ``, channels.Retry, "fcm.oauth_unavailable"},
	} {
		o := newOAuth(t)
		o.respond(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", o.URL+"/elsewhere")
			w.WriteHeader(tc.status)
			_, _ = w.Write([]byte(tc.body))
		})
		var reached atomic.Int32
		s := openAt(t, o, plainFCM(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) }), nil)
		for _, r := range []channels.Result{send(t, s, life()), s.Sender.Probe(context.Background())} {
			require.Equal(t, tc.want, r.Outcome, tc)
			require.Equal(t, tc.code, r.Code)
			require.Equal(t, channels.ScopeCredential, r.Scope)
			require.False(t, r.Ambiguous)
		}
		require.Zero(t, reached.Load())
	}
}

func TestTokenEndpointUnreachable(t *testing.T) {
	t.Parallel()
	o := newOAuth(t)
	s := openAt(t, o, plainFCM(t, ok), nil)
	o.Close()
	r := send(t, s, life())
	require.Equal(t, channels.Retry, r.Outcome)
	require.Equal(t, "transport.refused", r.Code)
	require.Equal(t, channels.ScopeCredential, r.Scope)
}

// A token endpoint that hangs holds a send no longer than the send's context,
// and does not stop the next one from using the token when it comes.
func TestTokenEndpointHangs(t *testing.T) {
	t.Parallel()
	o := newOAuth(t)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	let := sync.OnceFunc(func() { close(release) })
	t.Cleanup(let)
	o.respond(func(w http.ResponseWriter, _ *http.Request) {
		entered <- struct{}{}
		<-release
		_, _ = w.Write([]byte(`{"access_token":"late","expires_in":3600}`))
	})
	s := openAt(t, o, plainFCM(t, ok), nil)
	p := prepare(t, channels.Message{Title: "x"})
	ctx, cancel := context.WithCancelCause(context.Background())
	result := make(chan channels.Result, 1)
	go func() { result <- s.Sender.Send(ctx, s.Target, p, life()) }()
	<-entered
	cancel(channels.ErrStopping)
	r := <-result
	require.Equal(t, channels.Interrupted, r.Outcome)
	require.False(t, r.Ambiguous)

	go func() { result <- s.Sender.Send(context.Background(), s.Target, p, life()) }()
	let()
	require.Equal(t, channels.Accepted, (<-result).Outcome)
}

func TestCloseEndsTokenFetch(t *testing.T) {
	t.Parallel()
	o := newOAuth(t)
	entered, release := make(chan struct{}, 1), make(chan struct{})
	t.Cleanup(func() { close(release) })
	o.respond(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-release })
	s := openAt(t, o, plainFCM(t, ok), nil)
	result := make(chan channels.Result, 1)
	go func() { result <- s.Sender.Probe(context.Background()) }()
	<-entered
	s.Sender.Close()
	require.Equal(t, channels.Retry, (<-result).Outcome)
}
