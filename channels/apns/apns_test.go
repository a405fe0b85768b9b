package apns

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

func TestSendSaysExactlyThis(t *testing.T) {
	t.Parallel()
	f := serve(t, answer(200, ""))
	s := openAt(t, f)
	p := prepare(t, channels.Message{Title: "a < b & c", Body: "é", CollapseKey: "k", Priority: channels.Normal,
		Data: json.RawMessage(`{"html": "<b>&</b>", "n": 1.50}`)})
	l := life()
	r := s.Send(context.Background(), device(), p, l)
	require.Equal(t, channels.Result{Outcome: channels.Accepted, Code: "apns.accepted", Status: 200,
		ProviderID: testUUID, Environment: channels.Production}, r)

	got := f.seen()[0]
	require.Equal(t, "/3/device/"+testToken, got.path)
	require.Equal(t, `{"carillon":"`+testDelivery+`","aps":{"alert":{"body":"é","title":"a < b & c"}},"html":"<b>&</b>","n":1.50}`, got.body)
	require.Equal(t, got.body, string(p.Preview(testDelivery)))
	require.Equal(t, len(got.body), p.Size())
	require.Equal(t, strconv.Itoa(len(got.body)), got.header.Get("Content-Length"))
	for name, want := range map[string]string{
		"apns-id": testUUID, "apns-topic": "com.example.app", "apns-push-type": "alert", "apns-priority": "5",
		"apns-collapse-id": "k", "apns-expiration": strconv.FormatInt(l.ExpiresAt.Unix(), 10), "accept-encoding": "",
	} {
		require.Equal(t, want, got.header.Get(name), name)
	}
	bearer, ok := strings.CutPrefix(got.header.Get("authorization"), "bearer ")
	require.True(t, ok)
	token, _, err := jwt.NewParser().ParseUnverified(bearer, jwt.MapClaims{})
	require.NoError(t, err)
	require.Equal(t, map[string]any{"alg": "ES256", "kid": "ABC123DEFG"}, token.Header)
	claims := token.Claims.(jwt.MapClaims)
	require.Equal(t, "DEF123GHIJ", claims["iss"])
	require.InDelta(t, time.Now().Unix(), claims["iat"], 60)
	require.Len(t, claims, 2)
}

func TestNothingLeftOfTheDeadlineIsNowOrNever(t *testing.T) {
	t.Parallel()
	f := serve(t, answer(200, ""))
	s := openAt(t, f)
	l := life()
	l.ExpiresAt = time.Now().Add(900 * time.Millisecond)
	require.Equal(t, channels.Accepted, s.Send(context.Background(), device(), hello(t), l).Outcome)
	require.Equal(t, []string{"0"}, f.seen()[0].header.Values("apns-expiration"))
}

func TestTheStatusSurvivesAnyBody(t *testing.T) {
	t.Parallel()
	for status, body := range map[int]string{200: "<html>", 503: "<html>busy</html>", 410: `{"reason":"Unregistered","timestamp":"x"}`} {
		s := openAt(t, serve(t, answer(status, body)))
		r := send(t, s)
		require.Equal(t, status, r.Status)
		require.NotZero(t, r.Outcome)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	r := send(t, openAt(t, f))
	require.Equal(t, channels.Rejected, r.Outcome)
	require.Equal(t, 307, r.Status)
	require.Len(t, f.seen(), 1)
}

func TestAnUnknownEnvironmentIsTriedInBoth(t *testing.T) {
	t.Parallel()
	production := serve(t, answer(400, `{"reason":"BadDeviceToken"}`))
	status, body := 200, ""
	sandbox := serve(t, func(w http.ResponseWriter, r *http.Request) { answer(status, body)(w, r) })
	pool := production.pool()
	pool.AddCert(sandbox.Certificate())
	_, s := open(t, Options{ProductionURL: production.URL, SandboxURL: sandbox.URL, RootCAs: pool}, "")
	target, l := device(), life()
	target.Environment = channels.Auto

	r := s.Send(context.Background(), target, hello(t), l)
	require.Equal(t, channels.Retry, r.Outcome)
	require.Equal(t, channels.RenewGateway, r.Renew)
	require.Zero(t, r.NotBefore)
	l.Renewed = r.Renew
	r = s.Send(context.Background(), target, hello(t), l)
	require.Equal(t, channels.Accepted, r.Outcome)
	require.Equal(t, channels.Sandbox, r.Environment)

	status, body = 400, `{"reason":"BadDeviceToken"}`
	r = s.Send(context.Background(), target, hello(t), l)
	require.Equal(t, channels.Gone, r.Outcome)
	require.True(t, r.Doubtful)
	require.Zero(t, r.Renew)
	require.Len(t, production.seen(), 1)
	require.Len(t, sandbox.seen(), 2)
}

func TestACredentialOfOneEnvironmentUsesOnlyThat(t *testing.T) {
	t.Parallel()
	production, sandbox := serve(t, answer(200, "")), serve(t, answer(400, `{"reason":"BadDeviceToken"}`))
	pool := production.pool()
	pool.AddCert(sandbox.Certificate())
	_, s := open(t, Options{ProductionURL: production.URL, SandboxURL: sandbox.URL, RootCAs: pool}, "sandbox")
	target := device()
	target.Environment = channels.Auto
	r := s.Send(context.Background(), target, hello(t), life())
	require.Equal(t, channels.Gone, r.Outcome, "there is no other gateway to try")
	target.Environment = channels.Production
	r = s.Send(context.Background(), target, hello(t), life())
	require.Equal(t, "apns.environment_mismatch", r.Code)
	require.Empty(t, production.seen())
}

func TestProbe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   channels.Outcome
	}{
		{400, `{"reason":"BadDeviceToken"}`, channels.Accepted},
		{200, "", channels.Accepted},
		{403, `{"reason":"InvalidProviderToken"}`, channels.Denied},
		{403, `{"reason":"ExpiredProviderToken"}`, channels.Denied},
		{403, `{"reason":"UnrelatedKeyIdInToken"}`, channels.Denied},
		{400, `{"reason":"TopicDisallowed"}`, channels.Denied},
		{503, "", channels.Retry},
	} {
		f := serve(t, answer(c.status, c.body))
		r := openAt(t, f).Probe(context.Background())
		require.Equal(t, c.want, r.Outcome, c.body)
		require.Zero(t, r.Renew, c.body)
		for _, q := range f.seen() {
			require.Equal(t, "/3/device/"+strings.Repeat("0", 64), q.path)
			require.Equal(t, "0", q.header.Get("apns-expiration"))
		}
	}
}

