package webhook

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

const (
	deliveryID     = "dlv_0d1kq3w8r000c0d1kq3w8r000d"
	notificationID = "ntf_0d1kq3w8r000c"
)

// receiver is an endpoint on loopback with TLS and HTTP/2.
type receiver struct {
	*httptest.Server
	answer   http.HandlerFunc
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
}

func newReceiver(t testing.TB, answer http.HandlerFunc) *receiver {
	r := &receiver{answer: answer}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.requests, r.bodies = append(r.requests, req), append(r.bodies, string(body))
		r.mu.Unlock()
		r.answer(w, req)
	}))
	r.EnableHTTP2 = true
	r.Config.ErrorLog = log.New(io.Discard, "", 0) // connections that end early are part of the tests
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) options() Options {
	return Options{
		Rules:     egress.Rules{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AnyPort: true},
		Limits:    egress.Limits{RootCAs: r.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, Timeout: 10 * time.Second},
		UserAgent: "Carillon/1.2.3",
	}
}

func ok(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

func open(t testing.TB, o Options) channels.Sender {
	s, err := New(o).Open(channels.Credential{})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func target(url string, keys ...[]byte) channels.Target {
	if len(keys) == 0 {
		key, _ := webhooks.NewSecret()
		keys = [][]byte{key}
	}
	return channels.Target{Kind: channels.URL, Address: url, Secrets: keys}
}

func prepare(t testing.TB, m channels.Message) channels.Payload {
	p, err := (&Channel{}).Prepare(m)
	require.NoError(t, err)
	return p
}

func life(attempt int) channels.Life {
	return channels.Life{Delivery: deliveryID, Notification: notificationID, Attempt: attempt, ExpiresAt: time.Now().Add(time.Hour)}
}

func paths(t testing.TB, err error) []string {
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	var out []string
	for _, f := range e.Fields {
		out = append(out, f.Path)
	}
	return out
}

func TestSend(t *testing.T) {
	t.Parallel()
	srv := newReceiver(t, ok)
	now := time.Now() // the library that verifies reads the clock itself
	o := srv.options()
	o.Now = func() time.Time { return now }
	s := open(t, o)
	current, shown := webhooks.NewSecret()
	old, shownOld := webhooks.NewSecret()
	p := prepare(t, channels.Message{Notification: notificationID, Type: "order.shipped", Title: "Hi", Data: json.RawMessage(`{"a":"<b>"}`)})

	r := s.Send(context.Background(), target(srv.URL+"/hooks?x=1", current, old), p, life(3))
	require.Equal(t, channels.Result{Outcome: channels.Accepted, Code: "webhook.accepted", Status: 204,
		Detail: "The receiver answered 204 No Content."}, r)

	req, body := srv.requests[0], srv.bodies[0]
	require.Equal(t, "HTTP/2.0", req.Proto)
	require.Equal(t, http.MethodPost, req.Method)
	require.Equal(t, "/hooks?x=1", req.URL.RequestURI())
	require.Equal(t, string(p.Preview("")), body)
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "Carillon/1.2.3",
		"Webhook-Id": notificationID, "Webhook-Timestamp": strconv.FormatInt(now.Unix(), 10),
		"Carillon-Delivery": deliveryID, "Carillon-Attempt": "3", "Idempotency-Key": "",
	} {
		require.Equal(t, want, req.Header.Get(name), name)
	}
	require.Len(t, strings.Fields(req.Header.Get("Webhook-Signature")), 2)
	for _, secret := range []string{shown, shownOld} {
		theirs, err := standardwebhooks.NewWebhook(secret)
		require.NoError(t, err)
		require.NoError(t, theirs.Verify([]byte(body), req.Header))
	}
}

func TestEveryAttemptIsSignedAnew(t *testing.T) {
	t.Parallel()
	srv := newReceiver(t, ok)
	now := time.Unix(1_700_000_000, 0)
	o := srv.options()
	o.Now = func() time.Time { return now }
	s, key, p := open(t, o), []byte(strings.Repeat("k", 32)), prepare(t, channels.Message{})
	for attempt := range 2 {
		require.Equal(t, channels.Accepted, s.Send(context.Background(), target(srv.URL, key), p, life(attempt+1)).Outcome)
		h := srv.requests[attempt].Header
		require.NoError(t, webhooks.Verify([][]byte{key}, h, []byte(srv.bodies[attempt]), now, time.Second))
		require.Equal(t, notificationID, h.Get("Webhook-Id"))
		now = now.Add(time.Hour)
	}
	require.NotEqual(t, srv.requests[0].Header.Get("Webhook-Signature"), srv.requests[1].Header.Get("Webhook-Signature"))
}

func TestNothingUnsignedIsSent(t *testing.T) {
	t.Parallel()
	srv := newReceiver(t, ok)
	s, p := open(t, srv.options()), prepare(t, channels.Message{})
	noID := life(1)
	noID.Notification = ""
	for _, r := range []channels.Result{
		s.Send(context.Background(), channels.Target{Address: srv.URL}, p, life(1)),
		s.Send(context.Background(), target(srv.URL, []byte("short")), p, life(1)),
		s.Send(context.Background(), target(srv.URL), p, noID),
	} {
		require.Equal(t, channels.Rejected, r.Outcome)
		require.Equal(t, "webhook.unsigned", r.Code)
	}
	require.Equal(t, "webhook.bad_payload", s.Send(context.Background(), target(srv.URL), nil, life(1)).Code)
	bad := s.Send(context.Background(), target("https://secret\n"), p, life(1))
	require.Equal(t, "webhook.bad_url", bad.Code)
	require.NotContains(t, bad.Detail, "secret")
	require.Empty(t, srv.requests)
}

func TestGuard(t *testing.T) {
	t.Parallel()
	srv := newReceiver(t, ok)
	o := srv.options()
	o.Rules = egress.Rules{AnyPort: true}
	r := open(t, o).Send(context.Background(), target(srv.URL), prepare(t, channels.Message{}), life(1))
	require.Equal(t, channels.Rejected, r.Outcome)
	require.Equal(t, "webhook.refused_address", r.Code)
	require.NotContains(t, r.Detail, "127")
	r = open(t, o).Send(context.Background(), target(strings.Replace(srv.URL, "127.0.0.1", "localhost", 1)), prepare(t, channels.Message{}), life(1))
	require.Equal(t, channels.Retry, r.Outcome, "a name may lead elsewhere the next time")
	require.Equal(t, "transport.dns_not_found", r.Code, "nor does it tell that there is one")
	require.Empty(t, srv.requests)
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	other := newReceiver(t, ok)
	srv := newReceiver(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusPermanentRedirect)
	})
	o := srv.options()
	r := open(t, o).Send(context.Background(), target(srv.URL), prepare(t, channels.Message{}), life(1))
	require.Equal(t, channels.Retry, r.Outcome)
	require.Equal(t, "webhook.redirect", r.Code)
	require.Equal(t, http.StatusPermanentRedirect, r.Status)
	require.Empty(t, other.requests)
}

