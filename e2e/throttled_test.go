package e2e_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// TestOneLimitedDeviceDelaysNobodyElse: a browser's push service and FCM tell one device
// to come back in a day, and do not say that it is meant alone.
func TestOneLimitedDeviceDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	sim, err := simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sim.Close()) })
	b := install(t, sim)
	b.start()
	a := newTenant(t, b)
	key := newVAPIDKey(t)
	key.put(a)
	a.do("PUT", "/v1/apps/default/credentials/fcm", map[string]any{"service_account": json.RawMessage(sim.FCM().ServiceAccount)}, nil)
	browser := func(user string) (endpoint string) {
		sub, err := sim.Push().NewSubscription(key.public)
		require.NoError(t, err)
		a.do("PUT", "/v1/devices", map[string]any{"user": user, "channel": "webpush", "subscription": sub}, nil)
		return sub.Endpoint
	}
	phone := func(user string) {
		a.do("PUT", "/v1/devices", map[string]any{"user": user, "channel": "fcm", "token": user}, nil)
	}
	become := func(state, user string) {
		var sent accepted
		a.sendOnce(map[string]any{"to": map[string]any{"users": []string{user}}, "title": "Hello"}, user, &sent)
		require.Len(t, sent.Deliveries, 2)
		for _, d := range sent.Deliveries {
			eventually(t, func() bool {
				var now struct{ State string }
				a.do("GET", "/v1/deliveries/"+d.ID, nil, &now)
				return now.State == state
			}, user+"'s deliveries become "+state)
		}
	}

	const day = 24 * time.Hour
	sim.SetFault(browser("limited"), simulator.Fault{Status: 429, RetryAfter: day})
	phone("limited")
	sim.SetFault("limited", simulator.Fault{Status: 429, Reason: "SOME_QUOTA", RetryAfter: day})
	become("pending", "limited")
	for i := range 5 {
		user := fmt.Sprint("user-", i)
		browser(user)
		phone(user)
		become("sent", user)
	}
}
