package webpush

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"
)

// claims verifies an Authorization header as a push service does.
func claims(t testing.TB, header string, now time.Time) jwt.MapClaims {
	rest, ok := strings.CutPrefix(header, "vapid t=")
	require.True(t, ok, header)
	signed, k, ok := strings.Cut(rest, ", k=")
	require.True(t, ok, header)
	point, err := base64.RawURLEncoding.DecodeString(k)
	require.NoError(t, err)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	require.NoError(t, err)
	c := jwt.MapClaims{}
	_, err = jwt.NewParser(jwt.WithValidMethods([]string{"ES256"}), jwt.WithTimeFunc(func() time.Time { return now })).
		ParseWithClaims(signed, c, func(*jwt.Token) (any, error) { return key, nil })
	require.NoError(t, err)
	return c
}

// The reader above takes the RFC's own token, so it may judge ours.
func TestRFC8292(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/rfc8292-vapid.json")
	require.NoError(t, err)
	var v struct {
		Authorization string
		Claims        struct {
			Aud, Sub string
			Exp      int64
		}
	}
	require.NoError(t, json.Unmarshal(raw, &v))
	c := claims(t, v.Authorization, time.Unix(v.Claims.Exp-60, 0))
	require.Equal(t, v.Claims.Aud, c["aud"])
	require.Equal(t, v.Claims.Sub, c["sub"])
}

// clock is a time that a test sets.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newTestVAPID(t testing.TB) (*vapid, *clock) {
	c := &clock{at: time.Unix(1_700_000_000, 0)}
	s := open(t, New(Options{Now: c.now}))
	return s.vapid, c
}

func (v *vapid) get(t testing.TB, origin string) string {
	h, err := v.authorization(origin)
	require.NoError(t, err)
	return h
}

func TestTokens(t *testing.T) {
	t.Parallel()
	v, c := newTestVAPID(t)
	first := v.get(t, "https://push.example")
	got := claims(t, first, c.at)
	require.Equal(t, "https://push.example", got["aud"])
	require.Equal(t, "mailto:ops@example.com", got["sub"])
	require.EqualValues(t, c.at.Add(12*time.Hour).Unix(), got["exp"])
	require.Len(t, got, 3)
	require.True(t, strings.HasSuffix(first, ", k="+v.public))

	other := v.get(t, "https://other.example")
	require.Equal(t, "https://other.example", claims(t, other, c.at)["aud"])

	c.at = c.at.Add(6*time.Hour - time.Second)
	require.Equal(t, first, v.get(t, "https://push.example"), "kept for six hours")
	c.at = c.at.Add(time.Second)
	second := v.get(t, "https://push.example")
	require.NotEqual(t, first, second)
	require.EqualValues(t, c.at.Add(12*time.Hour).Unix(), claims(t, second, c.at)["exp"])

	c.at = c.at.Add(-48 * time.Hour)
	require.EqualValues(t, c.at.Add(12*time.Hour).Unix(), claims(t, v.get(t, "https://push.example"), c.at)["exp"],
		"a clock that was set back makes no token of more than 24 h")

	v.clear()
	require.Empty(t, v.tokens)
}

func TestDroppedTokens(t *testing.T) {
	t.Parallel()
	v, c := newTestVAPID(t)
	const at = "https://web.push.apple.com"
	first := v.get(t, at)
	v.drop(at, "vapid t=of another send")
	require.Equal(t, first, v.get(t, at), "only the token that was refused is dropped")
	v.drop("https://unknown.example", first)

	v.drop(at, first)
	second := v.get(t, at)
	require.NotEqual(t, first, second)
	v.drop(at, first)
	require.Equal(t, second, v.get(t, at), "a late answer to the old token changes nothing")
	v.drop(at, second)
	require.Equal(t, second, v.get(t, at), "not renewed twice in an hour")
	c.at = c.at.Add(time.Hour)
	v.drop(at, second)
	require.NotEqual(t, second, v.get(t, at))
}

func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	v, _ := newTestVAPID(t)
	for i := range maxTokens + 20 {
		v.get(t, fmt.Sprintf("https://h%d.example", i))
	}
	require.Len(t, v.tokens, maxTokens)
}

func TestOrigin(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://FCM.googleapis.com/fcm/send/x":                "https://fcm.googleapis.com",
		"https://push.example:443/x":                           "https://push.example",
		"https://push.example:8443/x?y":                        "https://push.example:8443",
		"http://127.0.0.1:80/x":                                "http://127.0.0.1",
		"http://127.0.0.1:443/x":                               "http://127.0.0.1:443",
		"https://[2001:DB8::1]/x":                              "https://[2001:db8::1]",
		"https://[2001:db8::1]:444/x":                          "https://[2001:db8::1]:444",
		"https://updates.push.services.mozilla.com/wpush/v2/x": "https://updates.push.services.mozilla.com",
	} {
		u, err := url.Parse(raw)
		require.NoError(t, err)
		require.Equal(t, want, origin(u))
	}
}
