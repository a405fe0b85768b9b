package channels_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
)

func TestKindsAreReadBack(t *testing.T) {
	t.Parallel()
	for _, k := range channels.Kinds() {
		got, ok := channels.ParseKind(k.String())
		require.True(t, ok)
		require.Equal(t, k, got)
		text, err := json.Marshal(map[channels.Kind]channels.Kind{k: k})
		require.NoError(t, err)
		var back map[channels.Kind]channels.Kind
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, map[channels.Kind]channels.Kind{k: k}, back)
	}
	for _, bad := range []string{"", "FCM", "sms"} {
		_, ok := channels.ParseKind(bad)
		require.False(t, ok, bad)
		var k channels.Kind
		require.ErrorContains(t, k.UnmarshalText([]byte(bad)), "use fcm, apns, webpush or webhook")
	}
	require.Equal(t, "channel(0)", channels.Kind(0).String())
	require.Equal(t, "channel(9)", channels.Kind(9).String())
	require.Equal(t, "outcome(0)", channels.Outcome(0).String())
	require.Equal(t, "outcome(9)", channels.Outcome(9).String())
}

// TestNothingSecretIsPrinted: whatever verb prints it.
func TestNothingSecretIsPrinted(t *testing.T) {
	t.Parallel()
	const secret = "do-not-print-me"
	for _, v := range []any{
		channels.Credential{ID: 7, Version: 2, Secret: []byte(secret), Settings: []byte(secret)},
		channels.Target{Kind: channels.FCMToken, Address: secret, Auth: []byte(secret), P256dh: []byte(secret), Secrets: [][]byte{[]byte(secret)}},
	} {
		var logged strings.Builder
		slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "v", v)
		for _, text := range []string{fmt.Sprint(v), fmt.Sprintf("%v %+v %s %q", v, v, v, v), fmt.Sprintf("%#v", v), logged.String()} {
			require.NotContains(t, text, secret)
			require.NotContains(t, text, fmt.Sprint([]byte(secret)))
		}
	}
}

func TestRemainingLife(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for left, want := range map[time.Duration]time.Duration{
		time.Hour: time.Hour, 1999 * time.Millisecond: time.Second, 999 * time.Millisecond: 0, 0: 0, -time.Hour: 0,
	} {
		require.Equal(t, want, channels.Life{ExpiresAt: now.Add(left)}.Remaining(now))
	}
}
