package db

import (
	"context"
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
	open  map[ids.ID]tink.AEAD
}

// KeyRing is the installation's; nil: none was given.
func (s *seals) KeyRing() *KeyRing { return s.ring }

func (s *seals) sealer(tenant ids.ID) (tink.AEAD, error) {
	s.mu.RLock()
	a := s.open[tenant]
	s.mu.RUnlock()
	if a != nil {
		return a, nil
	}
	var sealed []byte
	if err := s.pools.reads.QueryRowContext(context.Background(), "SELECT keyset FROM tenants WHERE id=?", tenant).Scan(&sealed); err != nil {
		return nil, fmt.Errorf("read a tenant's keys: %w", err)
	}
	a, err := s.ring.open(tenant, sealed)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[ids.ID]tink.AEAD{}
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

// Kinds of sealed values, part of their associated data.
const (
	SealPayload    = "payload"
	SealCredential = "credential"
	SealEndpoint   = "endpoint"
	SealUserKey    = "user_key"
	SealErasure    = "erasure"
)
