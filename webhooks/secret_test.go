package webhooks

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRotate(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	a, _ := NewSecret()
	b, _ := NewSecret()
	c, _ := NewSecret()
	d, _ := NewSecret()

	one := Rotate(nil, a, now, 24*time.Hour)
	require.Equal(t, []Secret{{Key: a, CreatedAt: now}}, one)
	two := Rotate(one, b, now, 24*time.Hour)
	require.True(t, one[0].ExpiresAt.IsZero(), "the argument is not changed")
	require.Equal(t, [][]byte{b, a}, Endpoint{Secrets: two}.SigningKeys(now.Add(24*time.Hour-1)))
	require.Equal(t, [][]byte{b}, Endpoint{Secrets: two}.SigningKeys(now.Add(24*time.Hour)))

	three := Rotate(two, c, now.Add(time.Hour), 48*time.Hour)
	require.Equal(t, now.Add(24*time.Hour), three[2].ExpiresAt, "an overlap never grows")
	four := Rotate(three, d, now.Add(2*time.Hour), 0)
	require.Equal(t, [][]byte{d}, Endpoint{Secrets: four}.SigningKeys(now.Add(2*time.Hour)), "no overlap replaces at once")
	require.Len(t, Rotate(three, d, now.Add(2*time.Hour), time.Hour), MaxKeys)
}

// TestRotateLeavesOutWhatHasExpired: a secret that no longer counts takes no
// place, and does not stay in the database.
func TestRotateLeavesOutWhatHasExpired(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	a, _ := NewSecret()
	b, _ := NewSecret()
	c, _ := NewSecret()
	two := []Secret{{Key: b, CreatedAt: now}, {Key: a, ExpiresAt: now.Add(time.Hour)}}

	before := Rotate(two, c, now.Add(time.Hour-1), time.Minute)
	require.Len(t, before, 3)
	at := now.Add(time.Hour) // the instant of expiry is too late
	require.Equal(t, []Secret{{Key: c, CreatedAt: at}, {Key: b, CreatedAt: now, ExpiresAt: at.Add(time.Minute)}}, Rotate(two, c, at, time.Minute))
	require.Equal(t, []Secret{{Key: c, CreatedAt: at}}, Rotate(two, c, at, 0), "without an overlap nothing stays")
}

func TestSecretForm(t *testing.T) {
	t.Parallel()
	key, shown := NewSecret()
	require.Len(t, key, 32)
	other, _ := NewSecret()
	require.NotEqual(t, key, other)
	back, err := ParseSecret(shown)
	require.NoError(t, err)
	require.Equal(t, key, back)

	for _, n := range []int{MinSecret, MaxSecret} {
		_, err := ParseSecret(FormatSecret(make([]byte, n)))
		require.NoError(t, err)
	}
	for name, bad := range map[string]string{
		"empty": "", "prefix only": "whsec_", "no prefix": shown[6:], "public key": "whpk_" + shown[6:],
		"short": FormatSecret(make([]byte, MinSecret-1)), "long": FormatSecret(make([]byte, MaxSecret+1)),
		"no padding": strings.TrimRight(shown, "="), "url alphabet": "whsec_" + strings.Repeat("-_-_", 10),
		"line break": shown[:20] + "\n" + shown[20:], "space": shown + " ",
	} {
		_, err := ParseSecret(bad)
		require.Error(t, err, name)
		if len(bad) > 12 {
			require.NotContains(t, err.Error(), bad[6:12], "no part of a secret in an error")
		}
	}
}

func FuzzParseSecret(f *testing.F) {
	_, shown := NewSecret()
	for _, s := range []string{shown, "whsec_", "", shown + "\n", "whsec_AAAA"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, err := ParseSecret(s)
		if err != nil {
			return
		}
		if len(key) < MinSecret || len(key) > MaxSecret || FormatSecret(key) != s {
			t.Fatalf("%q was read as %d bytes that print differently", s, len(key))
		}
		if _, err := Sign([][]byte{key}, "id", time.Now(), nil); errors.Is(err, ErrKey) {
			t.Fatal("a parsed key cannot sign")
		}
	})
}
