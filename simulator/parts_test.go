package simulator

import (
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		v := rapid.Int64Range(0, 1<<40-1).Draw(t, "v")
		bound := upper(bucketOf(v))
		if bound < v || bound > v+v/sub {
			t.Fatalf("%d is counted as %d", v, bound)
		}
	})
	var h, other histogram
	require.Zero(t, h.quantile(0.99))
	for v := range int64(1000) {
		h.add(v)
	}
	other.add(-5)
	other.add(1 << 50)
	require.InEpsilon(t, 500, h.quantile(0.50), 1.0/sub)
	require.InEpsilon(t, 990, h.quantile(0.99), 1.0/sub)
	h.merge(&other)
	require.EqualValues(t, 1002, h.count)
	require.EqualValues(t, 1<<50, h.max)
}

// TestDecryptVector is the example of RFC 8291 section 5.
func TestDecryptVector(t *testing.T) {
	t.Parallel()
	decode := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		require.NoError(t, err)
		return b
	}
	private, err := ecdh.P256().NewPrivateKey(decode("q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"))
	require.NoError(t, err)
	auth := decode("BTBZMqHH6r4Tts7J_aSIgg")
	body := decode("DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_" +
		"yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN")
	require.Empty(t, checkRecord(body, nil))
	plain, err := decrypt(body, private, auth)
	require.NoError(t, err)
	require.Equal(t, "When I grow up, I want to be a watermelon", string(plain))
	auth[0] ^= 1
	_, err = decrypt(body, private, auth)
	require.ErrorIs(t, err, errUndecryptable)
	_, err = decrypt(body[:50], private, auth)
	require.ErrorIs(t, err, errUndecryptable)
}

func TestUnpad(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"hi\x02": "hi", "hi\x02\x00\x00": "hi", "\x02": "", "\x02\x02\x00": "\x02"} {
		got, err := unpad([]byte(in))
		require.NoError(t, err)
		require.Equal(t, want, string(got))
	}
	for _, bad := range []string{"", "\x00", "hi", "hi\x01\x00"} {
		_, err := unpad([]byte(bad))
		require.ErrorIs(t, err, errUndecryptable, "%q", bad)
	}
}

func TestPayloadJSON(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{`{"a":1}`: `{"a":1}`, `plain "text"`: `"plain \"text\""`} {
		text, err := json.Marshal(Arrival{Payload: Payload(in)}.Payload)
		require.NoError(t, err)
		require.Equal(t, want, string(text))
		var back Payload
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, in, string(back))
	}
	text, err := json.Marshal(Arrival{})
	require.NoError(t, err)
	require.NotContains(t, string(text), "payload")
}

func TestNextPort(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"127.0.0.1:0": "127.0.0.1:0", "127.0.0.1:8443": "127.0.0.1:8444", ":8443": ":8444",
		"[::1]:9": "[::1]:10"} {
		require.Equal(t, want, nextPort(in))
	}
}

// TestRefuseOAuth: what Google's token endpoint says to a sender.
func TestRefuseOAuth(t *testing.T) {
	t.Parallel()
	for f, want := range map[Fault]string{
		{Status: 400}: "invalid_grant", {Status: 401}: "invalid_client", {Status: 503}: "internal_failure",
		{Status: 429}: "rate_limit_exceeded", {Status: 400, Reason: "invalid_scope"}: "invalid_scope",
	} {
		a := refuseOAuth(f)
		require.Equal(t, f.Status, a.status)
		require.Equal(t, want, a.reason)
	}
}

// TestReasonsKeepTheirNumbers: the numbers are in device tokens that people keep.
func TestReasonsKeepTheirNumbers(t *testing.T) {
	t.Parallel()
	for reason, number := range map[string]int{"": 0, "BadDeviceToken": 2, "TopicDisallowed": 14, "ExpiredProviderToken": 17,
		"Unregistered": 26, "Shutdown": 32, "Unheard": 0} {
		require.Equal(t, number, reasonNumber(reason), reason)
	}
	for _, c := range apnsReasons()[1:] {
		token := hexToken(Fault{Status: c.status, Reason: c.reason}, true, 1)
		f, sandbox, ok := parseHexToken(token)
		require.True(t, ok && sandbox)
		require.Equal(t, Fault{Status: c.status, Reason: c.reason}, f)
	}
}
