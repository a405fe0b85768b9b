package db

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// KeyRing is the installation's master keys. The primary one seals each tenant's
// own keys, which seal what belongs to the tenant; the others open what they have
// sealed. Without it a backup of the database is worth nothing, so it is backed up
// beside it, not with it.
type KeyRing struct {
	keys   *keyset.Handle
	master tink.AEAD
}

// newKey is what every key is made of. With its nonces of 192 random bits a key may
// seal as much as anybody will ever have; AES-GCM, of which the keys of before are,
// is good for 2^32 messages.
func newKey() *tinkpb.KeyTemplate { return aead.XChaCha20Poly1305KeyTemplate() }

// NewKeyRing makes a key ring and the text to keep it in: one line of base64.
func NewKeyRing() (*KeyRing, string, error) {
	h, err := keyset.NewHandle(newKey())
	if err != nil {
		return nil, "", fmt.Errorf("make a key ring: %w", err)
	}
	text, err := textOf(h)
	if err != nil {
		return nil, "", err
	}
	r, err := ringOf(h)
	return r, text, err
}

func textOf(h *keyset.Handle) (string, error) {
	var b bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewBinaryWriter(&b)); err != nil {
		return "", fmt.Errorf("write a key ring: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
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
	return &KeyRing{keys: h, master: a}, nil
}
