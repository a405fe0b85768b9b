package tenants_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func TestAKeyAuthenticatesItsTenant(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, secret, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "backend", Scopes: []tenants.Scope{tenants.Send}}, "cli")
	require.NoError(t, err)
	require.Regexp(t, `^crl_[0-9a-z]{13}_[A-Za-z0-9_-]{43}$`, secret)
	require.Equal(t, "crl"+strings.TrimPrefix(k.ID.Format(ids.Key), ids.Key), secret[:17])
	require.NotContains(t, string(b.store.keys[k.ID].Hash), secret[18:])

	p, err := b.Authenticate(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, tenants.Principal{Key: k.ID, Tenant: 7, Scopes: []tenants.Scope{tenants.Send}}, p)
	require.Equal(t, k.ID.Format(ids.Key), p.Actor())
	require.Equal(t, []tenants.Change{{Actor: "cli", Action: "key.create"}}, b.store.made())
}

func TestAnOperatorKeyIsOfItsOwnKind(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, secret, err := b.CreateKey(t.Context(), 0, tenants.NewKey{Name: "root"}, "cli")
	require.NoError(t, err)
	require.Regexp(t, `^crlop_[0-9a-z]{13}_[A-Za-z0-9_-]{43}$`, secret)
	p, err := b.Authenticate(t.Context(), secret)
	require.NoError(t, err)
	require.True(t, p.Has(tenants.Operator) && p.Has(tenants.Send) && p.Tenant == 0)

	_, err = b.Authenticate(t.Context(), strings.Replace(secret, "crlop_", "crl_", 1))
	require.Equal(t, problem.Unauthenticated, problem.CodeOf(err))
}

func TestScopes(t *testing.T) {
	t.Parallel()
	for _, x := range []struct {
		p    tenants.Principal
		want tenants.Scope
		has  bool
	}{
		{tenants.Principal{Tenant: 1, Scopes: []tenants.Scope{tenants.Send}}, tenants.Send, true},
		{tenants.Principal{Tenant: 1, Scopes: []tenants.Scope{tenants.Send}}, tenants.Read, false},
		{tenants.Principal{Tenant: 1, Scopes: []tenants.Scope{tenants.Admin}}, tenants.Credentials, true},
		{tenants.Principal{Tenant: 1, Scopes: []tenants.Scope{tenants.Admin}}, tenants.Operator, false},
		{tenants.Principal{Tenant: 1, Scopes: []tenants.Scope{tenants.Operator}}, tenants.Operator, false},
		{tenants.Principal{Scopes: []tenants.Scope{tenants.Operator}}, tenants.Admin, true},
		{tenants.Principal{Scopes: []tenants.Scope{tenants.Admin}}, tenants.Send, false},
		{tenants.Principal{}, tenants.Read, false},
	} {
		require.Equal(t, x.has, x.p.Has(x.want), "%+v %s", x.p, x.want)
	}
}

func TestABadSecretIsUnauthenticated(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, good, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Read}}, "cli")
	require.NoError(t, err)
	last := "A"
	if strings.HasSuffix(good, "A") {
		last = "B"
	}
	for name, secret := range map[string]string{
		"empty":         "",
		"other prefix":  "xyz_" + good[4:],
		"too short":     good[:len(good)-1],
		"too long":      good + "A",
		"no separator":  strings.Replace(good, good[16:18], good[16:17]+"-", 1),
		"bad id digit":  "crl_u" + good[5:],
		"wrong secret":  good[:len(good)-1] + last,
		"unknown id":    "crl_0000000000001" + good[17:],
		"operator kind": "crlop_" + good[4:],
		"bearer prefix": "Bearer " + good,
		"a user key":    "crlus_" + good[18:],
		"space behind":  good[:len(good)-1] + " ",
	} {
		_, err := b.Authenticate(t.Context(), secret)
		require.Equal(t, problem.Unauthenticated, problem.CodeOf(err), name)
		require.NotContains(t, err.Error(), good[18:40], name)
	}
	_, err = b.Authenticate(t.Context(), good)
	require.NoError(t, err)
}

func TestExpiryCountsAtEachCall(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, secret, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Read}, ExpiresAt: epoch.Add(2 * time.Second)}, "cli")
	require.NoError(t, err)
	_, err = b.Authenticate(t.Context(), secret)
	require.NoError(t, err)
	b.clock.forward(2 * time.Second) // the cached row is still fresh
	_, err = b.Authenticate(t.Context(), secret)
	require.Equal(t, problem.Unauthenticated, problem.CodeOf(err))
	require.Contains(t, err.Error(), "2026-03-01T12:00:02Z")
	require.Equal(t, 1, b.store.count("Key"))
}

func TestRevocationCountsAtOnceHereAndSoonElsewhere(t *testing.T) {
	t.Parallel()
	b := setup(t)
	scopes := []tenants.Scope{tenants.Read}
	here, hereSecret, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "a", Scopes: scopes}, "cli")
	require.NoError(t, err)
	there, thereSecret, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "b", Scopes: scopes}, "cli")
	require.NoError(t, err)
	for _, s := range []string{hereSecret, thereSecret} {
		_, err = b.Authenticate(t.Context(), s)
		require.NoError(t, err)
	}

	require.Equal(t, problem.NotFound, problem.CodeOf(b.RevokeKey(t.Context(), 8, here.ID, "cli")))
	require.NoError(t, b.RevokeKey(t.Context(), 7, here.ID, "cli"))
	_, err = b.Authenticate(t.Context(), hereSecret)
	require.Equal(t, problem.Unauthenticated, problem.CodeOf(err))
	require.Contains(t, err.Error(), "revoked")

	require.NoError(t, b.store.RevokeKey(t.Context(), 7, there.ID, epoch, tenants.Change{}))
	b.clock.forward(5 * time.Second)
	_, err = b.Authenticate(t.Context(), thereSecret)
	require.Equal(t, problem.Unauthenticated, problem.CodeOf(err))
}

