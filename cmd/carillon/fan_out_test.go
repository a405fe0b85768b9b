package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSendToMany: a user with more devices than a notification stores at once is reached
// on all of them, and whoever waits is told how they end.
func TestSendToMany(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	const n = 1005
	for from := 0; from < n; from += 1000 {
		var list []map[string]string
		for i := from; i < min(from+1000, n); i++ {
			list = append(list, map[string]string{"user": "kiosk", "channel": "fcm", "token": fmt.Sprint("token-", i)})
		}
		k.do("POST", "/v1/devices/batch", map[string]any{"devices": list}, nil)
	}
	code, out, errs := k.command("send", "--user", "kiosk", "--title", "hello", "--wait", "2m")
	require.Equal(t, exitOK, code, "%s%s", out, errs)
	require.Contains(t, out, "it leads to more than 1,000 deliveries, which are stored in parts")
	require.Contains(t, out, fmt.Sprintf("sent     %d", n))

	code, out, _ = k.command("send", "--user", "kiosk", "--title", "hello", "--dry-run")
	require.Equal(t, exitOK, code)
	require.Contains(t, out, `"fans_out": true`)
	var got acceptedAnswer
	k.do("POST", "/v1/notifications", map[string]any{"to": map[string]any{"users": []string{"kiosk"}}, "title": "hello"}, &got)
	require.True(t, got.FansOut)
	require.Empty(t, got.Deliveries)
	var view struct {
		FansOut   bool `json:"fans_out"`
		Scheduled bool `json:"scheduled"`
	}
	k.do("GET", "/v1/notifications/"+got.ID, nil, &view)
	require.False(t, view.Scheduled)
}
