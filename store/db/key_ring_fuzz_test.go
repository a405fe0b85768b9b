package db

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzParseKeyRing: what is no key ring is refused without showing what it is, and one
// that is taken seals.
func FuzzParseKeyRing(f *testing.F) {
	_, text, err := NewKeyRing()
	require.NoError(f, err)
	f.Add(text)
	f.Add(" " + text + "\n")
	f.Add(text[:len(text)/2])
	f.Add(strings.ToLower(text))
	f.Add("")
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseKeyRing(text)
		if err != nil {
			if len(text) > 20 {
				require.NotContains(t, err.Error(), text)
			}
			return
		}
		sealed, err := r.master.Encrypt([]byte("x"), nil)
		require.NoError(t, err)
		plain, err := r.master.Decrypt(sealed, nil)
		require.NoError(t, err)
		require.Equal(t, "x", string(plain))
	})
}
