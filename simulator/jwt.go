package simulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"sync"
)

// jwt is a signed token (RFC 7515 compact form) with the claims that providers
// look at.
type jwt struct {
	raw    string
	header struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}
	claims struct {
		Iss   string `json:"iss"`
		Aud   string `json:"aud"`
		Sub   string `json:"sub"`
		Scope string `json:"scope"`
		Iat   int64  `json:"iat"`
		Exp   int64  `json:"exp"`
	}
	signature []byte
}

var errNotJWT = errors.New("not a token of three base64url parts with JSON in the first two")

func parseJWT(raw string) (*jwt, error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, errNotJWT
	}
	t := &jwt{raw: raw}
	for i, into := range []any{&t.header, &t.claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(text, into) != nil {
			return nil, errNotJWT
		}
	}
	var err error
	if t.signature, err = base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return nil, errNotJWT
	}
	return t, nil
}

func (t *jwt) digest() []byte {
	sum := sha256.Sum256([]byte(t.raw[:strings.LastIndexByte(t.raw, '.')]))
	return sum[:]
}

// signedES256 checks an ES256 signature: r and s of 32 octets each (RFC 7518
// section 3.4), not ASN.1.
func (t *jwt) signedES256(key *ecdsa.PublicKey) bool {
	if t.header.Alg != "ES256" || len(t.signature) != 64 {
		return false
	}
	r, s := new(big.Int).SetBytes(t.signature[:32]), new(big.Int).SetBytes(t.signature[32:])
	return ecdsa.Verify(key, t.digest(), r, s)
}

func (t *jwt) signedRS256(key *rsa.PublicKey) bool {
	return t.header.Alg == "RS256" && rsa.VerifyPKCS1v15(key, crypto.SHA256, t.digest(), t.signature) == nil
}

// proven remembers tokens whose signature was good, since senders use a token
// for up to an hour and a check costs as much as everything else together.
type proven[T any] struct {
	mu     sync.RWMutex
	tokens map[string]T
}

// provenMax bounds the memory; a sender that signs every request reaches it.
const provenMax = 4096

func (p *proven[T]) get(raw string) (T, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	t, ok := p.tokens[raw]
	return t, ok
}

func (p *proven[T]) put(raw string, t T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tokens == nil || len(p.tokens) >= provenMax {
		p.tokens = map[string]T{}
	}
	p.tokens[raw] = t
}
