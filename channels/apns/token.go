package apns

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"github.com/sideshow/apns2/token"
)

// Apple wants a new JWT at least once an hour and at most once in 20 minutes
// ("Establishing a token-based connection to APNs").
const (
	tokenLife    = token.TokenTimeout * time.Second
	tokenMinimum = 20 * time.Minute
)

// signerID tells signing keys apart. It includes the key itself, so that
// knowing a team's ids is not enough to use its JWT, and a corrected key under
// the same id does not meet the JWT of the wrong one.
type signerID struct {
	team, key   string
	fingerprint [sha256.Size]byte
}

// signers holds one signer per key for the whole process: APNs counts JWTs per
// key, whichever connection or environment they arrive on.
type signers struct {
	now func() time.Time
	mu  sync.Mutex
	all map[signerID]*signer
}

// signer makes the provider JWTs of one key.
type signer struct {
	id   signerID
	refs int // guarded by signers.mu

	now      func() time.Time
	mu       sync.Mutex
	key      *ecdsa.PrivateKey // nil while nobody uses the signer
	jwt      string            // "" before the first and after one was dropped
	signedAt time.Time
}

// acquire gives the signer of a key, which has signed once: an error says that
// the key cannot sign.
func (s *signers) acquire(team, keyID string, key *ecdsa.PrivateKey) (*signer, error) {
	der, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, err
	}
	id := signerID{team: team, key: keyID, fingerprint: sha256.Sum256(der)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	g := s.all[id]
	if g == nil {
		g = &signer{id: id, now: s.now}
	}
	if err := g.use(key); err != nil {
		return nil, err
	}
	g.refs++
	s.all[id] = g
	return g, nil
}

// release ends one use. The last one forgets the private key; the JWT is kept
// until it may be replaced, so that a sender opened again soon does not sign
// more often than Apple allows.
func (s *signers) release(g *signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g.refs--; g.refs == 0 {
		g.mu.Lock()
		g.key = nil
		g.mu.Unlock()
	}
	s.sweep()
}

func (s *signers) sweep() {
	for id, g := range s.all {
		g.mu.Lock()
		if g.key == nil && g.age() >= tokenMinimum {
			delete(s.all, id)
		}
		g.mu.Unlock()
	}
}

func (g *signer) use(key *ecdsa.PrivateKey) error {
	g.mu.Lock()
	g.key = key
	g.mu.Unlock()
	_, err := g.bearer()
	return err
}

// bearer gives the JWT to send, signing a new one when it is due.
func (g *signer) bearer() (string, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	// A clock that was set far back leaves an iat in the future: sign again then, too.
	if age := g.age(); g.jwt != "" && age < tokenLife && age > -tokenMinimum {
		return g.jwt, nil
	}
	t := token.Token{AuthKey: g.key, KeyID: g.id.key, TeamID: g.id.team}
	if _, err := t.Generate(); err != nil {
		return "", fmt.Errorf("sign the provider token: %w", err)
	}
	g.jwt, g.signedAt = t.Bearer, g.now()
	return g.jwt, nil
}

// expired takes note that APNs called a JWT expired, and tells whether the next
// attempt will carry another one. A JWT younger than 20 minutes is kept: APNs
// would not allow a new one, and the clock is the likelier cause.
func (g *signer) expired(jwt string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if jwt != g.jwt {
		return true
	}
	if g.age() < tokenMinimum {
		return false
	}
	g.jwt = ""
	return true
}

// age is measured on the wall clock, as Apple does: the monotonic clock stands
// still while a machine is suspended.
func (g *signer) age() time.Duration {
	return g.now().Round(0).Sub(g.signedAt.Round(0))
}
