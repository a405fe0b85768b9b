package main

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestCancelingSaysThatTheNotificationIsCanceled: a scheduled notification has no
// deliveries yet that could be counted, so the answer says it in words of its own.
func TestCancelingSaysThatTheNotificationIsCanceled(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "a-token")
	send := func(more map[string]any) string {
		in := map[string]any{"to": map[string]any{"users": []string{"alice"}}, "title": "Hello"}
		maps.Copy(in, more)
		var n struct{ ID string }
		k.do("POST", "/v1/notifications", in, &n)
		return n.ID
	}
	scheduled := send(map[string]any{"send_at": time.Now().Add(time.Hour)})
	for range 2 { // it may be repeated
		var got map[string]any
		k.do("POST", "/v1/notifications/"+scheduled+"/cancel", nil, &got)
		require.Equal(t, map[string]any{"canceled": 0.0, "notification_canceled": true}, got)
	}
	var n struct{ Canceled, Scheduled bool }
	k.do("GET", "/v1/notifications/"+scheduled, nil, &n)
	require.True(t, n.Canceled)
	require.False(t, n.Scheduled)
}
