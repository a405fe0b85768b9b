package db

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/carillonhq/carillon/ids"
)

// MaxTenantKeys bounds how many keys a tenant has, which are all needed to read
// what they have sealed.
const MaxTenantKeys = 100

// XChaCha is the algorithm of keys that are made now.
const XChaCha = "XChaCha20-Poly1305"

// algorithm is the name of what a key is for, by what tink calls it.
func algorithm(typeURL string) string {
	switch name := typeURL[strings.LastIndex(typeURL, ".")+1:]; name {
	case "AesGcmKey":
		return "AES-GCM"
	case "XChaCha20Poly1305Key":
		return XChaCha
	default:
		return name
	}
}

// SealedBy is the key of a key ring that a tenant's keys are sealed with. It needs no
// key ring.
func SealedBy(keys []byte) (id uint32, err error) {
	e, err := keyset.NewBinaryReader(bytes.NewReader(keys)).ReadEncrypted()
	if err != nil {
		return 0, fmt.Errorf("read a tenant's keys: %w", err)
	}
	id, ok := keyOf(e.GetEncryptedKeyset())
	if !ok {
		return 0, errors.New("a tenant's keys do not say which key they are sealed with")
	}
	return id, nil
}

// SealsWith is the algorithm of the tenant's key that seals.
func (r *KeyRing) SealsWith(tenant ids.ID, keys []byte) (string, error) {
	h, err := r.read(tenant, keys)
	if err != nil {
		return "", err
	}
	return primaryAlgorithm(h.KeysetInfo()), nil
}

func primaryAlgorithm(info *tinkpb.KeysetInfo) string {
	for _, k := range info.GetKeyInfo() {
		if k.GetKeyId() == info.GetPrimaryKeyId() {
			return algorithm(k.GetTypeUrl())
		}
	}
	return ""
}

// keyOf is the number of the key that a sealed value was made with, with which it
// begins: https://developers.google.com/tink/wire-format.
func keyOf(sealed []byte) (id uint32, ok bool) {
	if len(sealed) < 5 || sealed[0] != 1 {
		return 0, false
	}
	return binary.BigEndian.Uint32(sealed[1:5]), true
}

// made tells whether one of the tenant's keys has made a sealed value.
func (a opened) made(sealed []byte) bool {
	id, ok := keyOf(sealed)
	return !ok || slices.ContainsFunc(a.keys, func(k *tinkpb.KeysetInfo_KeyInfo) bool { return k.GetKeyId() == id })
}

// Reseal seals a tenant's keys with the primary key of the key ring. If asked, and
// always where it is AES-GCM that seals, it gives the tenant a new key for
// what is sealed from now on; the others open what they have sealed. nil: nothing
// has to change.
func (r *KeyRing) Reseal(tenant ids.ID, sealed []byte, newOne bool) ([]byte, error) {
	by, err := SealedBy(sealed)
	if err != nil {
		return nil, err
	}
	h, err := r.read(tenant, sealed)
	if err != nil {
		return nil, err
	}
	newOne = (newOne || primaryAlgorithm(h.KeysetInfo()) != XChaCha) && h.Len() < MaxTenantKeys
	if by == r.Primary() && !newOne {
		return nil, nil
	}
	if newOne {
		m := keyset.NewManagerFromHandle(h)
		id, err := m.Add(newKey())
		if err == nil {
			err = m.SetPrimary(id)
		}
		if err == nil {
			h, err = m.Handle()
		}
		if err != nil {
			return nil, fmt.Errorf("give a tenant a new key: %w", err)
		}
	}
	return r.seal(tenant, h)
}
