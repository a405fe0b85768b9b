package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// TestOneRefusedDeviceCostsNobodyElse: one subscription that its push service refuses,
// and one token that FCM knows nothing of, beside others at the same providers.
func TestOneRefusedDeviceCostsNobodyElse(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	for i := range 6 {
		b, err := k.sim.Push().NewSubscription(k.pushKey)
		require.NoError(t, err)
		endpoint := b.Endpoint
		if i == 0 {
			endpoint += "/sim-401"
		}
		k.do("PUT", "/v1/devices", map[string]any{"user": fmt.Sprint("browser-", i), "subscription": map[string]any{"endpoint": endpoint,
			"keys": map[string]any{"p256dh": b.Keys.P256dh, "auth": b.Keys.Auth}}}, nil)
	}
	k.phone("odd", "odds-phone")
	k.phone("alice", "alices-phone")
	k.sim.SetFault("odds-phone", simulator.Fault{Status: 403, Reason: "PERMISSION_DENIED"})
	k.must("send", "--user", "browser-0", "--title", "Hello")
	k.must("send", "--user", "odd", "--title", "Hello")
	eventually(t, func() bool {
		doubted := 0
		for _, d := range k.deliveries() {
			if d.Reason == "in_doubt" {
				doubted++
			}
		}
		return doubted == 2
	}, "both are in doubt")
	for i := range 5 {
		require.Contains(t, k.must("send", "--user", fmt.Sprint("browser-", i+1), "--title", "Hello", "--wait", "20s"), "sent")
	}
	require.Contains(t, k.must("send", "--user", "alice", "--title", "Hello", "--wait", "20s"), "sent")
	require.NotContains(t, k.must("holds"), "credential_denied")
	require.Regexp(t, `(?m)refusal`, k.must("holds"))
}

// TestARevokedAccountIsNoticedAtOnce: with a single device, because FCM is asked.
func TestARevokedAccountIsNoticedAtOnce(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	k.phone("alice", "alices-phone")
	k.sim.SetFault("fcm", simulator.Fault{Status: 403, Reason: "PERMISSION_DENIED"})
	k.must("send", "--user", "alice", "--title", "Hello")
	eventually(t, func() bool {
		list := k.deliveries()
		return len(list) == 1 && list[0].Reason == "credential_denied"
	}, "the credential is held")
	require.Contains(t, k.must("holds"), "credential_denied")
}
