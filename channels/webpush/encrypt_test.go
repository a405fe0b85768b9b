package webpush

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	webpushgo "github.com/SherClockHolmes/webpush-go"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

type rfc8291 struct {
	Inputs struct {
		Plaintext string `json:"plaintext_utf8"`
		ASPrivate string `json:"as_private"`
		UAPrivate string `json:"ua_private"`
		UAPublic  string `json:"ua_public"`
		Salt      string `json:"salt"`
		Auth      string `json:"auth_secret"`
	}
	Outputs struct{ Body string }
}

func vector(t testing.TB) (v rfc8291, b browser) {
	raw, err := os.ReadFile("testdata/rfc8291.json")
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &v))
	key, err := ecdh.P256().NewPrivateKey(unb64(t, v.Inputs.UAPrivate))
	require.NoError(t, err)
	return v, browser{key: key, auth: unb64(t, v.Inputs.Auth)}
}

func TestRFC8291(t *testing.T) {
	t.Parallel()
	v, b := vector(t)
	eph, err := ecdh.P256().NewPrivateKey(unb64(t, v.Inputs.ASPrivate))
	require.NoError(t, err)
	e := encryption{eph: eph, salt: unb64(t, v.Inputs.Salt)}

	body, err := e.seal([]byte(v.Inputs.Plaintext), unb64(t, v.Inputs.UAPublic), b.auth, 0)
	require.NoError(t, err)
	require.Equal(t, v.Outputs.Body, base64.RawURLEncoding.EncodeToString(body))

	plain, pad, err := b.decrypt(body)
	require.NoError(t, err)
	require.Equal(t, v.Inputs.Plaintext, string(plain))
	require.Zero(t, pad)
}

func TestPadding(t *testing.T) {
	t.Parallel()
	b := newBrowser(t)
	for _, n := range []int{0, 1, 152, 153, 154, 1000, 1944, 1945, 1946, 2500, MaxPlaintext} {
		plain := bytes.Repeat([]byte{'a'}, n)
		body, err := encrypt(plain, b.target(""), padding(n))
		require.NoError(t, err)
		if len(body) <= padBelow {
			require.Zero(t, len(body)%padStep, "%d", n)
		} else {
			require.Len(t, body, overhead+n)
		}
		require.LessOrEqual(t, len(body), MaxBody)
		got, pad, err := b.decrypt(body)
		require.NoError(t, err)
		require.Equal(t, plain, got)
		require.Less(t, pad, padStep)
	}
	require.Equal(t, 3993, MaxPlaintext, "RFC 8291 section 4")
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	good := newBrowser(t).target("")
	e, err := newEncryption()
	require.NoError(t, err)
	offCurve := slices.Clone(good.P256dh)
	offCurve[pointSize-1] ^= 1
	for name, c := range map[string]struct {
		plain        int
		p256dh, auth []byte
		pad          int
	}{
		"long":         {MaxPlaintext + 1, good.P256dh, good.Auth, 0},
		"much padding": {MaxPlaintext, good.P256dh, good.Auth, 1},
		"no auth":      {1, good.P256dh, nil, 0},
		"short auth":   {1, good.P256dh, good.Auth[:15], 0},
		"no key":       {1, nil, good.Auth, 0},
		"off curve":    {1, offCurve, good.Auth, 0},
		"infinity":     {1, []byte{0}, good.Auth, 0},
	} {
		_, err := e.seal(make([]byte, c.plain), c.p256dh, c.auth, c.pad)
		require.Error(t, err, name)
	}
}

func TestFreshPerMessage(t *testing.T) {
	t.Parallel()
	target := newBrowser(t).target("")
	plain := append(make([]byte, 0, 4096), "hello"...)
	one, err := encrypt(plain, target, 256)
	require.NoError(t, err)
	two, err := encrypt(plain, target, 256)
	require.NoError(t, err)
	require.NotEqual(t, one[:saltSize], two[:saltSize])
	require.NotEqual(t, one[saltSize+5:headerSize], two[saltSize+5:headerSize])
	require.Equal(t, make([]byte, 100), plain[5:105], "spare capacity of the caller's slice is left alone")
}

