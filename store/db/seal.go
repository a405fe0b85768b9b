package db

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// ad is the associated data: a sealed value opens only in the row it was made for.
func ad(kind string, tenant, row ids.ID) []byte {
	b := make([]byte, 0, len(kind)+16)
	b = append(b, kind...)
	b = binary.BigEndian.AppendUint64(b, uint64(tenant))
	return binary.BigEndian.AppendUint64(b, uint64(row))
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
	keys   []*tinkpb.KeysetInfo_KeyInfo // which they are
	hash   []byte                       // of KeyedHash
	readAt time.Time
}

// readAgain is after how long opened keys are read again: other nodes may have
// given the tenant a new one to seal with.
const readAgain = time.Hour

// KeyRing is the installation's; nil: none was given.
func (s *seals) KeyRing() *KeyRing { return s.ring }

func (s *seals) sealer(tenant ids.ID) (opened, error) {
	s.mu.RLock()
	a, known := s.open[tenant]
	s.mu.RUnlock()
	now := s.pools.Now()
	if known && now.Sub(a.readAt) < readAgain {
		return a, nil
	}
	if known { // the others go on with what is opened while one reads
		a.readAt = now
		s.keep(tenant, a)
	}
	b, err := s.read(tenant)
	switch {
	case err == nil:
		s.keep(tenant, b)
		return b, nil
	case known && problem.CodeOf(err) != problem.Conflict:
		return a, nil // as good as ever, whatever keeps the row from being read
	}
	s.ForgetKeys(tenant)
	return b, err
}

// read opens the keys of a tenant as they are in the database.
func (s *seals) read(tenant ids.ID) (a opened, err error) {
	var sealed []byte
	if err := s.pools.reads.QueryRowContext(context.Background(), "SELECT keyset FROM tenants WHERE id=?", tenant).Scan(&sealed); err != nil {
		return a, fmt.Errorf("read a tenant's keys: %w", err)
	}
	h, err := s.ring.read(tenant, sealed)
	if err != nil {
		return a, err
	}
	if a.AEAD, err = aead.New(h); err != nil {
		return a, err
	}
	a.hash, err = s.ring.hashKey(tenant, sealed)
	a.keys, a.readAt = h.KeysetInfo().GetKeyInfo(), s.pools.Now()
	return a, err
}

func (s *seals) keep(tenant ids.ID, a opened) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[ids.ID]opened{}
	}
	s.open[tenant] = a
}

// ForgetKeys closes the opened keys of a tenant: they are destroyed.
func (s *seals) ForgetKeys(tenant ids.ID) {
	s.mu.Lock()
	delete(s.open, tenant)
	s.mu.Unlock()
}

// CheckKeyRing tells whether the key ring opens what the database holds: of the
// tenants whose keys one key of it has sealed it looks at the newest.
func (s *seals) CheckKeyRing(ctx context.Context) error { return s.ring.Check(ctx, s.pools.reads) }

// Check does it in any database.
func (r *KeyRing) Check(ctx context.Context, q Queryer) (err error) {
	rows, err := q.QueryContext(ctx, "SELECT id,keyset FROM tenants WHERE deleted_at=0 ORDER BY id DESC")
	if err != nil {
		return fmt.Errorf("read the tenants: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	looked := map[uint32]bool{}
	for rows.Next() {
		var (
			tenant ids.ID
			sealed []byte
		)
		if err := rows.Scan(&tenant, &sealed); err != nil {
			return fmt.Errorf("read the tenants: %w", err)
		}
		by, err := SealedBy(sealed)
		if err != nil {
			return err
		}
		if looked[by] {
			continue
		}
		looked[by] = true
		if _, err := r.read(tenant, sealed); err != nil {
			return err
		}
	}
	return rows.Err()
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
	if err != nil && !a.made(sealed) { // another node has given the tenant a new key since
		if a, err = s.read(tenant); err != nil {
			return nil, err
		}
		s.keep(tenant, a)
		plain, err = a.Decrypt(sealed, ad(kind, tenant, row))
	}
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
	SealPayload     = "payload"
	SealCredential  = "credential"
	SealEndpoint    = "endpoint"
	SealEndpointURL = "endpoint_url"
	SealUserKey     = "user_key"
	SealErasure     = "erasure"
)
