package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/text"
)

const (
	// TokenAudience is what the "aud" of a user token must contain.
	TokenAudience = "carillon"
	// MaxTokenLife is how long a user token may be valid.
	MaxTokenLife = time.Hour
	// TokenLeeway is how far the clocks of signer and server may be apart.
	TokenLeeway = time.Minute

	userKeyPrefix = "crlus_"
	maxToken      = 4096
)

// UserPrincipal is a user who calls with a token that the tenant's backend has
// signed. It may touch that user's own devices and nothing else.
type UserPrincipal struct {
	Tenant    ids.ID
	User      string
	Key       ids.ID
	ExpiresAt time.Time
}

// Actor names the principal in the audit.
func (p UserPrincipal) Actor() string { return p.Key.Format(ids.UserKey) }

// AuthenticateUser tells whose token it is: a JWT with alg HS256, kid the id of a
// user key, aud TokenAudience, sub the user, and exp at most MaxTokenLife ahead.
// Everything that is wrong with it is Unauthenticated.
func (r *Registry) AuthenticateUser(ctx context.Context, token string) (UserPrincipal, error) {
	if len(token) > maxToken {
		return UserPrincipal{}, problem.New(problem.Unauthenticated, "The user token is longer than %d bytes.", maxToken)
	}
	now := r.o.Now()
	parser := jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodHS256.Alg()}), jwt.WithAudience(TokenAudience),
		jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(TokenLeeway),
		jwt.WithTimeFunc(func() time.Time { return now }), jwt.WithStrictDecoding())
	var (
		claims tokenClaims
		key    UserKey
		keyErr error // what the parser would wrap in its own text
	)
	_, err := parser.ParseWithClaims(token, &claims, func(t *jwt.Token) (any, error) {
		key, keyErr = r.userKeyOf(ctx, t.Header)
		return key.Secret, keyErr
	})
	if keyErr != nil {
		return UserPrincipal{}, keyErr
	}
	if err != nil {
		return UserPrincipal{}, problem.New(problem.Unauthenticated, "%s", tokenFault(err))
	}
	if err := checkClaims(claims.RegisteredClaims, now); err != nil {
		return UserPrincipal{}, err
	}
	return UserPrincipal{Tenant: key.Tenant, User: claims.Subject, Key: key.ID, ExpiresAt: claims.ExpiresAt.UTC()}, nil
}

// tokenClaims are the claims of a user token. Its times are numbers (RFC 7519
// section 2), though the library takes text as well.
type tokenClaims struct{ jwt.RegisteredClaims }

func (c *tokenClaims) UnmarshalJSON(b []byte) error {
	var times struct{ Exp, Iat, Nbf json.RawMessage }
	if err := json.Unmarshal(b, &times); err != nil {
		return err
	}
	for _, t := range []json.RawMessage{times.Exp, times.Iat, times.Nbf} {
		if len(t) > 0 && t[0] == '"' {
			return errors.New("a time is text")
		}
	}
	return json.Unmarshal(b, &c.RegisteredClaims)
}

func (r *Registry) userKeyOf(ctx context.Context, header map[string]any) (UserKey, error) {
	// RFC 7515 section 4.1.11: extensions that are not understood are refused.
	if _, ok := header["crit"]; ok {
		return UserKey{}, problem.New(problem.Unauthenticated, `The user token has a "crit" header; leave it out.`)
	}
	kid, _ := header["kid"].(string)
	id, err := ids.Parse(ids.UserKey, kid)
	if err != nil {
		return UserKey{}, problem.New(problem.Unauthenticated,
			`The user token's "kid" header is not the id of a user key; set it to the usk_... id that was shown when the key was made.`)
	}
	key, err := r.userKeys.get(ctx, id, r.o.Store.UserKey)
	if err != nil && problem.CodeOf(err) == problem.NotFound {
		return UserKey{}, problem.New(problem.Unauthenticated, "The user token names a user key that does not exist any more, or is of another server.")
	}
	return key, err
}

// tokenFault turns an error of the parser into a sentence that holds nothing of
// the token.
func tokenFault(err error) string {
	for _, f := range []struct {
		is  error
		say string
	}{
		{jwt.ErrTokenMalformed, "The user token cannot be read; send a JWT of three base64url parts, whose claims are JSON and whose times are numbers."},
		{jwt.ErrTokenUnverifiable, "The user token has an unknown alg; sign it with HS256."},
		{jwt.ErrTokenSignatureInvalid, "The user token's signature is wrong; sign it with alg HS256 and the user key's secret, whose text is the key as it is."},
		{jwt.ErrTokenExpired, "The user token has expired; ask the backend for a new one."},
		{jwt.ErrTokenNotValidYet, `The user token is not valid yet ("nbf"); check the clock of its signer.`},
		{jwt.ErrTokenUsedBeforeIssued, `The user token was issued in the future ("iat"); check the clock of its signer.`},
		{jwt.ErrTokenInvalidAudience, `The user token is not meant for this server; its "aud" must contain "carillon".`},
		{jwt.ErrTokenRequiredClaimMissing, `The user token lacks a claim; "sub", "aud" and "exp" are needed.`},
	} {
		if errors.Is(err, f.is) {
			return f.say
		}
	}
	return "The user token has a claim of the wrong type; \"sub\" and \"aud\" are text, \"exp\" and \"iat\" are numbers."
}

func checkClaims(c jwt.RegisteredClaims, now time.Time) error {
	if err := text.CheckUser(c.Subject); err != nil {
		return problem.New(problem.Unauthenticated, `The user token's "sub" %s.`, err)
	}
	latest := now.Add(MaxTokenLife + TokenLeeway)
	if c.IssuedAt != nil {
		latest = c.IssuedAt.Add(MaxTokenLife)
	}
	if c.ExpiresAt.After(latest) {
		return problem.New(problem.Unauthenticated, `The user token is valid for more than an hour; set "exp" to at most an hour after it is signed.`)
	}
	return nil
}

// CreateUserKey makes a key that signs user tokens and returns its secret, which
// is not shown again. The bytes of the text are the HS256 key: nothing is to be
// decoded.
func (r *Registry) CreateUserKey(ctx context.Context, tenant ids.ID, name, actor string) (UserKey, string, error) {
	var faults problem.Fields
	checkText(&faults, "name", name, 1, MaxName)
	if err := faults.Err(); err != nil {
		return UserKey{}, "", err
	}
	secret := userKeyPrefix + randomText()
	k := UserKey{ID: r.o.IDs.Next(), Tenant: tenant, Name: name, Secret: []byte(secret), CreatedAt: r.o.Now().UTC()}
	if err := r.o.Store.CreateUserKey(ctx, k, Change{Actor: actor, Action: "user_key.create"}); err != nil {
		return UserKey{}, "", err
	}
	return k, secret, nil
}

// UserKeys lists the user keys of a tenant without their secrets, newest first.
func (r *Registry) UserKeys(ctx context.Context, tenant ids.ID, p Page) ([]UserKey, error) {
	return r.o.Store.UserKeys(ctx, tenant, p.bounded())
}

// DeleteUserKey makes every token signed with the key worthless: here at once,
// on other nodes within 5 s.
func (r *Registry) DeleteUserKey(ctx context.Context, tenant, id ids.ID, actor string) error {
	err := r.o.Store.DeleteUserKey(ctx, tenant, id, Change{Actor: actor, Action: "user_key.delete"})
	r.userKeys.drop(id)
	return err
}
