package main

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// TestAWrongAPNsEnvironmentRetiresNothing runs the whole program against APNs as
// the simulator plays it: development builds registered as production ones, which
// is what a team does by mistake. Every token looks dead, and none is thrown away.
func TestAWrongAPNsEnvironmentRetiresNothing(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	const phones, sends = 15, 2
	put := func(i int, token string) {
		k.do("PUT", "/v1/devices", map[string]any{"user": fmt.Sprint("user-", i), "channel": "apns", "token": token,
			"environment": "production", "installation_id": fmt.Sprint("phone-", i)}, nil)
	}
	for i := range phones {
		put(i, k.sim.APNs().NewSandboxToken())
	}
	for range sends {
		for i := range phones {
			k.do("POST", "/v1/notifications", map[string]any{"to": map[string]any{"users": []string{fmt.Sprint("user-", i)}}, "title": "Hello"}, nil)
		}
	}
	count := func(path string) (n int) {
		var list listAnswer[struct{}]
		k.do("GET", path+"&limit=200", nil, &list)
		return len(list.Data)
	}
	eventually(t, func() bool { return count("/v1/deliveries?state=held&reason=in_doubt") == phones*sends }, "all are held in doubt")
	require.Equal(t, phones, count("/v1/devices?status=suspect"))
	require.Zero(t, count("/v1/devices?status=retired"))
	require.Zero(t, k.sim.Report().Channels[simulator.APNs].Accepted)

	// The apps register again as what they are: the next sends go through, and
	// nothing had to be restored by hand.
	for i := range phones {
		k.do("PUT", "/v1/devices", map[string]any{"user": fmt.Sprint("user-", i), "channel": "apns", "token": k.sim.APNs().NewSandboxToken(),
			"environment": "auto", "installation_id": fmt.Sprint("phone-", i)}, nil)
	}
	k.do("POST", "/v1/notifications", map[string]any{"to": map[string]any{"users": []string{"user-0"}}, "title": "Again"}, nil)
	eventually(t, func() bool { return count("/v1/deliveries?state=sent") >= 1 }, "a send goes through")
	require.Zero(t, count("/v1/devices?status=retired"))
}
