package webhooks

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