func TestCheckTarget(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	key, _ := webhooks.NewSecret()
	got, err := c.CheckTarget(target("https://API.Example.com/Hooks?a=B%2f", key))
	require.NoError(t, err)
	require.Equal(t, target("https://api.example.com/Hooks?a=B%2f", key), got)
	for _, bad := range []string{"", "example.com/x", "http://example.com", "https://example.com:8443", "https://10.0.0.1/x", "https://localhost/x", "https://u:p@example.com", "https://example.com/#x"} {
		_, err := c.CheckTarget(target(bad))
		require.Equal(t, []string{"url"}, paths(t, err), bad)
	}
	_, err = c.CheckTarget(channels.Target{Kind: channels.FCMToken, Address: "https://example.com"})
	require.Equal(t, []string{"url"}, paths(t, err))
	_, err = New(Options{Rules: egress.Rules{AllowHTTP: true}}).CheckTarget(target("http://example.com/x"))
	require.NoError(t, err)
}

func TestNoCredential(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	_, err := c.ParseCredential([]byte(`{"secret":"x"}`), nil)
	require.Equal(t, problem.CredentialRefused, problem.CodeOf(err))
	s := open(t, Options{})
	r := s.Probe(context.Background())
	require.Equal(t, channels.Accepted, r.Outcome)
	require.Equal(t, "webhook.not_probed", r.Code)
}

func TestSendAfterClose(t *testing.T) {
	t.Parallel()
	srv := newReceiver(t, ok)
	c := New(srv.options())
	one, _ := c.Open(channels.Credential{})
	one.Close()
	two, _ := c.Open(channels.Credential{})
	defer two.Close()
	require.Equal(t, channels.Accepted, two.Send(context.Background(), target(srv.URL), prepare(t, channels.Message{}), life(1)).Outcome)
}

func TestSharedPayload(t *testing.T) {
	t.Parallel()
	srv := newReceiver(t, ok)
	s, p := open(t, srv.options()), prepare(t, channels.Message{Title: "Shared"})
	before := string(p.Preview(""))
	p.Preview("")[0] = 'x'
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			if r := s.Send(context.Background(), target(srv.URL), p, life(1)); r.Outcome != channels.Accepted {
				t.Errorf("%+v", r)
			}
		})
	}
	wait.Wait()
	for _, body := range srv.bodies {
		require.Equal(t, before, body)
	}
}
