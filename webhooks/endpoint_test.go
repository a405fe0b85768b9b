package webhooks

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

func TestMatches(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		patterns  []string
		eventType string
		want      bool
	}{
		{nil, "order.shipped", false},
		{[]string{"*"}, "order.shipped", true},
		{[]string{"*"}, "", false},
		{[]string{"*"}, "carillon.delivery.dead", false},
		{[]string{"*"}, "carillonist.hired", true},
		{[]string{"carillon.*"}, "carillon.delivery.dead", true},
		{[]string{"carillon.device.*"}, "carillon.delivery.dead", false},
		{[]string{"carillon.delivery.dead"}, "carillon.delivery.dead", true},
		{[]string{"order.shipped"}, "order.shipped", true},
		{[]string{"order.shipped"}, "order.shipped.late", false},
		{[]string{"order.*"}, "order.shipped.late", true},
		{[]string{"order.*"}, "order", false},
		{[]string{"order.*"}, "order.", false},
		{[]string{"order.*"}, "orders.shipped", false},
		{[]string{"user.created", "order.*"}, "order.shipped", true},
	} {
		got := Endpoint{EventTypes: c.patterns}.Matches(c.eventType)
		require.Equal(t, c.want, got, "%v %q", c.patterns, c.eventType)
	}
}

func TestCheckType(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a", "order.shipped", "order_2.v1", strings.Repeat("a", MaxType)} {
		require.NoError(t, CheckType(good))
		require.False(t, Reserved(good))
	}
	for _, bad := range []string{"", ".", "a.", ".a", "a..b", "Order", "a-b", "a b", "é", "*", "a.*", strings.Repeat("a", MaxType+1)} {
		require.Error(t, CheckType(bad), bad)
		require.Error(t, CheckName(bad), bad)
	}
	for _, ours := range []string{"carillon", "carillon.delivery.dead"} {
		require.ErrorContains(t, CheckType(ours), "reserved")
		require.NoError(t, CheckName(ours))
		require.True(t, Reserved(ours))
	}
}

func TestCheckSubscription(t *testing.T) {
	t.Parallel()
	require.NoError(t, CheckSubscription(nil))
	require.NoError(t, CheckSubscription([]string{"*", "carillon.delivery.*", "order.shipped", "order.*"}))

	err := CheckSubscription([]string{"order.*", "Order", "order.*.x", "order.*", ".*", "*.*", "**"})
	var e *problem.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, problem.Invalid, e.Code)
	var paths []string
	for _, f := range e.Fields {
		paths = append(paths, f.Path)
	}
	require.Equal(t, []string{"event_types[1]", "event_types[2]", "event_types[3]", "event_types[4]", "event_types[5]", "event_types[6]"}, paths)

	require.ErrorContains(t, CheckSubscription(make([]string, MaxSubscription+1)), "101 types")
}

func TestSigningKeys(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_700_000_000, 0)
	key := func(n byte) []byte { return slices.Repeat([]byte{n}, MinSecret) }
	e := Endpoint{Secrets: []Secret{
		{Key: key(1)},
		{Key: key(2), ExpiresAt: now}, // the instant of expiry is too late
		{Key: key(3), ExpiresAt: now.Add(time.Second)},
		{},
		{Key: key(4), ExpiresAt: now.Add(time.Hour)},
		{Key: key(5), ExpiresAt: now.Add(time.Hour)},
	}}
	require.Equal(t, [][]byte{key(1), key(3), key(4)}, e.SigningKeys(now))
	require.Equal(t, [][]byte{key(1), key(4), key(5)}, e.SigningKeys(now.Add(time.Minute)))
	require.Equal(t, [][]byte{key(1)}, e.SigningKeys(now.Add(time.Hour)))
	require.Empty(t, Endpoint{}.SigningKeys(now))
}

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

func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	key, shown := NewSecret()
	e := Endpoint{ID: 1 << 30, User: "user-77", Secrets: []Secret{{Key: key}}}
	out, err := json.Marshal(e)
	require.NoError(t, err)
	secret, err := json.Marshal(e.Secrets[0])
	require.NoError(t, err)
	for _, s := range []string{string(out), string(secret), fmt.Sprintf("%v %+v %#v %s", e, e, e, e), fmt.Sprintf("%v %+v %#v %v", e.Secrets, e.Secrets, e.Secrets[0], &e)} {
		require.NotContains(t, s, shown[6:])
		require.NotContains(t, s, fmt.Sprint(key)[1:20])
	}
	require.NotContains(t, fmt.Sprintf("%v %#v", e, e), "user-77")
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
