package fcm

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	firebase "firebase.google.com/go/v4"
	"firebase.google.com/go/v4/errorutils"
	"firebase.google.com/go/v4/messaging"
	"github.com/stretchr/testify/require"
	"google.golang.org/api/option"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

// onePass sends the SDK's request once, with a token, and ends the call's context
// where the SDK would repeat it.
type onePass struct{ base http.RoundTripper }

type stopKey struct{}

func (o onePass) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer x")
	res, err := o.base.RoundTrip(r)
	if err != nil || res.StatusCode == http.StatusServiceUnavailable {
		r.Context().Value(stopKey{}).(context.CancelFunc)()
	}
	return res, err
}

func sdk(t testing.TB, base string, rt http.RoundTripper) *messaging.Client {
	app, err := firebase.NewApp(context.Background(), &firebase.Config{ProjectID: testProject},
		option.WithHTTPClient(&http.Client{Transport: onePass{rt}}), option.WithEndpoint(base+"/v1"), option.WithTelemetryDisabled())
	require.NoError(t, err)
	c, err := app.Messaging(context.Background())
	require.NoError(t, err)
	return c
}

func sdkSend(c *messaging.Client, m *messaging.Message) error {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	_, err := c.Send(context.WithValue(ctx, stopKey{}, stop), m)
	return err
}

// What we send is what Google's SDK sends for the same message.
func TestSameRequestAsTheSDK(t *testing.T) {
	t.Parallel()
	var got atomic.Pointer[[]byte]
	var path atomic.Value
	srv := plainFCM(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got.Store(&b)
		path.Store(r.Method + " " + r.URL.Path)
		ok(w, r)
	})
	badge := 3
	at := time.Unix(1_800_000_000, 0)
	own := openAt(t, newOAuth(t), srv, func() time.Time { return at })
	theirs := sdk(t, srv.URL, http.DefaultTransport)
	for name, m := range map[string]channels.Message{
		"shown": {Title: "Hi <b>", Body: "there", Image: "https://example.com/a.png", URL: "https://example.com/x", Badge: &badge,
			Sound: "ding", CollapseKey: "k", Data: json.RawMessage(`{"a":"b","n":1.50}`)},
		"silent":   {Title: "Hi", Silent: true, Data: json.RawMessage(`{"a":"b"}`)},
		"low":      {Title: "Hi", Priority: channels.Low},
		"nothing":  {},
		"zeroes":   {Body: "b", Badge: new(int), Priority: channels.High},
		"override": {Title: "Hi", Override: json.RawMessage(`{"android":{"priority":"HIGH","notification":{"channel_id":"c"}}}`), Priority: channels.Normal},
	} {
		p := prepare(t, m)
		l := channels.Life{Delivery: testDelivery, ExpiresAt: at.Add(time.Hour)}
		require.Equal(t, channels.Accepted, own.Sender.Send(context.Background(), own.Target, p, l).Outcome)
		ours, oursPath := *got.Load(), path.Load()

		data := dataOf(m, nil)
		data[channels.ReservedKey] = testDelivery
		msg := render(m, data, shownBy(m, nil))
		msg.Token = testToken
		hour := time.Hour
		msg.Android.TTL = &hour
		msg.APNS.Headers = maps.Clone(msg.APNS.Headers)
		msg.APNS.Headers["apns-expiration"] = strconv.FormatInt(at.Add(hour).Unix(), 10)
		msg.Webpush.Headers["TTL"] = "3600"
		if name == "override" {
			msg.Android.Priority, msg.Android.Notification.ChannelID = "high", "c"
		}
		require.NoError(t, sdkSend(theirs, msg), name)
		require.JSONEq(t, string(*got.Load()), string(ours), name)
		require.Equal(t, path.Load(), oursPath)
	}
}

// The SDK's own predicates agree with our verdicts on every answer.
func TestSameVerdictAsTheSDK(t *testing.T) {
	t.Parallel()
	for _, c := range answers() {
		if c.Status < 304 || c.Status > 599 { // not errors to the SDK
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			srv := plainFCM(t, func(w http.ResponseWriter, _ *http.Request) {
				maps.Copy(w.Header(), c.Header)
				w.WriteHeader(c.Status)
				_, _ = io.WriteString(w, c.Body)
			})
			err := sdkSend(sdk(t, srv.URL, http.DefaultTransport), &messaging.Message{Token: testToken})
			if c.Status == http.StatusServiceUnavailable {
				return // the SDK hides the answer when its repetition is stopped
			}
			require.Error(t, err)
			code := classify(answer{status: c.Status, header: c.Header, body: []byte(c.Body)}, time.Now()).Code
			for says, want := range map[string]bool{
				"fcm.unregistered":     messaging.IsUnregistered(err),
				"fcm.sender_mismatch":  messaging.IsSenderIDMismatch(err),
				"fcm.third_party_auth": messaging.IsThirdPartyAuthError(err),
				"fcm.token_refused":    errorutils.IsUnauthenticated(err) && !messaging.IsThirdPartyAuthError(err),
				"fcm.permission_denied": errorutils.IsPermissionDenied(err) &&
					!messaging.IsSenderIDMismatch(err),
				"fcm.project_not_found": errorutils.IsNotFound(err) && !messaging.IsUnregistered(err),
			} {
				require.Equal(t, want, code == says, "%s: %v", says, err)
			}
			require.Equal(t, errorutils.IsResourceExhausted(err), code == "fcm.device_quota" || code == "fcm.project_quota" || code == "fcm.quota")
			require.Equal(t, errorutils.IsInvalidArgument(err), code == "fcm.invalid_argument" || code == "fcm.invalid_token")
		})
	}
}

// BenchmarkSend compares one send by Google's SDK, held to one attempt, with
// ours: 64 at a time to a local HTTP/2 server that answers at once.
func BenchmarkSend(b *testing.B) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		ok(w, r)
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	b.Cleanup(srv.Close)
	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	m := channels.Message{Title: "Hello", Body: "A text of an ordinary length, as one sees them.", URL: "https://example.com/x",
		CollapseKey: "k", Data: json.RawMessage(`{"order":"1234567","kind":"shipped"}`)}

	parallel := func(b *testing.B, send func() bool) {
		b.SetParallelism(32)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if !send() {
					b.Error("not accepted")
					return
				}
			}
		})
	}
	theirs := func(b *testing.B, rt http.RoundTripper) {
		c := sdk(b, srv.URL, rt)
		data := dataOf(m, nil)
		data[channels.ReservedKey] = testDelivery
		hour := time.Hour
		parallel(b, func() bool {
			msg := render(m, maps.Clone(data), shownBy(m, nil))
			msg.Token, msg.Android.TTL = testToken, &hour
			return sdkSend(c, msg) == nil
		})
	}
	b.Run("sdk", func(b *testing.B) {
		rt := srv.Client().Transport.(*http.Transport).Clone()
		defer rt.CloseIdleConnections()
		theirs(b, rt)
	})
	b.Run("sdk over egress", func(b *testing.B) {
		rt := egress.Provider(egress.ProviderOptions{RootCAs: roots, Conns: 1})
		defer rt.CloseIdleConnections()
		theirs(b, rt)
	})
	b.Run("ours", func(b *testing.B) {
		s := open(b, newOAuth(b), srv.URL, roots, nil)
		defer func() { s.Sender.Close(); s.Close() }()
		p, ctx := prepare(b, m), context.Background()
		l := life()
		parallel(b, func() bool { return s.Sender.Send(ctx, s.Target, p, l).Outcome == channels.Accepted })
	})
}