func TestTransportFailures(t *testing.T) {
	t.Parallel()
	f := serve(t, answer(200, ""))
	closed := serve(t, answer(200, ""))
	closed.Close()
	for name, c := range map[string]struct {
		options Options
		code    string
	}{
		"refused":      {Options{ProductionURL: closed.URL, RootCAs: closed.pool()}, "transport.refused"},
		"unknown root": {Options{ProductionURL: f.URL, RootCAs: x509.NewCertPool()}, "transport.tls_unknown_authority"},
	} {
		_, s := open(t, c.options, "production")
		r := send(t, s)
		require.Equal(t, channels.Retry, r.Outcome, name)
		require.Equal(t, c.code, r.Code, name)
		require.False(t, r.Ambiguous, name)
	}
}

func TestATimeoutAfterTheRequestIsAmbiguousAndStoppingInterrupts(t *testing.T) {
	t.Parallel()
	arrived, done := make(chan struct{}, 2), make(chan struct{})
	f := serve(t, func(http.ResponseWriter, *http.Request) { arrived <- struct{}{}; <-done })
	defer close(done)
	s := openAt(t, f)
	for cause, want := range map[error]channels.Outcome{context.DeadlineExceeded: channels.Retry, channels.ErrStopping: channels.Interrupted} {
		ctx, cancel := context.WithCancelCause(context.Background())
		go func() { <-arrived; cancel(cause) }()
		r := s.Send(ctx, device(), hello(t), life())
		require.Equal(t, want, r.Outcome)
		require.True(t, r.Ambiguous)
	}
}

func TestSendAfterCloseIsInterrupted(t *testing.T) {
	t.Parallel()
	f := serve(t, answer(200, ""))
	s := openAt(t, f)
	s.Close()
	s.Close()
	require.Equal(t, channels.Interrupted, send(t, s).Outcome)
	require.Empty(t, f.seen())
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	t.Parallel()
	good, err := New(Options{}).ParseCredential(credentialJSON(t, nil), nil)
	require.NoError(t, err)
	_, err = New(Options{ProductionURL: "api.push.apple.com"}).Open(good)
	require.ErrorContains(t, err, "is not an http(s) URL")
	bad := good
	bad.Secret = []byte("junk")
	_, err = New(Options{}).Open(bad)
	require.Equal(t, problem.CredentialRefused, problem.CodeOf(err))
	bad = good
	bad.Settings = json.RawMessage(`{}`)
	_, err = New(Options{}).Open(bad)
	require.Equal(t, problem.Invalid, problem.CodeOf(err))
}

func TestCheckTarget(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	got, err := c.CheckTarget(channels.Target{Kind: channels.APNsToken, Address: " " + strings.ToUpper(testToken) + "\n", OS: "ios"})
	require.NoError(t, err)
	require.Equal(t, channels.Target{Kind: channels.APNsToken, Address: testToken, Environment: channels.Auto, OS: "ios"}, got)
	for name, bad := range map[string]channels.Target{
		"address":     {Kind: channels.APNsToken, Address: "../../1/apps/x?y="},
		"environment": {Kind: channels.APNsToken, Address: testToken, Environment: "development"},
		"kind":        {Kind: channels.FCMToken, Address: testToken},
	} {
		_, err := c.CheckTarget(bad)
		requireFields(t, err, problem.Invalid, name)
	}
	for _, address := range []string{"", testToken[:62], testToken + "a", strings.Repeat("ab", 101), testToken + "\n" + testToken, testToken[:63] + "g"} {
		_, err := c.CheckTarget(channels.Target{Kind: channels.APNsToken, Address: address})
		requireFields(t, err, problem.Invalid, "address")
		require.NotContains(t, err.Error(), testToken[:20])
	}
}

// requireFields checks the code and the paths of an error.
func requireFields(t *testing.T, err error, code problem.Code, paths ...string) {
	t.Helper()
	require.Equal(t, code, problem.CodeOf(err), "%v", err)
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	var got []string
	for _, f := range e.Fields {
		got = append(got, f.Path)
	}
	require.ElementsMatch(t, paths, got)
}
