package simulator_test

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"
	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// vapid is an application server's key pair.
type vapid struct {
	key    *ecdsa.PrivateKey
	public string
}

func newVAPID(t testing.TB) vapid {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	point, err := key.PublicKey.Bytes()
	require.NoError(t, err)
	return vapid{key, base64.RawURLEncoding.EncodeToString(point)}
}

func (v vapid) header(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	return "vapid t=" + sign(t, jwt.SigningMethodES256, v.key, "", claims) + ", k=" + v.public
}

func origin(t testing.TB, endpoint string) string {
	t.Helper()
	u, err := url.Parse(endpoint)
	require.NoError(t, err)
	return u.Scheme + "://" + u.Host
}

// sealed is body as webpush-go encrypts it for a subscription.
func sealed(t testing.TB, sub simulator.Subscription, plain string) []byte {
	t.Helper()
	var body bytes.Buffer
	catch := clientFunc(func(r *http.Request) (*http.Response, error) {
		_, err := body.ReadFrom(r.Body)
		return &http.Response{StatusCode: http.StatusCreated, Body: http.NoBody}, err
	})
	pair := newVAPID(t)
	private, err := pair.key.Bytes()
	require.NoError(t, err)
	_, err = webpush.SendNotification([]byte(plain), judged(sub), &webpush.Options{HTTPClient: catch, Subscriber: "ops@example.com",
		VAPIDPublicKey: pair.public, VAPIDPrivateKey: base64.RawURLEncoding.EncodeToString(private), TTL: 60, RecordSize: 1024})
	require.NoError(t, err)
	return body.Bytes()
}

type clientFunc func(*http.Request) (*http.Response, error)

