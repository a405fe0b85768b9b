package apns

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

func TestParseCredential(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	key := newKey(t)
	got, err := c.ParseCredential(credentialJSON(t, map[string]any{"key": "\n" + key, "topics": []string{"com.a", "com.b"}, "environment": "sandbox"}), nil)
	require.NoError(t, err)
	require.JSONEq(t, `{"key_id":"ABC123DEFG","team_id":"DEF123GHIJ","topics":["com.a","com.b"],"environment":"sandbox"}`, string(got.Settings))
	require.Equal(t, key, string(got.Secret))
	require.Equal(t, "sandbox", got.Qualifier)

	got, err = c.ParseCredential(credentialJSON(t, nil), got.Settings)
	require.NoError(t, err, "a new key of the same team with other topics replaces the old one")
	require.Empty(t, got.Qualifier)
}

func TestParseCredentialNamesTheField(t *testing.T) {
	t.Parallel()
	for path, change := range map[string]map[string]any{
		"key_id":      {"key_id": "abc123defg"},
		"team_id":     {"team_id": "DEF123GHI"},
		"topics":      {"topics": []string{}},
		"topics[1]":   {"topics": []string{"com.a", "com.*"}},
		"topics[2]":   {"topics": []string{"com.a", "com.b", "com.a"}},
		"environment": {"environment": "auto"},
		"bundle_id":   {"bundle_id": "com.a"},
	} {
		_, err := New(Options{}).ParseCredential(credentialJSON(t, change), nil)
		requireFields(t, err, problem.Invalid, path)
	}
	for _, input := range []string{``, `null`, `[]`, `{"key":1}`, `{`} {
		_, err := New(Options{}).ParseCredential([]byte(input), nil)
		require.Equal(t, problem.Invalid, problem.CodeOf(err), input)
	}
}

// TestTopicsOfAPushTypeAreRefused: they are made from the bundle id.
func TestTopicsOfAPushTypeAreRefused(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	for topic, kind := range map[string]string{
		"com.a.voip": "voip", "com.a.complication": "complication", "com.a.pushkit.fileprovider": "fileprovider", "com.a.location-query": "location",
		"com.a.push-type.liveactivity": "liveactivity", "com.a.voip-ptt": "pushtotalk", "com.a.push-type.controls": "controls", "com.a.push-type.widgets": "widgets",
	} {
		_, err := c.ParseCredential(credentialJSON(t, map[string]any{"topics": []string{"com.a", topic}}), nil)
		requireFields(t, err, problem.Invalid, "topics[1]")
		require.ErrorContains(t, err, "Name the bundle id itself, com.a; ")
		require.ErrorContains(t, err, "push_type to "+kind)
	}
	cred, err := c.ParseCredential(credentialJSON(t, map[string]any{"topics": []string{"com.voip.a", "com.myvoip"}}), nil)
	require.NoError(t, err)
	cred.Settings = []byte(strings.Replace(string(cred.Settings), "com.myvoip", "com.a.voip", 1))
	s, err := c.Open(cred)
	require.NoError(t, err, "one that was stored before goes on")
	s.Close()
}

func TestAKeyWithEscapedLineBreaksIsCured(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	for _, pasted := range []string{strings.ReplaceAll(key, "\n", `\n`), strings.ReplaceAll(key, "\n", `\r\n`)} {
		cred, err := New(Options{}).ParseCredential(credentialJSON(t, map[string]any{"key": pasted}), nil)
		require.NoError(t, err)
		require.Equal(t, key, string(cred.Secret))
	}
}

func TestAnotherTeamIsRefused(t *testing.T) {
	t.Parallel()
	_, err := New(Options{}).ParseCredential(credentialJSON(t, nil), json.RawMessage(`{"team_id":"AAAAAAAAAA"}`))
	requireFields(t, err, problem.CredentialRefused, "team_id")
}

