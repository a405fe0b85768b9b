package db

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// NewKeyset makes a tenant's keys, sealed for its row.
func (r *KeyRing) NewKeyset(tenant ids.ID) ([]byte, error) {
	h, err := keyset.NewHandle(newKey())
	if err != nil {
		return nil, fmt.Errorf("make a tenant's keys: %w", err)
	}
	return r.seal(tenant, h)
}

func (r *KeyRing) seal(tenant ids.ID, h *keyset.Handle) ([]byte, error) {
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
		return nil, errors.New("the tenant's keys do not open with this key ring: was the database made with another one, or the key ring rotated since?")
	}
	return h, nil
}

// SubjectKey derives the key of the hashes that stand for the users of a tenant
// in receipts and in the erasure log. It comes from the oldest of the tenant's
// keys, which every backup of the tenant has, and is gone when they are.
func (r *KeyRing) SubjectKey(tenant ids.ID, sealed []byte) ([]byte, error) {
	return r.derive(tenant, sealed, "carillon erasure subject ")
}

// hashKey derives the key of seals.KeyedHash.
func (r *KeyRing) hashKey(tenant ids.ID, sealed []byte) ([]byte, error) {
	return r.derive(tenant, sealed, "carillon hash ")
}

func (r *KeyRing) derive(tenant ids.ID, sealed []byte, purpose string) ([]byte, error) {
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
	return hkdf.Key(sha256.New, plain.Key[0].KeyData.Value, nil, purpose+tenant.Format(ids.Tenant), sha256.Size)
}