// One payload goes to many browsers at once; the race detector watches.
func TestSharedPayload(t *testing.T) {
	t.Parallel()
	svc := newService(t, created)
	s := open(t, New(svc.options()))
	p := prepare(t, channels.Message{Title: "Shared", Data: json.RawMessage(`{"a":1}`)})
	before := string(p.Preview(deliveryID))
	var wait sync.WaitGroup
	for range 16 {
		b := newBrowser(t)
		wait.Go(func() {
			r := s.Send(context.Background(), b.target(svc.URL+"/p"), p, life(s.now()))
			if r.Outcome != channels.Accepted {
				t.Errorf("got %+v", r)
			}
		})
	}
	wait.Wait()
	require.Equal(t, before, string(p.Preview(deliveryID)))
}

// The library has to produce what our browser reads, and we the same.
func TestSecondOpinion(t *testing.T) {
	t.Parallel()
	svc := newService(t, created)
	b := newBrowser(t)
	private, public, err := webpushgo.GenerateVAPIDKeys()
	require.NoError(t, err)
	for _, n := range []int{1, 100, 1945, MaxPlaintext} {
		plain := []byte(strings.Repeat("x", n))
		res, err := webpushgo.SendNotification(slices.Clip(slices.Clone(plain)), &webpushgo.Subscription{
			Endpoint: svc.URL + "/p",
			Keys: webpushgo.Keys{
				P256dh: base64.RawURLEncoding.EncodeToString(b.key.PublicKey().Bytes()),
				Auth:   base64.RawURLEncoding.EncodeToString(b.auth),
			},
		}, &webpushgo.Options{HTTPClient: svc.Client(), Subscriber: "ops@example.com", TTL: 60, VAPIDPublicKey: public, VAPIDPrivateKey: private})
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusCreated, res.StatusCode)
		_, theirs := svc.last()
		got, _, err := b.decrypt(theirs)
		require.NoError(t, err)
		require.Equal(t, plain, got)

		ours, err := encrypt(plain, b.target(""), padding(n))
		require.NoError(t, err)
		got, _, err = b.decrypt(ours)
		require.NoError(t, err)
		require.Equal(t, plain, got)
		require.Equal(t, theirs[saltSize:saltSize+5], ours[saltSize:saltSize+5], "same record size and key length")
	}
}

// Whatever a body holds, the reader that the tests rely on neither panics nor
// takes what was not sealed for it.
func FuzzDecrypt(f *testing.F) {
	v, b := vector(f)
	whole, _ := base64.RawURLEncoding.DecodeString(v.Outputs.Body)
	f.Add(whole)
	f.Add(whole[:headerSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		plain, _, err := b.decrypt(body)
		if err == nil && (string(plain) != v.Inputs.Plaintext || !bytes.Equal(body[saltSize+4:], whole[saltSize+4:])) {
			t.Fatalf("opened a forged body")
		}
	})
}

// Whatever a message is, the browser reads it back.
func FuzzSeal(f *testing.F) {
	b := newBrowser(f)
	f.Add([]byte("hello"), 3)
	f.Add([]byte{0, 2, 0}, 0)
	f.Fuzz(func(t *testing.T, plain []byte, pad int) {
		if pad < 0 || pad > MaxBody {
			return
		}
		body, err := encrypt(plain, b.target(""), pad)
		if err != nil {
			if overhead+len(plain)+pad <= MaxBody {
				t.Fatal(err)
			}
			return
		}
		got, zeros, err := b.decrypt(body)
		if err != nil || !bytes.Equal(got, plain) || zeros != pad {
			t.Fatalf("%d octets with %d of padding came back as %d with %d (%v)", len(plain), pad, len(got), zeros, err)
		}
	})
}
