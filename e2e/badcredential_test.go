package e2e_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"testing"

	"github.com/stretchr/testify/require"
)

// A subscription's keys: the base point of P-256 (FIPS 186-4 D.1.2.3), which the
// world holds, the same with a bit flipped, and 16 zero bytes.
const (
	goodPoint = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"
	offCurve  = "BGsX0fLhLEJH-Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfQ"
	goodAuth  = "AAAAAAAAAAAAAAAAAAAAAA"
)

// badCredentials: what cannot work is refused when it is put, not when it is used.
func badCredentials(t *testing.T, w *world) []bad {
	t.Helper()
	put := func(name, channel, field string, input any) bad {
		body, err := json.Marshal(input)
		require.NoError(t, err)
		return bad{name: channel + ": " + name, method: "PUT", path: "/v1/apps/default/credentials/" + channel, body: string(body), status: 422, code: "credential_refused", field: field}
	}
	account := func(change map[string]any) map[string]any {
		var a map[string]any
		require.NoError(t, json.Unmarshal(w.sim.FCM().ServiceAccount, &a))
		maps.Copy(a, change)
		return map[string]any{"service_account": a}
	}
	apns := w.sim.APNs()
	key := func(change map[string]any) map[string]any {
		k := map[string]any{"key": string(apns.P8), "key_id": apns.KeyID, "team_id": apns.TeamID, "topics": []string{apns.Topic}}
		maps.Copy(k, change)
		return k
	}
	pair := func(change map[string]any) map[string]any {
		k := newVAPIDKey(t)
		p := map[string]any{"subject": "mailto:ops@example.com", "public_key": k.public, "private_key": k.private}
		maps.Copy(p, change)
		return p
	}
	rsaKey, p384, certificate := foreignKeys(t)
	as := func(code string, b bad) bad { b.code = code; return b }
	return []bad{
		put("foreign token_uri", "fcm", "service_account.token_uri", account(map[string]any{"token_uri": "https://evil.example/" + secretMark})),
		put("metadata for a token_uri", "fcm", "service_account.token_uri", account(map[string]any{"token_uri": "http://169.254.169.254/"})),
		put("another type", "fcm", "service_account.type", account(map[string]any{"type": "external_account", "credential_source": map[string]any{"file": "/etc/passwd"}})),
		put("no key", "fcm", "service_account.private_key", account(map[string]any{"private_key": secretMark})),
		put("key that is not RSA", "fcm", "service_account.private_key", account(map[string]any{"private_key": string(apns.P8)})),
		put("project with a path", "fcm", "service_account.project_id", account(map[string]any{"project_id": "../x"})),
		put("another project", "fcm", "service_account.project_id", account(map[string]any{"project_id": "another-project"})),
		as("invalid", put("a server key", "fcm", "server_key", map[string]any{"server_key": secretMark})),
		put("RSA key", "apns", "key", key(map[string]any{"key": rsaKey})),
		put("key on P-384", "apns", "key", key(map[string]any{"key": p384})),
		put("certificate without a key", "apns", "key", key(map[string]any{"key": certificate})),
		put("no PEM", "apns", "key", key(map[string]any{"key": secretMark})),
		as("invalid", put("key id", "apns", "key_id", key(map[string]any{"key_id": "short"}))),
		as("invalid", put("no topic", "apns", "topics", key(map[string]any{"topics": []string{}}))),
		as("invalid", put("topic with a path", "apns", "topics[0]", key(map[string]any{"topics": []string{"com.example/../x"}}))),
		put("another team", "apns", "team_id", key(map[string]any{"team_id": "ZZZZZZZZZZ"})),
		put("halves of two pairs", "webpush", "public_key", pair(map[string]any{"public_key": newVAPIDKey(t).public})),
		put("point off the curve", "webpush", "public_key", pair(map[string]any{"public_key": offCurve})),
		put("subject without a scheme", "webpush", "subject", pair(map[string]any{"subject": "ops"})),
		put("subject at this machine", "webpush", "subject", pair(map[string]any{"subject": "https://localhost"})),
		put("pair and generate", "webpush", "generate", pair(map[string]any{"generate": true})),
		{name: "no channel", method: "PUT", path: "/v1/apps/default/credentials/webhook", body: `{}`, status: 422, code: "invalid", field: "channel"},
		as("invalid", bad{name: "no app", method: "PUT", path: "/v1/apps/NO%20APP/credentials/fcm", body: `{}`, status: 422, field: "app"}),
	}
}

// foreignKeys are PEM texts that APNs has no use for.
func foreignKeys(t *testing.T) (rsaKey, p384, certificate string) {
	t.Helper()
	text := func(kind string, der []byte, err error) string {
		require.NoError(t, err)
		var b bytes.Buffer
		require.NoError(t, pem.Encode(&b, &pem.Block{Type: kind, Bytes: der}))
		return b.String()
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(r)
	rsaKey = text("PRIVATE KEY", der, err)
	e, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	der, err = x509.MarshalPKCS8PrivateKey(e)
	p384 = text("PRIVATE KEY", der, err)
	der, err = x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &r.PublicKey, r)
	certificate = text("CERTIFICATE", der, err)
	return rsaKey, p384, certificate
}