func (f clientFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func judged(sub simulator.Subscription) *webpush.Subscription {
	return &webpush.Subscription{Endpoint: sub.Endpoint, Keys: webpush.Keys{P256dh: sub.Keys.P256dh, Auth: sub.Keys.Auth}}
}

// pushRig sends to one subscription.
type pushRig struct {
	*rig
	vapid vapid
	sub   simulator.Subscription
	body  []byte
}

const plaintext = `{"title":"hi","carillon":"dlv_7"}`

func setupPush(t testing.TB) *pushRig {
	t.Helper()
	p := &pushRig{rig: setup(t), vapid: newVAPID(t)}
	var err error
	p.sub, err = p.Push().NewSubscription(p.vapid.public)
	require.NoError(t, err)
	p.body = sealed(t, p.sub, plaintext)
	return p
}

func (p *pushRig) claims(t testing.TB) jwt.MapClaims {
	return jwt.MapClaims{"aud": origin(t, p.sub.Endpoint), "exp": p.clock.Now().Add(12 * time.Hour).Unix(), "sub": "mailto:ops@example.com"}
}

// post sends to the endpoint; h is added to good headers, and "-" removes one.
func (p *pushRig) post(t testing.TB, endpoint string, body []byte, h ...string) got {
	t.Helper()
	headers := map[string]string{"Authorization": p.vapid.header(t, p.claims(t)), "TTL": "60", "Content-Encoding": "aes128gcm"}
	for i := 0; i < len(h); i += 2 {
		if headers[h[i]] = h[i+1]; h[i+1] == "-" {
			delete(headers, h[i])
		}
	}
	return p.do(t, http.MethodPost, endpoint, headers, body)
}

func TestPushAccepts(t *testing.T) {
	t.Parallel()
	p := setupPush(t)
	a := p.post(t, p.sub.Endpoint, p.body, "Topic", "news_1", "Urgency", "high")
	require.Equal(t, 201, a.status, string(a.body))
	require.NotEmpty(t, a.header.Get("Location"))
	require.Equal(t, "60", a.header.Get("TTL"))
	last := p.last(t, simulator.WebPush)
	require.Equal(t, plaintext, string(last.Payload))
	require.Equal(t, "dlv_7", last.Delivery)
	require.Equal(t, "news_1", last.Headers["topic"])
	require.Len(t, p.Arrivals(simulator.Filter{Target: p.sub.Endpoint}), 1)

	require.Equal(t, 201, p.post(t, p.sub.Endpoint, nil, "Content-Encoding", "-").status, "a push without data")
	require.Equal(t, 201, p.post(t, p.sub.Endpoint, p.body, "TTL", "0").status)
	a = p.post(t, p.sub.Endpoint, p.body, "TTL", "31536000")
	require.Equal(t, "2592000", a.header.Get("TTL"), "a month at most")
	overTLS := strings.Replace(p.sub.Endpoint, p.Push().URL, p.Push().TLSURL, 1)
	c := p.claims(t)
	c["aud"] = origin(t, overTLS)
	require.Equal(t, 201, p.post(t, overTLS, p.body, "Authorization", p.vapid.header(t, c)).status)

	open, err := p.Push().NewSubscription("")
	require.NoError(t, err)
	require.Equal(t, 201, p.post(t, open.Endpoint, sealed(t, open, "{}"), "Authorization", "-").status)
}

func TestPushRefuses(t *testing.T) {
	t.Parallel()
	p := setupPush(t)
	other := newVAPID(t)
	claims := func(name string, value any) string {
		c := p.claims(t)
		c[name] = value
		return p.vapid.header(t, c)
	}
	mutate := func(f func(b []byte)) []byte {
		b := bytes.Clone(p.body)
		f(b)
		return b
	}
	now := p.clock.Now()
	for name, c := range map[string]struct {
		want int
		body []byte
		h    []string
	}{
		"no vapid":         {401, p.body, []string{"Authorization", "-"}},
		"other scheme":     {403, p.body, []string{"Authorization", "Bearer x"}},
		"no k":             {403, p.body, []string{"Authorization", "vapid t=x"}},
		"bad k":            {403, p.body, []string{"Authorization", "vapid t=x, k=AAAA"}},
		"other key":        {403, p.body, []string{"Authorization", other.header(t, p.claims(t))}},
		"other signer":     {403, p.body, []string{"Authorization", "vapid t=" + sign(t, jwt.SigningMethodES256, other.key, "", p.claims(t)) + ", k=" + p.vapid.public}},
		"not a token":      {403, p.body, []string{"Authorization", "vapid t=x, k=" + p.vapid.public}},
		"other audience":   {403, p.body, []string{"Authorization", claims("aud", "https://push.example.com")}},
		"aud with a slash": {403, p.body, []string{"Authorization", claims("aud", p.claims(t)["aud"].(string)+"/")}},
		"expired":          {403, p.body, []string{"Authorization", claims("exp", now.Unix()-1)}},
		"a day and more":   {403, p.body, []string{"Authorization", claims("exp", now.Add(25*time.Hour).Unix())}},
		"no sub":           {403, p.body, []string{"Authorization", claims("sub", "")}},
		"mailto twice":     {403, p.body, []string{"Authorization", claims("sub", "mailto:mailto:a@example.com")}},
		"plain sub":        {403, p.body, []string{"Authorization", claims("sub", "a@example.com")}},
		"http sub":         {403, p.body, []string{"Authorization", claims("sub", "http://example.com")}},
		"reserved sub":     {403, p.body, []string{"Authorization", claims("sub", "mailto:a@b.test")}},
		"single label":     {403, p.body, []string{"Authorization", claims("sub", "https://intranet")}},
		"no TTL":           {400, p.body, []string{"TTL", "-"}},
		"negative TTL":     {400, p.body, []string{"TTL", "-5"}},
		"TTL with unit":    {400, p.body, []string{"TTL", "60s"}},
		"long topic":       {400, p.body, []string{"Topic", strings.Repeat("t", 33)}},
		"topic alphabet":   {400, p.body, []string{"Topic", "a b"}},
		"apple's topic":    {400, p.body, []string{"Topic", "order"}},
		"urgency":          {400, p.body, []string{"Urgency", "now"}},
		"no encoding":      {400, p.body, []string{"Content-Encoding", "-"}},
		"old encoding":     {400, p.body, []string{"Content-Encoding", "aesgcm"}},
		"too large":        {413, make([]byte, 4097), nil},
		"short":            {400, p.body[:80], nil},
		"no record":        {400, p.body[:86], nil},
		"short key":        {400, mutate(func(b []byte) { b[20] = 64 }), nil},
		"not a point":      {400, mutate(func(b []byte) { b[30] ^= 1 }), nil},
		"two records":      {400, mutate(func(b []byte) { binary.BigEndian.PutUint32(b[16:], uint32(len(b)-86)) }), nil},
		"vapid key within": {400, mutate(func(b []byte) { copy(b[21:], point(t, p.vapid)) }), nil},
	} {
		a := p.post(t, p.sub.Endpoint, c.body, c.h...)
		require.Equal(t, c.want, a.status, "%s: %s", name, a.body)
		require.NotEmpty(t, p.last(t, simulator.WebPush).Detail, name)
	}
	require.JSONEq(t, `{"reason":"BadWebPushTopic"}`, string(p.post(t, p.sub.Endpoint, p.body, "Topic", "o").body), "in Apple's words")
	require.Equal(t, 404, p.post(t, p.Push().URL+"/wpush/nobody", p.body).status)
	require.Equal(t, 405, p.do(t, http.MethodGet, p.sub.Endpoint, nil, nil).status)
	require.Zero(t, p.Report().Accepted)
	require.Equal(t, 201, p.post(t, p.sub.Endpoint, p.body).status)
	require.True(t, p.Push().Expire(p.sub.Endpoint))
	require.False(t, p.Push().Expire(p.Push().URL+"/wpush/nobody"))
	require.Equal(t, 410, p.post(t, p.sub.Endpoint, p.body).status)
	for _, key := range []string{"!", "AAAA"} {
		_, err := p.Push().NewSubscription(key)
		require.Error(t, err)
	}
}

func point(t testing.TB, v vapid) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(v.public)
	require.NoError(t, err)
	return b
}

