package db

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/carillonhq/carillon/ids"
)

// ad is the associated data: a sealed value opens only in the row it was made for.
func ad(kind string, tenant, row ids.ID) []byte {
	b := make([]byte, 0, len(kind)+16)
	b = append(b, kind...)
	b = binary.BigEndian.AppendUint64(b, uint64(tenant))
	return binary.BigEndian.AppendUint64(b, uint64(row))
}

// Opens tells whether the key ring opens a tenant's keys.
func (r *KeyRing) Opens(tenant ids.ID, sealed []byte) bool {
	_, err := r.open(tenant, sealed)
	return err == nil
}

// seals keeps the opened keys of tenants, which seal what belongs to them.
type seals struct {
	pools *pools
	ring  *KeyRing
	mu    sync.RWMutex
	open  map[ids.ID]opened
}

// opened are the keys of a tenant.
type opened struct {
	tink.AEAD
	hash []byte // of KeyedHash
}

// KeyRing is the installation's; nil: none was given.
func (s *seals) KeyRing() *KeyRing { return s.ring }

func (s *seals) sealer(tenant ids.ID) (opened, error) {
	s.mu.RLock()
	a, known := s.open[tenant]
	s.mu.RUnlock()
	if known {
		return a, nil
	}
	var sealed []byte
	if err := s.pools.reads.QueryRowContext(context.Background(), "SELECT keyset FROM tenants WHERE id=?", tenant).Scan(&sealed); err != nil {
		return a, fmt.Errorf("read a tenant's keys: %w", err)
	}
	var err error
	if a.AEAD, err = s.ring.open(tenant, sealed); err != nil {
		return a, err
	}
	if a.hash, err = s.ring.hashKey(tenant, sealed); err != nil {
		return a, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[ids.ID]opened{}
	}
	s.open[tenant] = a
	return a, nil
}

// ForgetKeys closes the opened keys of a tenant: they are destroyed.
func (s *seals) ForgetKeys(tenant ids.ID) {
	s.mu.Lock()
	delete(s.open, tenant)
	s.mu.Unlock()
}

// CheckKeyRing tells whether the key ring opens what the database holds, by the
// newest tenant.
func (s *seals) CheckKeyRing(ctx context.Context) error {
	var tenant ids.ID
	err := s.pools.reads.QueryRowContext(ctx, "SELECT id FROM tenants WHERE deleted_at=0 ORDER BY id DESC LIMIT 1").Scan(&tenant)
	if IsNoRows(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the tenants: %w", err)
	}
	_, err = s.sealer(tenant)
	return err
}

// Seal seals what belongs to a row of a tenant. It opens in that row alone.
func (s *seals) Seal(kind string, tenant, row ids.ID, plain []byte) ([]byte, error) {
	a, err := s.sealer(tenant)
	if err != nil {
		return nil, err
	}
	return a.Encrypt(plain, ad(kind, tenant, row))
}

// Unseal opens what Seal has made.
func (s *seals) Unseal(kind string, tenant, row ids.ID, sealed []byte) ([]byte, error) {
	a, err := s.sealer(tenant)
	if err != nil {
		return nil, err
	}
	plain, err := a.Decrypt(sealed, ad(kind, tenant, row))
	if err != nil {
		return nil, fmt.Errorf("a sealed %s does not open: was the row copied from elsewhere?", kind)
	}
	return plain, nil
}

// KeyedHash is the number that stands for a text, such as a collapse key, where
// content that was erased must not stay behind. Whoever does not have the tenant's
// keys can neither read it nor find another text that has the same. It is
// never 0.
func (s *seals) KeyedHash(tenant ids.ID, text string) (int64, error) {
	a, err := s.sealer(tenant)
	if err != nil {
		return 0, err
	}
	mac := hmac.New(sha256.New, a.hash)
	mac.Write([]byte(text))
	return max(int64(binary.BigEndian.Uint64(mac.Sum(nil))>>1), 1), nil
}

// Kinds of sealed values, part of their associated data.
const (
	SealPayload    = "payload"
	SealCredential = "credential"
	SealEndpoint   = "endpoint"
	SealUserKey    = "user_key"
	SealErasure    = "erasure"
)
