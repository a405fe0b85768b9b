package e2e_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// TestReplayOutlivesKills: a receiver was down, all that it missed is replayed by
// a job, and the server is killed while that runs, again and again. In the end
// each letter was replayed exactly once: none has a third round, none was left.
func TestReplayOutlivesKills(t *testing.T) {
	t.Parallel()
	const letters, kills = 150, 4
	sim, err := simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sim.Close() })
	b := install(t, sim)
	b.start()
	a := newTenant(t, b)
	once := map[string]any{"delays_ms": []int{1}, "floor_ms": 0}
	a.do("PUT", "/v1/tenant", map[string]any{"settings": map[string]any{"retry": map[string]any{"webhook": once}}}, nil)
	a.do("POST", "/v1/endpoints", map[string]any{"url": sim.Webhook().URL("shop"), "event_types": []string{"order.shipped"}}, nil)

	sim.SetFault("shop", simulator.Fault{Status: 503})
	list := make([]map[string]any, letters)
	for i := range list {
		list[i] = map[string]any{"type": "order.shipped", "data": map[string]any{"order": i}}
	}
	a.do("POST", "/v1/notifications/batch", map[string]any{"notifications": list}, nil)
	order := map[string]any{"filter": map[string]any{"reason": "exhausted", "channel": "webhook", "type": "order.shipped"}, "per_second": 40}
	eventually(t, func() bool {
		var p struct{ Matching int }
		a.do("POST", "/v1/dead-letters/replay", map[string]any{"filter": order["filter"], "dry_run": true}, &p)
		return p.Matching == letters
	}, "all are dead")
	sim.ClearFault("shop")

	var job struct {
		ID, State                    string
		Total, Done, Skipped, Failed int
		Result                       json.RawMessage
	}
	a.do("POST", "/v1/dead-letters/replay", order, &job)
	require.Equal(t, letters, job.Total)
	look := func() { a.do("GET", "/v1/jobs/"+job.ID, nil, &job) }
	for range kills {
		until := job.Done + 1 + rand.IntN(40)
		eventually(t, func() bool { look(); return job.Done >= until || job.State == "done" }, "the job moves")
		b.kill()
		b.start()
		a.url = b.url
	}
	eventually(t, func() bool { look(); return job.State == "done" }, "the job is done")
	require.Equal(t, []int{letters, 0, 0}, []int{job.Done, job.Skipped, job.Failed}, "%s", job.Result)

	states := drain(t, b, a.key)
	require.Len(t, states, letters)
	unknown := 0
	for id, s := range states {
		var d struct {
			Notification string
			Round        int
		}
		_, err := call(context.Background(), "GET", b.url+"/v1/deliveries/"+id, a.key, nil, &d)
		require.NoError(t, err)
		require.Equal(t, 2, d.Round)
		require.Equal(t, "sent", s.State)
		seen := sim.Accepted(simulator.Webhook, "shop", d.Notification)
		require.Positive(t, seen)
		require.True(t, seen == 1 || s.Unknown, "%s arrived %d times and is not flagged", id, seen)
		if s.Unknown {
			unknown++
		}
	}
	t.Logf("%d kills: %d letters replayed once each, %d were in hand at a kill", kills, letters, unknown)
}

// outcome is a part of what the API shows of a delivery.
type outcome struct {
	ID      string `json:"id"`
	State   string `json:"state"`
	Unknown bool   `json:"unknown"`
}

// drain waits until nothing is unfinished, and reads how everything came out.
func drain(t *testing.T, b *binary, key string) map[string]outcome {
	t.Helper()
	type page struct {
		Data       []outcome `json:"data"`
		NextCursor string    `json:"next_cursor"`
	}
	for _, state := range []string{"pending", "sending", "held"} {
		require.Eventually(t, func() bool {
			var list page
			_, err := call(context.Background(), "GET", b.url+"/v1/deliveries?limit=1&state="+state, key, nil, &list)
			return err == nil && len(list.Data) == 0
		}, 60*time.Second, 20*time.Millisecond, "deliveries stay %s\n%s", state, b.log.tail())
	}
	states := map[string]outcome{}
	for cursor := ""; ; {
		var list page
		_, err := call(context.Background(), "GET", b.url+"/v1/deliveries?limit=200&cursor="+cursor, key, nil, &list)
		require.NoError(t, err)
		for _, d := range list.Data {
			states[d.ID] = d
		}
		if cursor = list.NextCursor; cursor == "" {
			return states
		}
	}
}
