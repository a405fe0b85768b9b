package webpush

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

func TestCheckTarget(t *testing.T) {
	t.Parallel()
	c, b := New(Options{}), newBrowser(t)
	for endpoint, want := range map[string]string{
		"https://fcm.googleapis.com/fcm/send/a:b%20c":          "https://fcm.googleapis.com/fcm/send/a:b%20c",
		"https://FCM.googleapis.com:443/wp/x":                  "https://fcm.googleapis.com/wp/x",
		"https://jmt17.google.com/fcm/send/x":                  "https://jmt17.google.com/fcm/send/x",
		"https://updates.push.services.mozilla.com/wpush/v2/x": "https://updates.push.services.mozilla.com/wpush/v2/x",
		"https://eu.push.services.mozilla.com/wpush/v2/x":      "https://eu.push.services.mozilla.com/wpush/v2/x",
		"https://web.push.apple.com/x":                         "https://web.push.apple.com/x",
		" https://web.push.apple.com/x\n":                      "https://web.push.apple.com/x",
		"https://db5p.notify.windows.com/w/?token=x%2by":       "https://db5p.notify.windows.com/w/?token=x%2by",
	} {
		got, err := c.CheckTarget(b.target(endpoint))
		require.NoError(t, err, endpoint)
		require.Equal(t, b.target(want), got)
	}
	for _, bad := range []string{
		"", "x", "http://fcm.googleapis.com/x", "https://fcm.googleapis.com:8443/x", "https://u@fcm.googleapis.com/x",
		"https://fcm.googleapis.com.evil.example/x", "https://evilfcm.googleapis.com.example/", "https://example.com/fcm.googleapis.com",
		"https://push.apple.com/x", "https://evilpush.apple.com/x", "https://notify.windows.com/x", "https://127.0.0.1/x",
		"https://fcm.googleapis.com/v1/projects/foo/messages:send", "https://fcm.googleapis.com/fcm/send/", "https://jmt17.google.com/x",
		"https://updates.push.services.mozilla.com/x", "https://db5p.notify.windows.com/x?token=y", "https://web.push.apple.com/", "https://web.push.apple.com",
		"https://fcm.googleapis.com/fcm/send/" + strings.Repeat("x", 2048), "https://fcm.googleapis.com/wp/x#y",
	} {
		_, err := c.CheckTarget(b.target(bad))
		require.Equal(t, []string{"address"}, paths(t, err), bad)
	}
	_, err := c.CheckTarget(channels.Target{Kind: channels.URL, Address: "https://fcm.googleapis.com/x"})
	require.Equal(t, []string{"address"}, paths(t, err))
}

func TestCheckTargetKeys(t *testing.T) {
	t.Parallel()
	c, b := New(Options{}), newBrowser(t)
	const endpoint = "https://fcm.googleapis.com/fcm/send/x"
	for name, change := range map[string]func(*channels.Target){
		"none":       func(t *channels.Target) { t.P256dh = nil },
		"short":      func(t *channels.Target) { t.P256dh = t.P256dh[:64] },
		"compressed": func(t *channels.Target) { t.P256dh = append([]byte{3}, t.P256dh[1:33]...) },
		"hybrid":     func(t *channels.Target) { t.P256dh = append([]byte{6}, t.P256dh[1:]...) },
		"off curve":  func(t *channels.Target) { t.P256dh = append([]byte{4}, make([]byte, 64)...) },
	} {
		target := b.target(endpoint)
		change(&target)
		_, err := c.CheckTarget(target)
		require.Equal(t, []string{"keys.p256dh"}, paths(t, err), name)
	}
	for _, n := range []int{0, 15, 17, 24} {
		target := b.target(endpoint)
		target.Auth = make([]byte, n)
		_, err := c.CheckTarget(target)
		require.Equal(t, []string{"keys.auth"}, paths(t, err))
	}
	_, err := c.CheckTarget(channels.Target{Kind: channels.Subscription, Address: "https://example.com"})
	require.Equal(t, []string{"address", "keys.p256dh", "keys.auth"}, paths(t, err), "all faults at once")
}

