package webhooks

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	// MinSecret and MaxSecret bound a key in bytes, as Standard Webhooks does.
	MinSecret = 24
	MaxSecret = 64
	// MaxKeys is how many keys of an endpoint count at a time.
	MaxKeys = 3

	newSecret    = 32
	secretPrefix = "whsec_"
)

// Secret is one signing key of an endpoint.
type Secret struct {
	Key       []byte    `json:"-"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: counts until it is replaced
}

// Counts tells whether the key is to be used at now.
func (s Secret) Counts(now time.Time) bool {
	return len(s.Key) > 0 && (s.ExpiresAt.IsZero() || now.Before(s.ExpiresAt))
}

// String keeps the key out of logs, whatever verb prints it.
func (Secret) String() string { return "webhook secret" }

// GoString does the same for %#v.
func (s Secret) GoString() string { return s.String() }

// Rotate puts key before secrets. What was there counts for overlap longer,
// unless it expires sooner; what no longer counts, or is more than MaxKeys, is
// left out. secrets is not changed.
func Rotate(secrets []Secret, key []byte, now time.Time, overlap time.Duration) []Secret {
	until := now.Add(max(overlap, 0))
	out := []Secret{{Key: key, CreatedAt: now}}
	for _, s := range secrets {
		if s.ExpiresAt.IsZero() || s.ExpiresAt.After(until) {
			s.ExpiresAt = until
		}
		if len(out) < MaxKeys && s.Counts(now) {
			out = append(out, s)
		}
	}
	return out
}

// NewSecret makes a random key of 32 bytes and the form that its owner is shown.
func NewSecret() (key []byte, shown string) {
	key = make([]byte, newSecret)
	_, _ = rand.Read(key) // never fails: crypto/rand ends the process instead
	return key, FormatSecret(key)
}

// FormatSecret prints a key as "whsec_" and standard base64 with padding, the
// form that every Standard Webhooks library reads.
func FormatSecret(key []byte) string {
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// ParseSecret reads what FormatSecret prints, and nothing else: a text that
// other libraries might read as another key is refused. The error never holds
// the text.
func ParseSecret(s string) ([]byte, error) {
	text, ok := strings.CutPrefix(s, secretPrefix)
	if !ok {
		return nil, errors.New(`begins with "whsec_", followed by the key in base64`)
	}
	key, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || FormatSecret(key) != s { // the decoder skips line breaks
		return nil, errors.New(`what follows "whsec_" is standard base64 with padding`)
	}
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return key, nil
}

func checkKey(key []byte) error {
	if len(key) < MinSecret || len(key) > MaxSecret {
		return fmt.Errorf("the key has %d bytes; it needs %d to %d", len(key), MinSecret, MaxSecret)
	}
	return nil
}