// TestPushUndecryptable: a push service cannot tell, but the report does.
func TestPushUndecryptable(t *testing.T) {
	t.Parallel()
	p := setupPush(t)
	flipped := bytes.Clone(p.body)
	flipped[len(flipped)-1] ^= 1
	require.Equal(t, 201, p.post(t, p.sub.Endpoint, flipped).status)
	require.Equal(t, map[string]uint64{"201 undecryptable": 1}, p.Report().Channels[simulator.WebPush].Answers)
}

func TestPushFaults(t *testing.T) {
	t.Parallel()
	p := setupPush(t)
	at := func(f simulator.Fault) string { return p.sub.Endpoint + "/" + simulator.Token(simulator.WebPush, f, 1) }
	require.Equal(t, 410, p.post(t, p.sub.Endpoint+"/sim-unregistered", p.body).status)
	require.Equal(t, 404, p.post(t, p.sub.Endpoint+"/sim-invalid", p.body).status)
	a := p.post(t, p.sub.Endpoint+"/sim-sender", p.body)
	require.Equal(t, 403, a.status)
	require.Contains(t, string(a.body), "do not correspond to the credentials used to create the subscriptions")
	a = p.post(t, at(simulator.Fault{Status: 429, RetryAfter: time.Minute, Times: 1}), p.body)
	require.Equal(t, 429, a.status)
	require.Equal(t, "60", a.header.Get("Retry-After"))
	require.Equal(t, 201, p.post(t, at(simulator.Fault{Status: 429, RetryAfter: time.Minute, Times: 1}), p.body).status)
	p.SetFault(p.sub.Endpoint, simulator.Fault{Status: 503})
	require.Equal(t, 503, p.post(t, p.sub.Endpoint, p.body).status)
	p.ClearFault(p.sub.Endpoint)
	require.Equal(t, 201, p.post(t, p.sub.Endpoint, p.body).status)
}

func TestPushBlind(t *testing.T) {
	t.Parallel()
	p := &pushRig{rig: setup(t, func(o *simulator.Options) { o.Blind = true }), vapid: newVAPID(t)}
	var err error
	p.sub, err = p.Push().NewSubscription(p.vapid.public)
	require.NoError(t, err)
	require.Equal(t, 201, p.post(t, p.sub.Endpoint, sealed(t, p.sub, plaintext)).status)
	require.Empty(t, p.last(t, simulator.WebPush).Payload)
}

// TestSubscriptionKeys: the public parts are what browsers give.
func TestSubscriptionKeys(t *testing.T) {
	t.Parallel()
	sub, err := setup(t).Push().NewSubscription("")
	require.NoError(t, err)
	key, err := base64.RawURLEncoding.DecodeString(sub.Keys.P256dh)
	require.NoError(t, err)
	_, err = ecdh.P256().NewPublicKey(key)
	require.NoError(t, err)
	auth, err := base64.RawURLEncoding.DecodeString(sub.Keys.Auth)
	require.NoError(t, err)
	require.Len(t, auth, 16)
}

func withTimeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
