package webpush

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// tokenLife is how long a token is good for; RFC 8292 section 2 allows 24 h.
	tokenLife = 12 * time.Hour
	// tokenAge is when it is replaced, long before it ends.
	tokenAge = 6 * time.Hour
	// renewalGap is the least time between two renewals that answers asked for.
	// Apple wants no token replaced more than once an hour, and a second fresh
	// one would not help where the first did not.
	renewalGap = time.Hour
	// maxTokens bounds the cache: with any host allowed, devices choose origins.
	maxTokens = 1024

	keySize = 32 // octets of a P-256 private key
)

// vapid signs for one key pair (RFC 8292) and keeps a token per push service
// origin.
type vapid struct {
	key     *ecdsa.PrivateKey
	public  string // base64url of the 65-octet point
	subject string
	now     func() time.Time

	mu     sync.Mutex
	tokens map[string]*token
}

type token struct {
	header  string // of Authorization; "" when dropped
	made    time.Time
	dropped time.Time // when an answer last asked for another one
}

func newVAPID(key *ecdsa.PrivateKey, subject string, now func() time.Time) (*vapid, error) {
	point, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	return &vapid{key: key, public: base64.RawURLEncoding.EncodeToString(point), subject: subject,
		now: now, tokens: map[string]*token{}}, nil
}

// authorization is the Authorization header for an origin, signed at most every
// six hours.
func (v *vapid) authorization(origin string) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	t := v.tokens[origin]
	if t != nil && t.header != "" {
		if age := now.Sub(t.made); age >= 0 && age < tokenAge { // below 0: the clock was set back
			return t.header, nil
		}
	}
	header, err := v.sign(origin, now)
	if err != nil {
		return "", err
	}
	if t == nil {
		t = &token{}
		v.makeRoom()
		v.tokens[origin] = t
	}
	t.header, t.made = header, now
	return header, nil
}

// drop forgets the token that was refused. A token made by another send in the
// meantime stays, and so does one that was renewed within renewalGap.
func (v *vapid) drop(origin, refused string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.now()
	t := v.tokens[origin]
	if t == nil || t.header != refused || now.Sub(t.dropped) < renewalGap {
		return
	}
	t.header, t.dropped = "", now
}

// clear forgets all tokens.
func (v *vapid) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.tokens)
}

// makeRoom drops some token when there are too many; its origin signs anew.
func (v *vapid) makeRoom() {
	for origin := range v.tokens {
		if len(v.tokens) < maxTokens {
			return
		}
		delete(v.tokens, origin)
	}
}

func (v *vapid) sign(origin string, now time.Time) (string, error) {
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"aud": origin,
		"exp": now.Add(tokenLife).Unix(),
		"sub": v.subject,
	})
	signed, err := t.SignedString(v.key)
	if err != nil {
		return "", err
	}
	return "vapid t=" + signed + ", k=" + v.public, nil
}

// origin is what a token is made for: scheme, lower-case host, and the port
// unless it is the scheme's own (RFC 6454 section 6.2).
func origin(u *url.URL) string {
	host, port := strings.ToLower(u.Hostname()), u.Port()
	if port == "" || u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return u.Scheme + "://" + host
	}
	return u.Scheme + "://" + net.JoinHostPort(host, port)
}

var errKey = errors.New("is not a P-256 private key: 32 octets in base64url")

// parseKey reads a private key of 32 octets.
func parseKey(raw []byte) (*ecdsa.PrivateKey, error) {
	if len(raw) != keySize {
		return nil, errKey
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
	if err != nil {
		return nil, errKey
	}
	return key, nil
}
