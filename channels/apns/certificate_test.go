package apns

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/simulator"
)

// certified is a simulator with a certificate of it, and a channel that talks to it.
func certified(t *testing.T, production, sandbox bool, until time.Time) (*simulator.Simulator, simulator.APNsCertificate, *Channel) {
	t.Helper()
	sim, err := simulator.Start(simulator.Options{Topics: []string{"com.example.app"}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	a := sim.APNs()
	cert, err := a.NewCertificate([]string{"com.example.app", "com.example.app.voip"}, production, sandbox, until)
	require.NoError(t, err)
	return sim, cert, New(Options{ProductionURL: a.URL, SandboxURL: a.SandboxURL, RootCAs: a.CAs})
}

func certificateJSON(t *testing.T, in map[string]any) []byte {
	t.Helper()
	b, err := json.Marshal(in)
	require.NoError(t, err)
	return b
}

// TestACertificateSends: in PEM and as .p12, with what the certificate says of itself.
func TestACertificateSends(t *testing.T) {
	t.Parallel()
	until := time.Now().AddDate(0, 1, 0).UTC().Truncate(time.Second)
	sim, cert, c := certified(t, true, true, until)
	p12, err := pkcs12.Modern.Encode(cert.Key, cert.Leaf, nil, "secret")
	require.NoError(t, err)
	for name, in := range map[string]map[string]any{
		"pem": {"certificate": string(cert.PEM)},
		"p12": {"p12": base64.StdEncoding.EncodeToString(p12), "password": "secret", "topics": []string{"com.example.app"}},
	} {
		cred, err := c.ParseCredential(certificateJSON(t, in), nil)
		require.NoError(t, err, name)
		require.Equal(t, until, cred.ExpiresAt)
		require.Empty(t, cred.Qualifier)
		var set settings
		require.NoError(t, json.Unmarshal(cred.Settings, &set))
		require.Equal(t, []string{"com.example.app"}, set.Topics, "without what push types append")
		require.Equal(t, sim.APNs().TeamID, set.TeamID)
		require.NotContains(t, string(cred.Settings), "key_id")
		s, err := c.Open(cred)
		require.NoError(t, err)
		require.Equal(t, channels.Accepted, s.Probe(t.Context()).Outcome)
		p, err := c.Prepare(channels.Message{Title: "Hello"})
		require.NoError(t, err)
		r := s.Send(t.Context(), channels.Target{Kind: channels.APNsToken, Address: sim.APNs().NewToken(), Environment: channels.Production}, p,
			channels.Life{Delivery: "dlv_1", UUID: "0b0f4b4e-1111-4111-8111-0123456789ab", ExpiresAt: time.Now().Add(time.Hour)})
		require.Equal(t, channels.Accepted, r.Outcome, r.Detail)
		s.Close()
		_, err = c.ParseCredential(credentialJSON(t, map[string]any{"team_id": "ZZZZZZZZZZ"}), cred.Settings)
		requireFields(t, err, problem.CredentialRefused, "team_id")
	}
}

// TestACertificateIsForItsGateway: the other one refuses it, and Apple's words for one
// that nobody knows are those of a refused credential.
func TestACertificateIsForItsGateway(t *testing.T) {
	t.Parallel()
	_, cert, c := certified(t, false, true, time.Now().AddDate(1, 0, 0))
	cred, err := c.ParseCredential(certificateJSON(t, map[string]any{"certificate": string(cert.PEM)}), nil)
	require.NoError(t, err)
	require.Equal(t, "sandbox", cred.Qualifier)
	_, err = c.ParseCredential(certificateJSON(t, map[string]any{"certificate": string(cert.PEM), "environment": "production"}), nil)
	requireFields(t, err, problem.CredentialRefused, "environment")

	other, foreign, _ := certified(t, true, true, time.Now().AddDate(1, 0, 0))
	_ = other
	cred, err = c.ParseCredential(certificateJSON(t, map[string]any{"certificate": string(foreign.PEM)}), nil)
	require.NoError(t, err)
	s, err := c.Open(cred)
	require.NoError(t, err)
	defer s.Close()
	r := s.Probe(t.Context())
	require.Equal(t, channels.Denied, r.Outcome)
	require.Equal(t, "apns.certificate_refused", r.Code)
	require.Contains(t, r.Detail, "nobody known has signed it")
}

// TestACertificateExpiresInUse: Apple only ends the connection, so that it is told
// apart here from a fault of the network.
func TestACertificateExpiresInUse(t *testing.T) {
	t.Parallel()
	until := time.Now().Add(time.Hour)
	sim, cert, _ := certified(t, true, true, until)
	clock := newClock()
	clock.add(time.Until(clock.now()) * -1) // to today, when the simulator's certificates are good
	a := sim.APNs()
	c := New(Options{ProductionURL: a.URL, SandboxURL: a.SandboxURL, RootCAs: a.CAs, Now: clock.now})
	cred, err := c.ParseCredential(certificateJSON(t, map[string]any{"certificate": string(cert.PEM)}), nil)
	require.NoError(t, err)
	s, err := c.Open(cred)
	require.NoError(t, err)
	defer s.Close()
	require.Equal(t, "APNs takes the credential at production and sandbox.", s.Probe(t.Context()).Detail)
	clock.add(2 * time.Hour)
	r := s.Probe(t.Context())
	require.Equal(t, channels.Denied, r.Outcome)
	require.Equal(t, "apns.certificate_expired", r.Code)
	require.Equal(t, channels.ScopeCredential, r.Scope)
}

// TestAlertsAboutACertificate: of those that end a handshake, these are about ours.
func TestAlertsAboutACertificate(t *testing.T) {
	t.Parallel()
	remote := func(n tls.AlertError) error { return &net.OpError{Op: "remote error", Err: n} }
	for _, x := range []struct {
		err         error
		certificate bool
		want        channels.Outcome
	}{
		{remote(44), true, channels.Denied},
		{remote(45), true, channels.Denied},
		{remote(48), true, channels.Denied},
		{remote(80), true, channels.Retry}, // internal error
		{remote(44), false, channels.Retry},
		{&net.OpError{Op: "read", Err: tls.AlertError(44)}, true, channels.Retry},
	} {
		v := fromError(t.Context(), x.err, false, circumstances{certificate: x.certificate})
		require.Equal(t, x.want, v.Outcome, x.err)
		require.False(t, v.Ambiguous, x.err)
	}
}

func TestCertificatesThatCannotWork(t *testing.T) {
	t.Parallel()
	_, cert, c := certified(t, true, true, time.Now().AddDate(1, 0, 0))
	_, expired, _ := certified(t, true, true, time.Now().Add(-time.Hour))
	_, nowhere, _ := certified(t, false, false, time.Now().AddDate(1, 0, 0))
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	leaf := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Leaf.Raw}))
	p12, err := pkcs12.Legacy.Encode(cert.Key, cert.Leaf, nil, "secret")
	require.NoError(t, err)
	encoded := base64.StdEncoding.EncodeToString(p12)
	for name, x := range map[string]struct {
		in    map[string]any
		field string
	}{
		"without its key": {map[string]any{"certificate": leaf}, "certificate"},
		"another key":     {map[string]any{"certificate": leaf + encodePKCS8(t, stranger)}, "certificate"},
		"no certificate":  {map[string]any{"certificate": newKey(t)}, "certificate"},
		"damaged":         {map[string]any{"certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}, "certificate"},
		"expired":         {map[string]any{"certificate": string(expired.PEM)}, "certificate"},
		"of no gateway":   {map[string]any{"certificate": string(nowhere.PEM)}, "certificate"},
		"another topic":   {map[string]any{"certificate": string(cert.PEM), "topics": []string{"com.other"}}, "topics[0]"},
		"wrong password":  {map[string]any{"p12": encoded, "password": "wrong"}, "p12"},
		"not base64":      {map[string]any{"p12": "!"}, "p12"},
		"not a p12":       {map[string]any{"p12": "AAAA"}, "p12"},
		"twice":           {map[string]any{"p12": encoded, "password": "secret", "certificate": string(cert.PEM)}, "p12"},
		"a longer life":   {map[string]any{"certificate": string(cert.PEM), "expires_at": time.Now().AddDate(9, 0, 0)}, "expires_at"},
		"a password":      {map[string]any{"certificate": string(cert.PEM), "password": "secret"}, "password"},
		"a key besides":   {map[string]any{"certificate": string(cert.PEM), "key_id": "ABC123DEFG"}, "key"},
	} {
		_, err := c.ParseCredential(certificateJSON(t, x.in), nil)
		var p *problem.Error
		require.ErrorAs(t, err, &p, name)
		require.Equal(t, x.field, p.Fields[0].Path, name)
		require.NotContains(t, err.Error(), "secret", name)
	}
}

func TestAHugeKeyIsRefused(t *testing.T) {
	t.Parallel()
	_, cert, _ := certified(t, true, true, time.Now().AddDate(1, 0, 0))
	huge := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), maxRSABits), E: 65537}}
	require.ErrorContains(t, matches(huge, cert.Leaf), "at most 4096")
}

// TestAKeyMayExpire: where whoever put it says when.
func TestAKeyMayExpire(t *testing.T) {
	t.Parallel()
	until := time.Now().AddDate(1, 0, 0).UTC().Truncate(time.Second)
	cred, err := New(Options{}).ParseCredential(credentialJSON(t, map[string]any{"expires_at": until}), nil)
	require.NoError(t, err)
	require.Equal(t, until, cred.ExpiresAt.UTC())
	_, err = New(Options{}).ParseCredential(credentialJSON(t, map[string]any{"expires_at": time.Now().Add(-time.Hour)}), nil)
	requireFields(t, err, problem.CredentialRefused, "expires_at")
}
