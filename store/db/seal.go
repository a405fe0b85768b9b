package db

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// KeyRing is the installation's master key. It seals each tenant's own keys,
// which seal what belongs to the tenant. Without it a backup of the database is
// worth nothing, so it is backed up beside it, not with it.
type KeyRing struct{ master tink.AEAD }

// NewKeyRing makes a key ring and the text to keep it in: one line of base64.
func NewKeyRing() (*KeyRing, string, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, "", fmt.Errorf("make a key ring: %w", err)
	}
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)); err != nil {
		return nil, "", fmt.Errorf("make a key ring: %w", err)
	}
	r, err := ringOf(h)
	return r, base64.StdEncoding.EncodeToString(b.Bytes()), err
}

// ParseKeyRing reads what NewKeyRing made.
func ParseKeyRing(text string) (*KeyRing, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, errors.New("the key ring is not base64; make one with `carillon key-ring init`")
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewBinaryReader(bytes.NewReader(raw)))
	if err != nil {
		return nil, errors.New("the key ring cannot be read; make one with `carillon key-ring init`")
	}
	return ringOf(h)
}

// ReadKeyRing reads a key ring from a file.
func ReadKeyRing(path string) (*KeyRing, error) {
	b, err := os.ReadFile(path) //nolint:gosec // the operator chooses the path
	if err != nil {
		return nil, fmt.Errorf("read the key ring: %w", err)
	}
	return ParseKeyRing(string(b))
}

func ringOf(h *keyset.Handle) (*KeyRing, error) {
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("use the key ring: %w", err)
	}
	return &KeyRing{master: a}, nil
}

// NewKeyset makes a tenant's keys, sealed for its row.
func (r *KeyRing) NewKeyset(tenant ids.ID) ([]byte, error) {
	h, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, fmt.Errorf("make a tenant's keys: %w", err)
	}
	var b bytes.Buffer
	if err := h.WriteWithAssociatedData(keyset.NewBinaryWriter(&b), r.master, ad("tenant", tenant, 0)); err != nil {
		return nil, fmt.Errorf("seal a tenant's keys: %w", err)
	}
	return b.Bytes(), nil
}

func (r *KeyRing) read(tenant ids.ID, sealed []byte) (*keyset.Handle, error) {
	if len(sealed) == 0 {
		return nil, problem.New(problem.Conflict, "The tenant is being deleted: its keys are destroyed.")
	}
	h, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(sealed)), r.master, ad("tenant", tenant, 0))
	if err != nil {
		return nil, errors.New("the tenant's keys do not open with this key ring: was the database made with another one?")
	}
	return h, nil
}

func (r *KeyRing) open(tenant ids.ID, sealed []byte) (tink.AEAD, error) {
	h, err := r.read(tenant, sealed)
	if err != nil {
		return nil, err
	}
	return aead.New(h)
}

// SubjectKey derives the key of the hashes that stand for the users of a tenant
// in receipts and in the erasure log. It comes from the oldest of the tenant's
// keys, which every backup of the tenant has, and is gone when they are.
func (r *KeyRing) SubjectKey(tenant ids.ID, sealed []byte) ([]byte, error) {
	h, err := r.read(tenant, sealed)
	if err != nil {
		return nil, err
	}
	var (
		text  bytes.Buffer
		plain struct {
			Key []struct {
				KeyData struct {
					Value []byte `json:"value"`
				} `json:"keyData"`
			} `json:"key"`
		}
	)
	err = insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&text))
	if err == nil {
		err = json.Unmarshal(text.Bytes(), &plain)
	}
	if err != nil || len(plain.Key) == 0 || len(plain.Key[0].KeyData.Value) == 0 {
		return nil, errors.New("the tenant's keys cannot be read")
	}
	return hkdf.Key(sha256.New, plain.Key[0].KeyData.Value, nil, "carillon erasure subject "+tenant.Format(ids.Tenant), sha256.Size)
}

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
	db   *DB
	ring *KeyRing
	mu   sync.RWMutex
	open map[ids.ID]tink.AEAD
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
	if err := s.db.reads.QueryRowContext(context.Background(), "SELECT keyset FROM tenants WHERE id=?", tenant).Scan(&sealed); err != nil {
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
	err := s.db.reads.QueryRowContext(ctx, "SELECT id FROM tenants WHERE deleted_at=0 ORDER BY id DESC LIMIT 1").Scan(&tenant)
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