func TestOwnHosts(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	own := New(Options{Hosts: []string{"push.Example.com"}})
	_, err := own.CheckTarget(b.target("https://push.example.com/x"))
	require.NoError(t, err)
	_, err = own.CheckTarget(b.target("https://fcm.googleapis.com/x"))
	require.Error(t, err, "own hosts take the place of the known ones")
	_, err = New(Options{AnyHost: true}).CheckTarget(b.target("https://anything.example.org/x"))
	require.NoError(t, err)
	_, err = New(Options{AnyHost: true}).CheckTarget(b.target("https://10.0.0.1/x"))
	require.Error(t, err, "any host does not open private ranges")
}

func TestSend(t *testing.T) {
	t.Parallel()
	svc := newService(t, created)
	o := svc.options()
	o.Now = func() time.Time { return noon }
	c := New(o)
	s, b := open(t, c), newBrowser(t)
	target, err := c.CheckTarget(b.target(svc.URL + "/push/abc"))
	require.NoError(t, err)
	p := prepare(t, channels.Message{Title: "Hi", Body: "there", CollapseKey: "k1", Priority: channels.High})

	r := s.Send(context.Background(), target, p, channels.Life{Delivery: deliveryID, Attempt: 1, ExpiresAt: noon.Add(90*time.Second + 999*time.Millisecond)})
	require.Equal(t, channels.Accepted, r.Outcome, "%+v", r)
	require.Equal(t, "https://push.example/m/1", r.ProviderID)

	req, body := svc.last()
	require.Equal(t, "HTTP/2.0", req.Proto)
	require.Equal(t, http.MethodPost, req.Method)
	require.Equal(t, "/push/abc", req.URL.Path)
	require.Equal(t, "high", req.Header.Get("Urgency"))
	require.Equal(t, "k1", req.Header.Get("Topic"))
	require.Equal(t, "aes128gcm", req.Header.Get("Content-Encoding"))
	require.Equal(t, "application/octet-stream", req.Header.Get("Content-Type"))
	require.EqualValues(t, len(body), req.ContentLength)
	require.Equal(t, "90", req.Header.Get("TTL"), "what remains, rounded down")
	require.Equal(t, svc.URL, claims(t, req.Header.Get("Authorization"), noon)["aud"])
	require.True(t, strings.HasSuffix(req.Header.Get("Authorization"), "k="+s.vapid.public))

	plain, pad, err := b.decrypt(body)
	require.NoError(t, err)
	require.JSONEq(t, string(p.Preview(deliveryID)), string(plain))
	require.Positive(t, pad)
	require.Zero(t, len(body)%256)

	r = s.Send(context.Background(), target, p, life(noon))
	require.Equal(t, channels.Accepted, r.Outcome)
	again, _ := svc.last()
	require.Equal(t, req.Header.Get("Authorization"), again.Header.Get("Authorization"), "one token for the origin")
}

func TestVendorHeaders(t *testing.T) {
	t.Parallel()
	msg := prepare(t, channels.Message{Title: "Hi"}).(*payload)
	for _, c := range []struct {
		host   string
		remain time.Duration
		ttl    string
		cache  string
	}{
		{"fcm.googleapis.com", 0, "0", ""},
		{"fcm.googleapis.com", 90 * time.Second, "90", ""},
		{"fcm.googleapis.com", 60 * 24 * time.Hour, "2419200", ""},
		{"web.push.apple.com", 0, "1", ""},
		{"web.push.apple.com", time.Minute, "60", ""},
		{"DB5P.notify.windows.com", 0, "0", "no-cache"},
		{"db5p.notify.windows.com", time.Second, "1", ""},
	} {
		req, err := http.NewRequest(http.MethodPost, "https://"+c.host+"/x", nil)
		require.NoError(t, err)
		setHeaders(req, msg, c.remain)
		require.Equal(t, c.ttl, req.Header.Get("TTL"), c.host)
		require.Equal(t, c.cache, req.Header.Get("X-WNS-Cache-Policy"), c.host)
		require.Equal(t, "high", req.Header.Get("Urgency"))
		require.Empty(t, req.Header.Values("Topic"))
	}
}

