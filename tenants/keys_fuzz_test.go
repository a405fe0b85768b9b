package tenants_test

import (
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// FuzzAPIKey: nothing but the secret of a key is one, and what is sent is in no error.
func FuzzAPIKey(f *testing.F) {
	b := setup(f)
	_, secret, err := b.CreateKey(f.Context(), 7, tenants.NewKey{Name: "n", Scopes: []tenants.Scope{tenants.Send}}, "cli")
	require.NoError(f, err)
	for _, s := range []string{secret, secret[:len(secret)-1], strings.ToUpper(secret), secret + " ", "crl_", "", "crl_\x00", strings.Replace(secret, "crl_", "crl_op_", 1)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := b.Authenticate(t.Context(), s)
		if s == secret {
			require.NoError(t, err)
			require.EqualValues(t, 7, p.Tenant)
			return
		}
		require.Equal(t, problem.Unauthenticated, problem.CodeOf(err))
		require.Zero(t, p.Key)
		if len(s) > 10 {
			require.NotContains(t, err.Error(), s)
		}
	})
}

// FuzzUserToken: a token that is taken is signed with the key and says who it is for.
func FuzzUserToken(f *testing.F) {
	b := setup(f)
	k, secret, err := b.CreateUserKey(f.Context(), 7, "web", "cli")
	require.NoError(f, err)
	good := jwt.MapClaims{"sub": "u1", "aud": "carillon", "iat": epoch.Unix(), "exp": epoch.Add(time.Hour).Unix()}
	sign := func(method jwt.SigningMethod, kid string, key any) string {
		tok := jwt.NewWithClaims(method, good)
		tok.Header["kid"] = kid
		s, err := tok.SignedString(key)
		require.NoError(f, err)
		return s
	}
	id := k.ID.Format(ids.UserKey)
	token := sign(jwt.SigningMethodHS256, id, []byte(secret))
	parts := strings.Split(token, ".")
	for _, s := range []string{token, sign(jwt.SigningMethodHS512, id, []byte(secret)), sign(jwt.SigningMethodNone, id, jwt.UnsafeAllowNoneSignatureType),
		sign(jwt.SigningMethodHS256, "usk_", []byte(secret)), parts[0] + "." + parts[1] + ".", parts[0] + ".e30." + parts[2], "a.b.c", "", "....", token + "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := b.AuthenticateUser(t.Context(), s)
		if err == nil {
			require.Equal(t, "u1", p.User)
			require.True(t, strings.HasPrefix(s, parts[0]+"."+parts[1]+"."), "only what was signed")
			return
		}
		require.Equal(t, problem.Unauthenticated, problem.CodeOf(err))
		if len(s) > 10 {
			require.NotContains(t, err.Error(), s)
		}
	})
}