func TestARowReadBeforeARevocationIsNotRemembered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, secret, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Read}}, "cli")
	require.NoError(t, err)

	// The load has read the row; the revocation ends before the load does.
	slow := &afterRead{memory: b.store}
	svc := tenants.NewRegistry(tenants.Options{Store: slow, IDs: ids.NewGenerator(2, b.clock.now), Now: b.clock.now})
	t.Cleanup(svc.Wait)
	slow.then = sync.OnceFunc(func() { require.NoError(t, svc.RevokeKey(t.Context(), 7, k.ID, "cli")) })
	_, err = svc.Authenticate(t.Context(), secret)
	require.NoError(t, err, "the call began before the revocation")
	_, err = svc.Authenticate(t.Context(), secret)
	require.Equal(t, problem.Unauthenticated, problem.CodeOf(err))
}

type afterRead struct {
	*memory
	then func()
}

func (s *afterRead) Key(ctx context.Context, id ids.ID) (tenants.Key, error) {
	k, err := s.memory.Key(ctx, id)
	s.then()
	return k, err
}

func TestAStoreThatFailsIsNotABadKey(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, secret, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Read}}, "cli")
	require.NoError(t, err)
	down := errors.New("database is down")
	b.store.before = func(string) error { return down }
	_, err = b.Authenticate(t.Context(), secret)
	require.ErrorIs(t, err, down)
	b.store.before = nil
	_, err = b.Authenticate(t.Context(), secret)
	require.NoError(t, err, "a failure is not remembered")
}

func TestLastUseIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.clock.forward(10 * time.Second)
	k, secret, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Read}}, "cli")
	require.NoError(t, err)
	call := func() {
		_, err := b.Authenticate(t.Context(), secret)
		require.NoError(t, err)
		b.Wait()
	}
	call()
	call()
	require.Equal(t, 1, b.store.count("TouchKey"))
	require.Equal(t, epoch, b.store.keys[k.ID].LastUsedAt)

	b.clock.forward(45 * time.Second) // the row is loaded again and says when it was used
	call()
	require.Equal(t, 1, b.store.count("TouchKey"))

	b.clock.forward(10 * time.Second)
	call()
	require.Equal(t, epoch.Add(time.Minute), b.store.keys[k.ID].LastUsedAt)
}

func TestANoteThatFailsFailsNoCall(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, secret, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Read}}, "cli")
	require.NoError(t, err)
	tried := make(chan struct{}, 1)
	b.store.before = func(method string) error {
		if method == "TouchKey" {
			tried <- struct{}{}
			return errors.New("read-only")
		}
		return nil
	}
	_, err = b.Authenticate(t.Context(), secret)
	require.NoError(t, err)
	<-tried
}

func TestNewKeysAreChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for name, x := range map[string]struct {
		tenant ids.ID
		key    tenants.NewKey
		want   []string
	}{
		"everything":        {7, tenants.NewKey{ExpiresAt: epoch}, []string{"expires_at", "name", "scopes"}},
		"unknown and twice": {7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{"send", "send", "all"}}, []string{"scopes[1]", "scopes[2]"}},
		"operator scope":    {7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Operator}}, []string{"scopes[0]"}},
		"tenant scope":      {0, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Send}}, []string{"scopes[0]"}},
		"line break":        {7, tenants.NewKey{Name: "k\n", Scopes: []tenants.Scope{tenants.Send}}, []string{"name"}},
		"long name":         {7, tenants.NewKey{Name: strings.Repeat("k", 101), Scopes: []tenants.Scope{tenants.Send}}, []string{"name"}},
	} {
		_, secret, err := b.CreateKey(t.Context(), x.tenant, x.key, "cli")
		require.Equal(t, x.want, paths(faults(t, err)), name)
		require.Empty(t, secret, name)
	}
	require.Empty(t, b.store.keys)
}

func TestAKeyIsReadByItsTenantOnly(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, _, err := b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Send}}, "cli")
	require.NoError(t, err)
	got, err := b.Key(t.Context(), 7, k.ID)
	require.NoError(t, err)
	require.Equal(t, k, got)
	_, err = b.Key(t.Context(), 8, k.ID)
	require.Equal(t, problem.NotFound, problem.CodeOf(err))
	list, err := b.Keys(t.Context(), 7, tenants.Page{})
	require.NoError(t, err)
	require.Len(t, list, 1)
}

func TestTheCacheIsBounded(t *testing.T) {
	t.Parallel()
	b := setup(t)
	secrets := make([]string, 10_050)
	for i := range secrets {
		var err error
		_, secrets[i], err = b.CreateKey(t.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Send}}, "cli")
		require.NoError(t, err)
	}
	for range 2 {
		for _, s := range secrets {
			_, err := b.Authenticate(t.Context(), s)
			require.NoError(t, err)
		}
	}
	require.Greater(t, b.store.count("Key"), len(secrets), "some of them were forgotten")
	require.Less(t, b.store.count("Key"), len(secrets)+5000, "most of them were not")
}

func BenchmarkAuthenticate(b *testing.B) {
	s := setup(b)
	_, secret, err := s.CreateKey(b.Context(), 7, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Send}}, "cli")
	require.NoError(b, err)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Authenticate(b.Context(), secret); err != nil {
				b.Fatal(err)
			}
		}
	})
}