// The push service refuses the first token; the second attempt has another.
func TestTokenRenewal(t *testing.T) {
	t.Parallel()
	var first string
	svc := newService(t, nil)
	svc.answer = func(w http.ResponseWriter, r *http.Request) {
		auth := r.Header.Get("Authorization")
		svc.mu.Lock()
		defer svc.mu.Unlock()
		if first == "" {
			first = auth
		}
		if auth == first {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.WriteHeader(http.StatusCreated)
	}
	s, target, p := open(t, New(svc.options())), newBrowser(t).target(svc.URL+"/p"), prepare(t, channels.Message{Title: "Hi"})

	r := s.Send(context.Background(), target, p, life(s.now()))
	require.Equal(t, channels.Retry, r.Outcome)
	require.Equal(t, channels.RenewToken, r.Renew)
	next := life(s.now())
	next.Renewed = r.Renew
	r = s.Send(context.Background(), target, p, next)
	require.Equal(t, channels.Accepted, r.Outcome)
}

func TestTokenRefusedTwice(t *testing.T) {
	t.Parallel()
	l := life(time.Now())
	l.Renewed = channels.RenewToken
	r := send(t, http.StatusUnauthorized, nil, "", l)
	require.Equal(t, channels.Denied, r.Outcome)
	require.Equal(t, channels.ScopeOrigin, r.Scope)
}

// The bridge to Firefox for Android takes less; the next attempt has no padding.
func TestPaddingRenewal(t *testing.T) {
	t.Parallel()
	svc := newService(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 200 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		w.WriteHeader(http.StatusCreated)
	})
	s, b, p := open(t, New(svc.options())), newBrowser(t), prepare(t, channels.Message{})
	large := prepare(t, channels.Message{Body: strings.Repeat("x", 200)})
	l := life(s.now())
	require.Equal(t, channels.RenewPadding, s.Send(context.Background(), b.target(svc.URL), large, l).Renew)
	l.Renewed = channels.RenewPadding
	require.Equal(t, channels.Rejected, s.Send(context.Background(), b.target(svc.URL), large, l).Outcome)
	l.Delivery = "dlv_x" // small enough without padding
	require.Equal(t, channels.Accepted, s.Send(context.Background(), b.target(svc.URL), p, l).Outcome)
	_, body := svc.last()
	_, pad, err := b.decrypt(body)
	require.NoError(t, err)
	require.Zero(t, pad)
}

func TestGuard(t *testing.T) {
	t.Parallel()
	svc := newService(t, created)
	o := svc.options()
	o.Rules = egress.Rules{AnyPort: true}
	s := open(t, New(o))
	r := s.Send(context.Background(), newBrowser(t).target(svc.URL), prepare(t, channels.Message{Title: "Hi"}), life(s.now()))
	require.Equal(t, channels.Rejected, r.Outcome)
	require.Equal(t, "webpush.refused_address", r.Code)
	require.Empty(t, svc.requests)
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	other := newService(t, created)
	r := send(t, http.StatusTemporaryRedirect, map[string]string{"Location": other.URL}, "", life(time.Now()))
	require.Equal(t, "webpush.redirect", r.Code)
	require.Empty(t, other.requests)
}

func TestOwnTransport(t *testing.T) {
	t.Parallel()
	var seen *http.Request
	c := New(Options{AnyHost: true, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		seen = r
		return &http.Response{StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"https://elsewhere.example"}}, Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
	})})
	r := open(t, c).Send(context.Background(), newBrowser(t).target("https://push.example/x"), prepare(t, channels.Message{}), life(time.Now()))
	require.Equal(t, "webpush.redirect", r.Code)
	require.Equal(t, "push.example", seen.URL.Host)
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestBadInputs(t *testing.T) {
	t.Parallel()
	s, b, p := open(t, New(Options{})), newBrowser(t), prepare(t, channels.Message{})
	for code, r := range map[string]channels.Result{
		"webpush.bad_payload":   s.Send(context.Background(), b.target("https://push.example"), nil, life(noon)),
		"webpush.bad_endpoint":  s.Send(context.Background(), b.target("https://secret\n"), p, life(noon)),
		"webpush.not_encrypted": s.Send(context.Background(), channels.Target{Address: "https://push.example"}, p, life(noon)),
	} {
		require.Equal(t, channels.Rejected, r.Outcome)
		require.Equal(t, code, r.Code)
		require.NotContains(t, r.Detail, "secret")
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	s := open(t, New(Options{}))
	r := s.Probe(context.Background())
	require.Equal(t, channels.Accepted, r.Outcome)
	require.Equal(t, "webpush.not_probed", r.Code)
	require.Empty(t, s.vapid.tokens)
}
