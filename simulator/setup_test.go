package simulator_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"golang.org/x/net/http2"

	"github.com/carillonhq/carillon/simulator"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// clock is moved by hand; it starts at the real time.
type clock struct{ offset atomic.Int64 }

func (c *clock) Now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) Advance(d time.Duration) { c.offset.Add(int64(d)) }

// rig is a running simulator and plain clients for it.
type rig struct {
	*simulator.Simulator
	clock  *clock
	client *http.Client // HTTP/1.1, and HTTP/2 to the TLS ports
}

func setup(t testing.TB, options ...func(*simulator.Options)) *rig {
	t.Helper()
	r := &rig{clock: &clock{}}
	o := simulator.Options{Now: r.clock.Now}
	for _, f := range options {
		f(&o)
	}
	s, err := simulator.Start(o)
	require.NoError(t, err)
	r.Simulator = s
	transport := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: s.APNs().CAs}}
	r.client = &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		require.NoError(t, s.Close())
	})
	return r
}

// got is an answer as a client sees it.
type got struct {
	status int
	header http.Header
	body   []byte
	err    error // of the request or of its body
}

func (r *rig) do(t testing.TB, method, url string, h map[string]string, body []byte) got {
	t.Helper()
	return send(t, r.client, method, url, h, body)
}

func send(t testing.TB, c *http.Client, method, url string, h map[string]string, body []byte) got {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	require.NoError(t, err)
	for k, v := range h {
		req.Header.Set(k, v)
	}
	resp, err := c.Do(req)
	if err != nil {
		return got{err: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return got{resp.StatusCode, resp.Header, b, err}
}

func (r *rig) getJSON(t testing.TB, path string, into any) {
	t.Helper()
	a := r.do(t, http.MethodGet, r.Push().URL+path, nil, nil)
	require.Equal(t, http.StatusOK, a.status, string(a.body))
	require.NoError(t, json.Unmarshal(a.body, into))
}

// last is the newest arrival of a channel.
func (r *rig) last(t testing.TB, ch simulator.Channel) simulator.Arrival {
	t.Helper()
	a := r.Arrivals(simulator.Filter{Channel: ch, Limit: 1})
	require.Len(t, a, 1)
	return a[0]
}

// serviceAccount is a key file, read.
type serviceAccount struct {
	Project  string `json:"project_id"`
	Email    string `json:"client_email"`
	KeyID    string `json:"private_key_id"`
	Key      string `json:"private_key"`
	TokenURI string `json:"token_uri"`
}

func readAccount(t testing.TB, file []byte) (serviceAccount, *rsa.PrivateKey) {
	t.Helper()
	var a serviceAccount
	require.NoError(t, json.Unmarshal(file, &a))
	key, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(a.Key))
	require.NoError(t, err)
	return a, key
}

func sign(t testing.TB, method jwt.SigningMethod, key any, kid string, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	s, err := token.SignedString(key)
	require.NoError(t, err)
	return s
}

func readP8(t testing.TB, text []byte) *ecdsa.PrivateKey {
	t.Helper()
	block, _ := pem.Decode(text)
	require.NotNil(t, block)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	require.NoError(t, err)
	return key.(*ecdsa.PrivateKey)
}

// http2Client has a connection of its own.
func http2Client(t testing.TB, r *rig) *http.Client {
	t.Helper()
	transport := &http2.Transport{TLSClientConfig: &tls.Config{RootCAs: r.APNs().CAs}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
