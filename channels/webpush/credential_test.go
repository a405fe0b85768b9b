package webpush

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	webpushgo "github.com/SherClockHolmes/webpush-go"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// paths are the fields that an error names.
func paths(t testing.TB, err error) []string {
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	out := []string{}
	for _, f := range e.Fields {
		out = append(out, f.Path)
	}
	return out
}

func testPair(t testing.TB) (private, public string) {
	private, public, err := webpushgo.GenerateVAPIDKeys()
	require.NoError(t, err)
	return private, public
}

func put(subject, public, private string) []byte {
	raw, _ := json.Marshal(map[string]string{"subject": subject, "public_key": public, "private_key": private})
	return raw
}

func TestGenerate(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	cred := newCredential(t, c)
	s := object(t, cred.Settings)
	require.Len(t, s, 2)
	require.Equal(t, "mailto:ops@example.com", s["subject"])
	require.Equal(t, cred.Qualifier, s["public_key"])
	require.Len(t, unb64(t, cred.Qualifier), pointSize)
	require.Len(t, cred.Secret, keySize)
	require.NotEqual(t, cred.Qualifier, newCredential(t, c).Qualifier)
	_, err := c.Open(cred)
	require.NoError(t, err)
}

func TestImportPair(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	private, public := testPair(t)
	cred, err := c.ParseCredential(put("https://example.com/contact", public, private), nil)
	require.NoError(t, err)
	require.Equal(t, public, cred.Qualifier)
	require.Equal(t, unb64(t, private), cred.Secret)

	padded := base64.StdEncoding.EncodeToString(unb64(t, public)) // other alphabet, with padding
	same, err := c.ParseCredential(put("mailto:new@example.com", padded, private), cred.Settings)
	require.NoError(t, err, "a new subject for the same pair is fine")
	require.Equal(t, public, same.Qualifier, "canonical form")
}

func TestPairNeverChanges(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	prior := newCredential(t, c).Settings
	private, public := testPair(t)
	_, err := c.ParseCredential(put("mailto:ops@example.com", public, private), prior)
	require.Equal(t, problem.CredentialRefused, problem.CodeOf(err))
	require.Equal(t, []string{"public_key"}, paths(t, err))
	require.ErrorContains(t, err, "another credential")

	_, err = c.ParseCredential([]byte(`{"subject":"mailto:ops@example.com","generate":true}`), prior)
	require.Equal(t, []string{"generate"}, paths(t, err))
	require.ErrorContains(t, err, "another credential")
}

