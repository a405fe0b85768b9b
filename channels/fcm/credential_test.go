package fcm

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

func pkcs8(t *testing.T, key any) string {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestParseCredential(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	cred, err := c.ParseCredential(credential(t, googleTokenURI, nil), nil)
	require.NoError(t, err)
	require.JSONEq(t, `{"project_id":"my-project-1","client_email":"firebase@my-project-1.iam.gserviceaccount.com","private_key_id":"key-1"}`, string(cred.Settings))
	require.Empty(t, cred.Qualifier)
	var sealed map[string]string
	require.NoError(t, json.Unmarshal(cred.Secret, &sealed))
	require.Equal(t, map[string]string{"private_key": keyPEM(t), "token_uri": googleTokenURI}, sealed)
	s, err := c.Open(cred)
	require.NoError(t, err)
	s.Close()

	for _, escaped := range []string{`\n`, `\r\n`} {
		pasted := strings.ReplaceAll(keyPEM(t), "\n", escaped)
		cured, err := c.ParseCredential(credential(t, googleTokenURI, map[string]any{"private_key": pasted}), nil)
		require.NoError(t, err, escaped)
		require.Equal(t, cred.Secret, cured.Secret)
	}

	// The same project again is a rotation.
	_, err = c.ParseCredential(credential(t, googleTokenURI, map[string]any{"private_key_id": "key-2"}), cred.Settings)
	require.NoError(t, err)

	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(testKey())}))
	for _, fine := range []map[string]any{{"token_uri": nil}, {"token_uri": legacyTokenURI}, {"private_key": pkcs1}, {"project_id": "example.com:my-project"}} {
		cred, err := c.ParseCredential(credential(t, googleTokenURI, fine), nil)
		require.NoError(t, err, fine)
		require.Contains(t, string(cred.Secret), googleTokenURI)
	}
}

func TestParseCredentialRefuses(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	c := New(Options{})
	for _, tc := range []struct {
		field  string
		change any
	}{
		{"type", "external_account"}, {"type", "authorized_user"}, {"type", nil},
		{"project_id", ""}, {"project_id", "../x"}, {"project_id", "UPPER-case"}, {"project_id", "a/b/c/d/e/f"}, {"project_id", "short"},
		{"client_email", "nobody"},
		{"private_key", ""}, {"private_key", "not PEM"}, {"private_key", pkcs8(t, small)}, {"private_key", pkcs8(t, curve)},
		{"token_uri", "http://169.254.169.254/token"}, {"token_uri", "https://oauth2.googleapis.com.evil.example/token"},
	} {
		_, err := c.ParseCredential(credential(t, googleTokenURI, map[string]any{tc.field: tc.change}), nil)
		var e *problem.Error
		require.ErrorAs(t, err, &e, "%s %v", tc.field, tc.change)
		require.Equal(t, problem.CredentialRefused, e.Code)
		require.Equal(t, "service_account."+tc.field, e.Fields[0].Path)
		require.Equal(t, tc.change == "", strings.Contains(e.Fields[0].Detail, "is missing"), "%s %v", tc.field, tc.change)
	}

	_, err = c.ParseCredential(credential(t, googleTokenURI, nil), json.RawMessage(`{"project_id":"other-project"}`))
	require.Equal(t, problem.CredentialRefused, problem.CodeOf(err))
	require.ErrorContains(t, err, "other-project")

	_, err = c.ParseCredential([]byte(`{"service_account":{},"extra":1}`), nil)
	require.ErrorContains(t, err, "extra")
	_, err = New(Options{TokenURIs: []string{"http://127.0.0.1:1/token"}}).ParseCredential(credential(t, googleTokenURI, nil), nil)
	require.Error(t, err, "own endpoints take the place of Google's")
}

func TestOpenRefusesDamagedCredentials(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	for _, cred := range []channels.Credential{{}, {Settings: []byte(`{}`)}, {Settings: []byte(`{}`), Secret: []byte(`{"private_key":"secret"}`)}} {
		_, err := c.Open(cred)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret\"")
	}
}

func TestCheckTarget(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	for _, kind := range []channels.AddressKind{channels.FCMToken, channels.FCMFid} {
		got, err := c.CheckTarget(channels.Target{Kind: kind, Address: " " + testToken + "\n"})
		require.NoError(t, err)
		require.Equal(t, testToken, got.Address)
		for _, bad := range []string{"", " ", "a b", "a/b", "a?b", "a#b", "a%2f", `a"b`, `a\b`, "a\x00", "a\x7f", "aü", string(make([]byte, maxAddress+1))} {
			_, err := c.CheckTarget(channels.Target{Kind: kind, Address: bad})
			require.Equal(t, problem.Invalid, problem.CodeOf(err), "%q", bad)
		}
	}
}

// TestAKeyMayExpire: where whoever put it says when.
func TestAKeyMayExpire(t *testing.T) {
	t.Parallel()
	for at, ok := range map[string]bool{`"2999-01-31T00:00:00Z"`: true, `"2001-01-31T00:00:00Z"`: false, `7`: false, `"soon"`: false} {
		var in map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(credential(t, googleTokenURI, nil), &in))
		in["expires_at"] = json.RawMessage(at)
		b, err := json.Marshal(in)
		require.NoError(t, err)
		got, err := New(Options{}).ParseCredential(b, nil)
		if !ok {
			require.ErrorContains(t, err, "expires_at", at)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, 2999, got.ExpiresAt.Year())
	}
}

// FuzzParseCredential: what is taken opens, and no error shows the key.
func FuzzParseCredential(f *testing.F) {
	good := credential(f, googleTokenURI, nil)
	f.Add(good)
	f.Add(credential(f, legacyTokenURI, map[string]any{"private_key": strings.ReplaceAll(keyPEM(f), "\n", `\n`)}))
	f.Add(credential(f, "http://169.254.169.254/", nil))
	f.Add([]byte(`{"service_account":null,"expires_at":"2999-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"service_account":{"type":"external_account","private_key":"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"}}`))
	key := keyPEM(f)[100:140]
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := New(Options{})
		cred, err := c.ParseCredential(raw, nil)
		if err != nil {
			require.NotEqual(t, problem.Internal, problem.CodeOf(err), "%v", err)
			require.NotContains(t, err.Error(), key)
			return
		}
		require.NotContains(t, string(cred.Settings), key)
		s, err := c.Open(cred)
		require.NoError(t, err)
		s.Close()
	})
}
