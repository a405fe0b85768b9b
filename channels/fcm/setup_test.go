package fcm

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/channeltest"
)

const (
	testProject  = "my-project-1"
	testToken    = "dGVzdA-token_1:APA91bExample"
	testDelivery = "dlv_0d1kq3w8r000c0d1kq3w8r000d"
)

func TestMain(m *testing.M) { channeltest.Main(m) }

// testKey is made once: RSA keys take long.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func keyPEM(t testing.TB) string {
	der, err := x509.MarshalPKCS8PrivateKey(testKey())
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// credential is a service account file with changes.
func credential(t testing.TB, tokenURI string, changes map[string]any) []byte {
	m := map[string]any{
		"type": "service_account", "project_id": testProject, "private_key_id": "key-1", "private_key": keyPEM(t),
		"client_email": "firebase@my-project-1.iam.gserviceaccount.com", "client_id": "1", "token_uri": tokenURI,
		"auth_uri": "https://accounts.google.com/o/oauth2/auth", "universe_domain": "googleapis.com",
	}
	for k, v := range changes {
		if v == nil {
			delete(m, k)
		} else {
			m[k] = v
		}
	}
	b, err := json.Marshal(map[string]any{"service_account": m})
	require.NoError(t, err)
	return b
}

// oauth is a token endpoint that checks assertions and counts.
type oauth struct {
	*httptest.Server
	issued atomic.Int32
	answer atomic.Pointer[http.HandlerFunc] // instead of a token
}

func newOAuth(t testing.TB) *oauth {
	o := &oauth{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := o.answer.Load(); h != nil {
			(*h)(w, r)
			return
		}
		claims := jwt.MapClaims{}
		parsed, err := jwt.ParseWithClaims(r.PostFormValue("assertion"), claims, func(*jwt.Token) (any, error) { return &testKey().PublicKey, nil },
			jwt.WithAudience(o.URL+"/token"), jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired())
		if err != nil || claims["scope"] != scope || parsed.Header["kid"] != "key-1" || r.PostFormValue("grant_type") != grantType {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, `{"access_token":"ya29.token-%d","expires_in":3599,"token_type":"Bearer"}`, o.issued.Add(1))
	}))
	t.Cleanup(o.Close)
	return o
}

// respond makes the endpoint answer so from now on; nil: issue tokens again.
func (o *oauth) respond(h http.HandlerFunc) {
	if h == nil {
		o.answer.Store(nil)
		return
	}
	o.answer.Store(&h)
}

// open makes a channel and a sender that fetches its tokens at o.
func open(t testing.TB, o *oauth, endpoint string, roots *x509.CertPool, now func() time.Time) channeltest.Setup {
	c := New(Options{Endpoint: endpoint, TokenURIs: []string{o.URL + "/token"}, RootCAs: roots, Now: now})
	cred, err := c.ParseCredential(credential(t, o.URL+"/token", nil), nil)
	require.NoError(t, err)
	s, err := c.Open(cred)
	require.NoError(t, err)
	target, err := c.CheckTarget(channels.Target{Kind: channels.FCMToken, Address: testToken})
	require.NoError(t, err)
	return channeltest.Setup{Channel: c, Credential: cred, Sender: s, Target: target, Close: c.CloseIdleConnections}
}

// plainFCM is an FCM over HTTP/1.1 that calls h.
func plainFCM(t testing.TB, h http.HandlerFunc) *httptest.Server {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func ok(w http.ResponseWriter, _ *http.Request) {
	_, _ = w.Write([]byte(`{"name":"projects/my-project-1/messages/1"}`))
}

func openAt(t testing.TB, o *oauth, s *httptest.Server, now func() time.Time) channeltest.Setup {
	x := open(t, o, s.URL, nil, now)
	t.Cleanup(func() { x.Sender.Close(); x.Close() })
	return x
}

func life() channels.Life {
	return channels.Life{Delivery: testDelivery, Attempt: 1, ExpiresAt: time.Now().Add(time.Hour)}
}

func prepare(t testing.TB, m channels.Message) channels.Payload {
	p, err := (&Channel{}).Prepare(m)
	require.NoError(t, err)
	return p
}

func send(t testing.TB, s channeltest.Setup, l channels.Life) channels.Result {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return s.Sender.Send(ctx, s.Target, prepare(t, channels.Message{Title: "hello"}), l)
}