func TestCredentialRefused(t *testing.T) {
	t.Parallel()
	private, public := testPair(t)
	other, _ := testPair(t)
	point := unb64(t, public)
	compressed := base64.RawURLEncoding.EncodeToString(append([]byte{2}, point[1:33]...))
	point[64] ^= 1
	offCurve := base64.RawURLEncoding.EncodeToString(point)
	order := "_____wAAAAD__________7zm-q2nF56E87nKwvxjJVE" // of P-256: one too large for a key
	const sub = "mailto:ops@example.com"
	for name, tc := range map[string]struct {
		raw  []byte
		want []string
	}{
		"not JSON":           {[]byte(`{`), []string{}},
		"null":               {[]byte(`null`), []string{}},
		"a list":             {[]byte(`[]`), []string{}},
		"nothing":            {[]byte(`{}`), []string{"subject", "public_key"}},
		"unknown members":    {[]byte(`{"subject":"` + sub + `","generate":true,"vapid":1,"email":""}`), []string{"email", "vapid"}},
		"wrong types":        {[]byte(`{"subject":1,"generate":"yes"}`), []string{"generate", "subject"}},
		"both ways":          {[]byte(fmt.Sprintf(`{"subject":%q,"generate":true,"private_key":%q}`, sub, private)), []string{"generate"}},
		"no private key":     {put(sub, public, ""), []string{"private_key"}},
		"no public key":      {put(sub, "", private), []string{"public_key"}},
		"another's":          {put(sub, public, other), []string{"public_key"}},
		"compressed":         {put(sub, compressed, private), []string{"public_key"}},
		"off the curve":      {put(sub, offCurve, private), []string{"public_key"}},
		"not base64":         {put(sub, "*"+public[1:], private+"!"), []string{"public_key", "private_key"}},
		"short":              {put(sub, public, private[:40]), []string{"private_key"}},
		"zero":               {put(sub, public, strings.Repeat("A", 43)), []string{"private_key"}},
		"order of the curve": {put(sub, public, order), []string{"private_key"}},
		"bad subject too":    {put("ops@example.com", public, other), []string{"subject", "public_key"}},
	} {
		cred, err := New(Options{}).ParseCredential(tc.raw, nil)
		require.Equal(t, problem.CredentialRefused, problem.CodeOf(err), name)
		require.Equal(t, tc.want, paths(t, err), name)
		require.NotContains(t, err.Error(), private, name)
		require.Equal(t, name == "no private key" || name == "no public key", strings.Contains(err.Error(), "is missing"), name)
		require.Empty(t, cred.Secret)
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"mailto:ops@example.com", "mailto:a+b@mail.example.co.uk", "https://example.com", "https://example.com/contact?x=1",
		"mailto:ops@example.org", "mailto:ops@test.com", "https://internal.example.com", "mailto:ops@xn--bcher-kva.ch"} {
		require.NoError(t, checkSubject(good), good)
	}
	for _, bad := range []string{
		"", "ops@example.com", "mailto:", "mailto:ops", "mailto:mailto:ops@example.com", "mailto: ops@example.com",
		"mailto:<ops@example.com>", "mailto:Ops <ops@example.com>", "mailto:a@example.com,b@example.com",
		"mailto:ops@localhost", "mailto:ops@mac.local", "mailto:ops@example.invalid", "mailto:ops@LOCALHOST", "mailto:ops@[127.0.0.1]",
		"http://example.com", "https://", "https:example.com", "https://localhost", "https://printer.local/x", "https://a.localhost",
		"https://user:pw@example.com", "https://10.0.0.1", "https://[::1]/", "https://example", "https://exa mple.com",
		"mailto:ops@a.test", "mailto:ops@push.example", "https://nas.lan", "mailto:ops@fritz.home", "mailto:a@b.HOME.ARPA", "https://x.home.arpa/c",
		"mailto:ops@svc.cluster.internal", "mailto:ops@mail.corp", "mailto:a@x.onion", "https://wiki.intranet.", "mailto:a@host.localdomain",
		"MAILTO:ops@example.com", "mailto:" + strings.Repeat("a", 250) + "@example.com",
	} {
		require.Error(t, checkSubject(bad), bad)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	c := New(Options{})
	good, other := newCredential(t, c), newCredential(t, c)
	for name, cred := range map[string]channels.Credential{
		"nothing":     {},
		"no secret":   {Settings: good.Settings},
		"short":       {Settings: good.Settings, Secret: good.Secret[1:]},
		"another key": {Settings: good.Settings, Secret: other.Secret},
		"no JSON":     {Settings: []byte("{"), Secret: good.Secret},
	} {
		_, err := c.Open(cred)
		require.Error(t, err, name)
	}
}

func FuzzParseCredential(f *testing.F) {
	c := New(Options{})
	private, public := testPair(f)
	f.Add(put("mailto:ops@example.com", public, private))
	f.Add([]byte(`{"subject":"https://example.com","generate":true}`))
	f.Add([]byte(`{"subject":"mailto:a@b.c","public_key":"BA","private_key":"AA=="}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		cred, err := c.ParseCredential(raw, nil)
		if err != nil {
			if problem.CodeOf(err) != problem.CredentialRefused {
				t.Fatalf("code %s", problem.CodeOf(err))
			}
			return
		}
		if _, err := c.Open(cred); err != nil {
			t.Fatalf("a credential that was taken does not open: %v", err)
		}
	})
}
