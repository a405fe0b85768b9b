package tenants_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// token signs claims as a tenant's backend does: the text of the secret is the key.
func token(t *testing.T, kid any, secret string, claims jwt.MapClaims) string {
	t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	if kid != nil {
		tok.Header["kid"] = kid
	}
	s, err := tok.SignedString([]byte(secret))
	require.NoError(t, err)
	return s
}

func TestAUserToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, secret, err := b.CreateUserKey(t.Context(), 7, "web", "cli")
	require.NoError(t, err)
	kid := k.ID.Format(ids.UserKey)
	at := func(d time.Duration) int64 { return epoch.Add(d).Unix() }

	for name, x := range map[string]struct {
		kid    any
		secret string
		claims jwt.MapClaims
		want   string // part of the refusal; "" is accepted
	}{
		"as told":                 {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "iat": at(0), "exp": at(time.Hour)}, ""},
		"no iat":                  {kid, secret, jwt.MapClaims{"sub": "u1", "aud": []string{"x", "carillon"}, "exp": at(61 * time.Minute)}, ""},
		"just expired":            {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": at(-59 * time.Second)}, ""},
		"signer's clock fast":     {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "iat": at(59 * time.Second), "exp": at(time.Hour)}, ""},
		"expired":                 {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": at(-61 * time.Second)}, "has expired"},
		"no exp":                  {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon"}, "lacks a claim"},
		"long life":               {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "iat": at(0), "exp": at(time.Hour + time.Second)}, "more than an hour"},
		"long life, no iat":       {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": at(62 * time.Minute)}, "more than an hour"},
		"of the future":           {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "iat": at(2 * time.Minute), "exp": at(time.Hour)}, `"iat"`},
		"not yet":                 {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "nbf": at(2 * time.Minute), "exp": at(time.Hour)}, `"nbf"`},
		"other audience":          {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "other", "exp": at(time.Hour)}, `"aud" must contain`},
		"no audience":             {kid, secret, jwt.MapClaims{"sub": "u1", "exp": at(time.Hour)}, "lacks a claim"},
		"no subject":              {kid, secret, jwt.MapClaims{"aud": "carillon", "exp": at(time.Hour)}, `"sub" is missing`},
		"bad subject":             {kid, secret, jwt.MapClaims{"sub": "u\n1", "aud": "carillon", "exp": at(time.Hour)}, `"sub" holds a control`},
		"exp is a number as text": {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": strconv.FormatInt(at(time.Hour), 10)}, "times are numbers"},
		"iat is a number as text": {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "iat": strconv.FormatInt(at(0), 10), "exp": at(time.Hour)}, "times are numbers"},
		"nbf is a number as text": {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "nbf": strconv.FormatInt(at(0), 10), "exp": at(time.Hour)}, "times are numbers"},
		"exp is text":             {kid, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": "soon"}, "times are numbers"},
		"wrong secret":            {kid, secret + "x", jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": at(time.Hour)}, "signature is wrong"},
		"no kid":                  {nil, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": at(time.Hour)}, `"kid" header`},
		"kid is a number":         {1, secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": at(time.Hour)}, `"kid" header`},
		"kid of an API key":       {k.ID.Format(ids.Key), secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": at(time.Hour)}, `"kid" header`},
		"unknown kid":             {(k.ID + 1).Format(ids.UserKey), secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": at(time.Hour)}, "does not exist"},
	} {
		p, err := b.AuthenticateUser(t.Context(), token(t, x.kid, x.secret, x.claims))
		if x.want == "" {
			require.NoError(t, err, name)
			require.Equal(t, tenants.UserPrincipal{Tenant: 7, User: "u1", Key: k.ID, ExpiresAt: time.Unix(x.claims["exp"].(int64), 0).UTC()}, p, name)
			continue
		}
		require.Equal(t, problem.Unauthenticated, problem.CodeOf(err), name)
		require.ErrorContains(t, err, x.want, name)
		require.Zero(t, p, name)
	}
	require.Equal(t, 2, b.store.count("UserKey"), "one is remembered, one does not exist")
}

func TestOnlyHS256Counts(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, secret, err := b.CreateUserKey(t.Context(), 7, "web", "cli")
	require.NoError(t, err)
	claims := jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": epoch.Add(time.Hour).Unix()}
	good := token(t, k.ID.Format(ids.UserKey), secret, claims)
	_, err = b.AuthenticateUser(t.Context(), good)
	require.NoError(t, err)

	sign := func(m jwt.SigningMethod, key any, header string) string {
		tok := jwt.NewWithClaims(m, claims)
		tok.Header["kid"] = k.ID.Format(ids.UserKey)
		if header != "" {
			tok.Header[header] = []string{"x"}
		}
		s, err := tok.SignedString(key)
		require.NoError(t, err)
		return s
	}
	for name, s := range map[string]string{
		"none":      sign(jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, ""),
		"HS512":     sign(jwt.SigningMethodHS512, []byte(secret), ""),
		"crit":      sign(jwt.SigningMethodHS256, []byte(secret), "crit"),
		"unsigned":  good[:strings.LastIndexByte(good, '.')+1],
		"two parts": good[:strings.LastIndexByte(good, '.')],
		"text":      "hello",
		"empty":     "",
		"too long":  strings.Repeat("a", 5000),
	} {
		_, err := b.AuthenticateUser(t.Context(), s)
		require.Equal(t, problem.Unauthenticated, problem.CodeOf(err), name)
		for part := range strings.SplitSeq(good, ".") {
			require.NotContains(t, err.Error(), part, name)
		}
	}
}

func TestADeletedUserKeySignsNothing(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, secret, err := b.CreateUserKey(t.Context(), 7, "web", "cli")
	require.NoError(t, err)
	s := token(t, k.ID.Format(ids.UserKey), secret, jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": epoch.Add(time.Hour).Unix()})
	_, err = b.AuthenticateUser(t.Context(), s)
	require.NoError(t, err)
	list, err := b.UserKeys(t.Context(), 7, tenants.Page{Limit: 10})
	require.NoError(t, err)
	require.Len(t, list, 1)

	require.NoError(t, b.DeleteUserKey(t.Context(), 7, k.ID, "cli"))
	_, err = b.AuthenticateUser(t.Context(), s)
	require.Equal(t, problem.Unauthenticated, problem.CodeOf(err))
}

func TestAStoreThatFailsIsNotABadToken(t *testing.T) {
	t.Parallel()
	b := setup(t)
	k, secret, err := b.CreateUserKey(t.Context(), 7, "web", "cli")
	require.NoError(t, err)
	down := errors.New("database is down")
	b.store.before = func(string) error { return down }
	_, err = b.AuthenticateUser(t.Context(), token(t, k.ID.Format(ids.UserKey), secret,
		jwt.MapClaims{"sub": "u1", "aud": "carillon", "exp": epoch.Add(time.Hour).Unix()}))
	require.ErrorIs(t, err, down)
}

func TestUserKeysHaveNames(t *testing.T) {
	t.Parallel()
	b := setup(t)
	_, _, err := b.CreateUserKey(t.Context(), 7, "", "cli")
	require.Equal(t, []string{"name"}, paths(faults(t, err)))
}
