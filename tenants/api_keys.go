package tenants

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// A secret is a prefix, the digits of the key's id, "_" and 32 random bytes in
// base64url. The prefix tells the kinds of key apart, for people and for secret
// scanners.
const (
	tenantPrefix   = "crl_"
	operatorPrefix = "crlop_"
	idDigits       = 13
	randomChars    = 43

	touchEvery   = time.Minute
	touchTimeout = 5 * time.Second
	maxTouches   = 4 // at a time; what does not fit is left to the next call
)

// Principal is who calls with an API key.
type Principal struct {
	Key    ids.ID
	Tenant ids.ID // 0: an operator
	Scopes []Scope
}

// Has tells whether the principal may do what needs the scope. Admin has all
// scopes of a tenant; an operator has every scope in every tenant.
func (p Principal) Has(want Scope) bool {
	if p.Tenant == 0 {
		return slices.Contains(p.Scopes, Operator)
	}
	return want != Operator && (slices.Contains(p.Scopes, want) || slices.Contains(p.Scopes, Admin))
}

// Actor names the principal in the audit.
func (p Principal) Actor() string { return p.Key.Format(ids.Key) }

// knownKey is a key in the cache.
type knownKey struct {
	Key
	touched atomic.Int64 // Unix seconds of the last use that was noted
}

// Authenticate tells whose API key a secret is. Everything that is wrong with it
// is Unauthenticated. A revocation here counts at once, one on another node
// within 5 s, an expiry to the second.
func (r *Registry) Authenticate(ctx context.Context, secret string) (Principal, error) {
	id, operator, ok := parseSecret(secret)
	if !ok {
		return Principal{}, problem.New(problem.Unauthenticated,
			"This is not an API key; send the header Authorization: Bearer crl_... with the secret as it was shown when the key was made.")
	}
	k, err := r.keys.get(ctx, id, r.loadKey)
	if err != nil && problem.CodeOf(err) != problem.NotFound {
		return Principal{}, err
	}
	hash := sha256.Sum256([]byte(secret))
	if err != nil || subtle.ConstantTimeCompare(hash[:], k.Hash) != 1 || operator != (k.Tenant == 0) {
		return Principal{}, problem.New(problem.Unauthenticated, "This API key is not known here; check that it is complete and of this server.")
	}
	now := r.o.Now()
	switch {
	case !k.RevokedAt.IsZero():
		return Principal{}, problem.New(problem.Unauthenticated, "This API key has been revoked; use another.")
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return Principal{}, problem.New(problem.Unauthenticated, "This API key expired at %s; use another.", k.ExpiresAt.UTC().Format(time.RFC3339))
	}
	r.touch(k, now)
	return Principal{Key: k.ID, Tenant: k.Tenant, Scopes: k.Scopes}, nil
}

func parseSecret(secret string) (id ids.ID, operator, ok bool) {
	rest, operator := strings.CutPrefix(secret, operatorPrefix)
	if !operator {
		if rest, ok = strings.CutPrefix(secret, tenantPrefix); !ok {
			return 0, false, false
		}
	}
	if len(rest) != idDigits+1+randomChars || rest[idDigits] != '_' {
		return 0, false, false
	}
	id, err := ids.Parse(ids.Key, ids.Key+"_"+rest[:idDigits])
	return id, operator, err == nil
}

func (r *Registry) loadKey(ctx context.Context, id ids.ID) (*knownKey, error) {
	k, err := r.o.Store.Key(ctx, id)
	if err != nil {
		return nil, err
	}
	known := &knownKey{Key: k}
	if !k.LastUsedAt.IsZero() {
		known.touched.Store(k.LastUsedAt.Unix())
	}
	return known, nil
}

// touch notes that a key is used, in the background and at most once a minute. A
// note that fails is made up for by a later call.
func (r *Registry) touch(k *knownKey, now time.Time) {
	last := k.touched.Load()
	if now.Unix()-last < int64(touchEvery/time.Second) {
		return
	}
	select {
	case r.touches <- struct{}{}:
	default:
		return
	}
	if !k.touched.CompareAndSwap(last, now.Unix()) { // another call does it
		<-r.touches
		return
	}
	r.touching.Go(func() {
		defer func() { <-r.touches }()
		ctx, cancel := context.WithTimeout(context.Background(), touchTimeout)
		defer cancel()
		_ = r.o.Store.TouchKey(ctx, k.ID, now.UTC().Truncate(touchEvery))
	})
}

