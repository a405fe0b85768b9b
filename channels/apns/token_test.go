package apns

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

// newSigner uses a new key on a signers of its own.
func newSigner(t *testing.T, now func() time.Time) *signer {
	_, key, err := parseKey([]byte(newKey(t)))
	require.NoError(t, err)
	s := &signers{now: now, all: map[signerID]*signer{}}
	g, err := s.acquire("DEF123GHIJ", "ABC123DEFG", key)
	require.NoError(t, err)
	return g
}

func TestAJWTLivesFiftyMinutes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := newSigner(t, time.Now)
		first, err := g.bearer()
		require.NoError(t, err)
		time.Sleep(50*time.Minute - time.Second)
		same, _ := g.bearer()
		require.Equal(t, first, same)
		time.Sleep(time.Second)
		second, _ := g.bearer()
		require.NotEqual(t, first, second)

		claims := jwt.MapClaims{}
		_, err = jwt.ParseWithClaims(second, claims, func(*jwt.Token) (any, error) { return &g.key.PublicKey, nil })
		require.NoError(t, err)
		require.EqualValues(t, time.Now().Unix(), claims["iat"])
	})
}

func TestAnExpiredJWTIsReplacedOnlyAfterTwentyMinutes(t *testing.T) {
	t.Parallel()
	c := newClock()
	g := newSigner(t, c.now)
	first, _ := g.bearer()
	c.add(20*time.Minute - time.Second)
	require.False(t, g.expired(first), "APNs would not allow another one")
	same, _ := g.bearer()
	require.Equal(t, first, same)
	c.add(time.Second)
	require.True(t, g.expired(first))
	second, _ := g.bearer()
	require.NotEqual(t, first, second)
	require.True(t, g.expired(first), "one that was sent at the same time finds it replaced")
	require.False(t, g.expired(second))
}

func TestAClockSetBackSignsAgain(t *testing.T) {
	t.Parallel()
	c := newClock()
	g := newSigner(t, c.now)
	first, _ := g.bearer()
	c.add(-time.Minute)
	same, _ := g.bearer()
	require.Equal(t, first, same)
	c.add(-time.Hour)
	second, _ := g.bearer()
	require.NotEqual(t, first, second)
}

func TestSignersAreSharedByKeyAndKeptForTwentyMinutes(t *testing.T) {
	t.Parallel()
	c := newClock()
	s := &signers{now: c.now, all: map[signerID]*signer{}}
	_, key, err := parseKey([]byte(newKey(t)))
	require.NoError(t, err)
	_, other, err := parseKey([]byte(newKey(t)))
	require.NoError(t, err)
	a, err := s.acquire("T", "K", key)
	require.NoError(t, err)
	b, _ := s.acquire("T", "K", key)
	require.Same(t, a, b)
	stranger, _ := s.acquire("T", "K", other)
	require.NotSame(t, a, stranger, "the ids alone give no access to a JWT")
	s.release(stranger)

	jwt1, _ := a.bearer()
	s.release(a)
	require.NotNil(t, b.key)
	s.release(b)
	require.Nil(t, b.key, "nobody uses it")
	again, _ := s.acquire("T", "K", key)
	jwt2, _ := again.bearer()
	require.Equal(t, jwt1, jwt2)
	s.release(again)
	c.add(20 * time.Minute)
	fresh, _ := s.acquire("T", "K", key)
	require.NotSame(t, a, fresh)
	require.Len(t, s.all, 1)
}

func TestSendersOfOneKeySendOneJWT(t *testing.T) {
	t.Parallel()
	f := serve(t, answer(200, ""))
	c := New(Options{ProductionURL: f.URL, SandboxURL: f.URL, RootCAs: f.pool()})
	cred, err := c.ParseCredential(credentialJSON(t, nil), nil)
	require.NoError(t, err)
	for _, env := range []channels.Environment{channels.Production, channels.Sandbox, channels.Production} {
		s, err := c.Open(cred)
		require.NoError(t, err)
		target := device()
		target.Environment = env
		require.Equal(t, channels.Accepted, s.Send(t.Context(), target, hello(t), life()).Outcome)
		s.Close()
	}
	var seen []string
	for _, q := range f.seen() {
		seen = append(seen, q.header.Get("authorization"))
	}
	require.Len(t, seen, 3)
	require.Len(t, slices.Compact(seen), 1)
}

func TestExpiredProviderToken(t *testing.T) {
	t.Parallel()
	var old atomic.Value
	old.Store("")
	f := serve(t, func(w http.ResponseWriter, r *http.Request) {
		old.CompareAndSwap("", r.Header.Get("authorization"))
		if r.Header.Get("authorization") == old.Load() {
			answer(403, `{"reason":"ExpiredProviderToken"}`)(w, r)
		}
	})
	c := newClock()
	_, s := open(t, Options{ProductionURL: f.URL, RootCAs: f.pool(), Now: c.now}, "production")
	r := send(t, s)
	require.Equal(t, channels.Denied, r.Outcome, "the JWT is new: it must be the clock")
	require.Equal(t, channels.ScopeCredential, r.Scope)

	c.add(30 * time.Minute)
	var wg sync.WaitGroup
	var renewals atomic.Int32
	for range 20 {
		wg.Go(func() {
			if r := send(t, s); r.Renew == channels.RenewToken && r.Outcome == channels.Retry {
				renewals.Add(1)
			} else if r.Outcome == channels.Denied {
				t.Error("a send that met the old JWT was denied")
			}
		})
	}
	wg.Wait()
	require.Positive(t, renewals.Load())
	require.Equal(t, channels.Accepted, send(t, s).Outcome)

	old.Store("") // the new one is refused as well
	l := life()
	l.Renewed = channels.RenewToken
	require.Equal(t, channels.Denied, s.Send(t.Context(), device(), hello(t), l).Outcome)
}