func TestKeysThatCannotWorkSayWhy(t *testing.T) {
	t.Parallel()
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	block := func(kind string) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("not a key")}))
	}
	good := newKey(t)
	for key, why := range map[string]string{
		encodePKCS8(t, p384):                "P-384",
		encodePKCS8(t, rsaKey):              "RSA",
		encodePKCS8(t, edKey):               "kind of key",
		block("RSA PRIVATE KEY"):            "RSA",
		block("EC PRIVATE KEY"):             "openssl pkcs8",
		block("ENCRYPTED PRIVATE KEY"):      "encrypted",
		block("CERTIFICATE"):                "without a private key",
		block("PUBLIC KEY"):                 "no private key",
		block("PRIVATE KEY"):                "damaged",
		"":                                  "missing",
		strings.ReplaceAll(good, "\n", " "): "not PEM",
		strings.Repeat("x", maxKeyBytes+1):  "too long",
	} {
		_, err := New(Options{}).ParseCredential(credentialJSON(t, map[string]any{"key": key}), nil)
		requireFields(t, err, problem.CredentialRefused, "key")
		require.Contains(t, err.Error(), why)
		if len(key) > 100 {
			require.NotContains(t, err.Error(), key[40:80])
		}
	}
	got, err := New(Options{}).ParseCredential(credentialJSON(t, map[string]any{"key": block("CERTIFICATE") + good}), nil)
	require.NoError(t, err)
	require.Equal(t, good, string(got.Secret), "the certificate is left out")
}

func TestCredentialsDoNotPrintTheirKey(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	cred, err := c.ParseCredential(credentialJSON(t, nil), nil)
	require.NoError(t, err)
	cred.Settings = json.RawMessage(`{"topics":1}`)
	_, err = c.Open(cred)
	require.ErrorContains(t, err, "credential 0 version 0")
	require.NotContains(t, err.Error(), "PRIVATE")
	require.Equal(t, channels.APNs, c.Kind())
}

// TestAMemberOfTheWrongTypeIsNamed: and its value is not.
func TestAMemberOfTheWrongTypeIsNamed(t *testing.T) {
	t.Parallel()
	for member, value := range map[string]any{
		"key": 5, "team_id": []string{"a"}, "topics": "com.example.app", "environment": true, "p12": 1, "expires_at": "tomorrow",
	} {
		_, err := New(Options{}).ParseCredential(credentialJSON(t, map[string]any{member: value}), nil)
		requireFields(t, err, problem.Invalid, member)
		require.NotContains(t, err.Error(), "tomorrow")
	}
	for _, value := range []any{5, []string{"a"}} {
		_, err := New(Options{}).ParseCredential(credentialJSON(t, map[string]any{"expires_at": value}), nil)
		requireFields(t, err, problem.Invalid, "expires_at")
	}
	_, err := New(Options{}).ParseCredential(credentialJSON(t, map[string]any{"topics": []any{1}}), nil)
	requireFields(t, err, problem.Invalid, "topics")
}

// FuzzParseCredential: what is taken opens, whether it is a key or a certificate, and
// no error shows the key.
func FuzzParseCredential(f *testing.F) {
	key := newKey(f)
	f.Add(credentialJSON(f, map[string]any{"key": key}))
	f.Add(credentialJSON(f, map[string]any{"key": strings.ReplaceAll(key, "\n", `\n`), "environment": "sandbox", "expires_at": "2999-01-01T00:00:00Z"}))
	f.Add([]byte(`{"certificate":"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n","topics":["com.example"]}`))
	f.Add([]byte(`{"p12":"MIIB","password":"x","environment":"production"}`))
	f.Add([]byte(`{"key":1,"topics":"x","team_id":null}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := New(Options{})
		cred, err := c.ParseCredential(raw, nil)
		if err != nil {
			require.NotEqual(t, problem.Internal, problem.CodeOf(err), "%v", err)
			require.NotContains(t, err.Error(), key[40:80])
			return
		}
		s, err := c.Open(cred)
		require.NoError(t, err)
		s.Close()
	})
}