// NewKey is what a caller says of a key to be made.
type NewKey struct {
	Name      string
	Scopes    []Scope   // an operator key has Operator alone and may leave it out
	ExpiresAt time.Time // zero: never
}

// CreateKey makes an API key of a tenant, or an operator key where tenant is 0,
// and returns its secret, which is not stored and not shown again.
func (r *Registry) CreateKey(ctx context.Context, tenant ids.ID, n NewKey, actor string) (Key, string, error) {
	now := r.o.Now().UTC()
	scopes := slices.Clone(n.Scopes)
	if tenant == 0 && len(scopes) == 0 {
		scopes = []Scope{Operator}
	}
	var faults problem.Fields
	checkText(&faults, "name", n.Name, 1, MaxName)
	checkScopes(&faults, tenant, scopes)
	if n.ExpiresAt.UTC().Year() > 9998 {
		faults.Add("expires_at", "is out of range; leave it out for a key that does not expire")
	}
	if !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(now) {
		faults.Add("expires_at", "has passed; name a time to come, or leave it out for a key that does not expire")
	}
	if err := faults.Err(); err != nil {
		return Key{}, "", err
	}
	id := r.o.IDs.Next()
	secret := newSecret(id, tenant == 0)
	hash := sha256.Sum256([]byte(secret))
	k := Key{ID: id, Tenant: tenant, Name: n.Name, Scopes: scopes, Hash: hash[:], CreatedAt: now, ExpiresAt: n.ExpiresAt}
	if err := r.o.Store.CreateKey(ctx, k, Change{Actor: actor, Action: "key.create"}); err != nil {
		return Key{}, "", err
	}
	return k, secret, nil
}

func newSecret(id ids.ID, operator bool) string {
	prefix := tenantPrefix
	if operator {
		prefix = operatorPrefix
	}
	return prefix + strings.TrimPrefix(id.Format(ids.Key), ids.Key+"_") + "_" + randomText()
}

// randomText is 32 random bytes in base64url.
func randomText() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func checkScopes(faults *problem.Fields, tenant ids.ID, scopes []Scope) {
	allowed := Scopes()
	if tenant == 0 {
		allowed = []Scope{Operator}
	}
	names := make([]string, len(allowed))
	for i, a := range allowed {
		names[i] = string(a)
	}
	if len(scopes) == 0 {
		faults.Add("scopes", "is empty; list one or more of %s", strings.Join(names, ", "))
	}
	for i, have := range scopes {
		at := fmt.Sprintf("scopes[%d]", i)
		if !slices.Contains(allowed, have) {
			faults.Add(at, "is not a scope that this key may have; use %s", strings.Join(names, ", "))
		} else if slices.Contains(scopes[:i], have) {
			faults.Add(at, "is listed twice")
		}
	}
}

// Keys lists the keys of a tenant, or the operator keys where tenant is 0, newest first.
func (r *Registry) Keys(ctx context.Context, tenant ids.ID, p Page) ([]Key, error) {
	return r.o.Store.Keys(ctx, tenant, p.bounded())
}

// Key returns a key of the tenant.
func (r *Registry) Key(ctx context.Context, tenant, id ids.ID) (Key, error) {
	k, err := r.o.Store.Key(ctx, id)
	if err == nil && k.Tenant != tenant {
		return Key{}, problem.New(problem.NotFound, "There is no such key.")
	}
	return k, err
}

// RevokeKey ends a key. It may be repeated.
func (r *Registry) RevokeKey(ctx context.Context, tenant, id ids.ID, actor string) error {
	err := r.o.Store.RevokeKey(ctx, tenant, id, r.o.Now().UTC(), Change{Actor: actor, Action: "key.revoke"})
	r.keys.drop(id)
	return err
}
