package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
)

// APNsKey is an authentication key as Apple gives it out.
type APNsKey struct {
	KeyID  string // 10 characters
	TeamID string // 10 characters
	P8     []byte // PEM
}

// APNsAccess is what a sender needs to use the simulated APNs.
type APNsAccess struct {
	APNsKey
	URL        string // production, stands for https://api.push.apple.com
	SandboxURL string // stands for https://api.sandbox.push.apple.com
	Topic      string // a bundle id that is accepted
	CAs        *x509.CertPool
	CAPEM      []byte

	service *apnsService
}

// APNs tells how to reach the simulated APNs.
func (s *Simulator) APNs() APNsAccess {
	return APNsAccess{APNsKey: s.apns.first, URL: s.prod.url(), SandboxURL: s.dev.url(), Topic: s.apns.topics[0],
		CAs: s.apns.authority.pool, CAPEM: s.apns.authority.pem, service: s.apns}
}

// NewToken makes a random device token that production knows.
func (a APNsAccess) NewToken() string { return randomDigits("") }

// NewSandboxToken makes a random device token that only the sandbox knows.
func (a APNsAccess) NewSandboxToken() string { return randomDigits(sandboxMark) }

// SandboxFault is Token(APNs, f, seq) for the sandbox.
func (a APNsAccess) SandboxFault(f Fault, seq int) string { return hexToken(f, true, uint64(seq)) }

// NewKey makes another key for a team.
func (a APNsAccess) NewKey(team string) (APNsKey, error) { return a.service.newKey(team) }

// LimitKey makes a key good for one gateway only, as Apple's portal does: the
// other answers BadEnvironmentKeyIdInToken.
func (a APNsAccess) LimitKey(keyID string, sandbox bool) {
	a.service.mu.Lock()
	defer a.service.mu.Unlock()
	if k := a.service.keys[keyID]; k != nil {
		k.limited, k.sandbox = true, sandbox
	}
}

// Register makes a key good that was made elsewhere.
func (a APNsAccess) Register(team, keyID string, key *ecdsa.PublicKey) {
	a.service.mu.Lock()
	defer a.service.mu.Unlock()
	a.service.keys[keyID] = &providerKey{team: team, key: key}
}

// Revoke makes a key worthless, tokens signed with it included.
func (a APNsAccess) Revoke(keyID string) {
	a.service.mu.Lock()
	defer a.service.mu.Unlock()
	delete(a.service.keys, keyID)
}

// theTeam is the same in every simulator: a credential of another team is refused as a
// new version of one, so a server would not take the key of the next start.
const theTeam = "SIMULATION"

func newAPNsService(c *core, ca *authority, topics []string) (*apnsService, error) {
	a := &apnsService{core: c, authority: ca, topics: topics, keys: map[string]*providerKey{}}
	var err error
	a.first, err = a.newKey(theTeam)
	return a, err
}

func (a *apnsService) newKey(team string) (APNsKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return APNsKey{}, fmt.Errorf("making an APNs key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return APNsKey{}, fmt.Errorf("making an APNs key: %w", err)
	}
	k := APNsKey{KeyID: rand.Text()[:10], TeamID: team, P8: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}
	APNsAccess{service: a}.Register(team, k.KeyID, &key.PublicKey)
	return k, nil
}

func randomDigits(prefix string) string {
	var b [tokenLen / 2]byte
	rand.Read(b[:])
	digits := hex.EncodeToString(b[:])
	if prefix == "" && (strings.HasPrefix(digits, hexMark) || strings.HasPrefix(digits, sandboxMark) || strings.HasPrefix(digits, topicMark)) {
		digits = "0" + digits[1:]
	}
	return prefix + digits[len(prefix):]
}
