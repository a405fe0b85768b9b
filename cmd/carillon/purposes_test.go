package main

import (
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// TestEveryTokenOfAPhoneGetsWhatItIsFor runs the whole program against APNs as the
// simulator plays it, where a token takes only what is sent to its own topic.
func TestEveryTokenOfAPhoneGetsWhatItIsFor(t *testing.T) {
	t.Parallel()
	k := startServer(t)
	tokens := map[string]string{}
	put := func(name, pushType string, more map[string]any) {
		tokens[name] = k.sim.APNs().NewTokenFor(pushType)
		body := map[string]any{"user": "alice", "channel": "apns", "token": tokens[name], "environment": "production", "installation_id": "phone"}
		maps.Copy(body, more)
		k.do("PUT", "/v1/devices", body, nil)
	}
	put("alert", "alert", nil)
	put("call", "voip", map[string]any{"purpose": "voip"})
	put("start", "liveactivity", map[string]any{"purpose": "push_to_start"})
	put("order", "liveactivity", map[string]any{"purpose": "activity", "activity_id": "order"})
	put("match", "liveactivity", map[string]any{"purpose": "activity", "activity_id": "match", "expires_at": time.Now().Add(time.Hour)})
	put("widget", "widgets", map[string]any{"purpose": "widget"})

	live := func(event string) map[string]any {
		return map[string]any{"push_type": "liveactivity", "aps": map[string]any{"event": event, "timestamp": 1, "content-state": map[string]any{}}}
	}
	for _, x := range []struct {
		override map[string]any
		activity string
		reached  []string
	}{
		{nil, "", []string{"alert"}},
		{map[string]any{"push_type": "voip"}, "", []string{"call"}},
		{live("start"), "", []string{"start"}},
		{live("update"), "", []string{"order", "match"}},
		{live("end"), "match", []string{"match"}},
		{map[string]any{"push_type": "widgets", "aps": map[string]any{"content-changed": true}}, "", []string{"widget"}},
	} {
		body := map[string]any{"to": map[string]any{"users": []string{"alice"}, "activity_id": x.activity}, "title": "Hello"}
		if x.override != nil {
			body["overrides"] = map[string]any{"apns": x.override}
		}
		before := map[string]int{}
		for name, token := range tokens {
			before[name] = len(k.sim.Arrivals(simulator.Filter{Target: token}))
		}
		var got struct {
			Deliveries []struct{ ID string }
		}
		k.do("POST", "/v1/notifications", body, &got)
		require.Len(t, got.Deliveries, len(x.reached), "%v", x)
		for _, d := range got.Deliveries {
			var v struct{ State, Reason string }
			eventually(t, func() bool { k.do("GET", "/v1/deliveries/"+d.ID, nil, &v); return v.State == "sent" }, "%v get it", x.reached)
		}
		for name, token := range tokens {
			want := before[name]
			for _, reached := range x.reached {
				if reached == name {
					want++
				}
			}
			require.Len(t, k.sim.Arrivals(simulator.Filter{Target: token}), want, "%s by %v", name, x)
		}
	}
	var list listAnswer[struct {
		Purpose, Status string
		ActivityID      string `json:"activity_id"`
	}]
	k.do("GET", "/v1/devices?user=alice", nil, &list)
	require.Len(t, list.Data, len(tokens), "no token has taken another's place")
	for _, d := range list.Data {
		require.Equal(t, "active", d.Status)
	}
	require.Regexp(t, `(?m)^dev_\w+ +alice +default +apns +voip +active`, k.must("devices", "list"))
}
