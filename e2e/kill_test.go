package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
	"github.com/carillonhq/carillon/store"
)

// rounds of load and SIGKILL.
const rounds = 20

// TestKill is the promise put to the test: the real program under load from its
// API is killed at random moments, again and again, and started on what it left.
// In the end every notification that was answered with 202 has come to its end,
// every one that could be delivered has reached the provider, duplicates are only
// among those that are flagged as possibly sent twice, and the database is sound.
func TestKill(t *testing.T) {
	t.Parallel()
	sim, err := simulator.Start(simulator.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sim.Close() })
	b := install(t, sim)
	b.run("tenant", "create", "acme")
	key := b.run("key", "create", "--tenant", "acme", "--scopes", "admin,send,read,devices,webhooks,credentials")
	b.start()
	targets := prepareKill(t, b, sim, key)

	var (
		mu       sync.Mutex
		accepted []acceptedKill
	)
	for range rounds {
		if b.cmd == nil {
			b.start()
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		enough := make(chan struct{}) // a random number of answers later the kill comes
		want := 1 + rand.IntN(150)
		got := 0
		for worker := range 8 {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					var a acceptedKill
					body := fmt.Sprintf(`{"to":{"users":["user-%d"]},"title":"n","type":"order.shipped","channels":["fcm","apns","webpush","webhook"]}`, (worker+n)%len(targets))
					status, err := call(ctx, "POST", b.url+"/v1/notifications", key, strings.NewReader(body), &a)
					if err != nil || status != 202 {
						continue
					}
					mu.Lock()
					accepted = append(accepted, a)
					if got++; got == want {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(30 * time.Second):
			t.Errorf("only %d of %d notifications were accepted:\n%s", got, want, b.log.tail())
		}
		b.kill()
		cancel()
		wg.Wait()
	}
	require.NotEmpty(t, accepted)
	b.start()
	states := drain(t, b, key)
	judge(t, b, sim, accepted, states)
}

type acceptedKill struct {
	ID         string `json:"id"`
	Deliveries []struct {
		ID      string `json:"id"`
		Channel string `json:"channel"`
		Target  string `json:"target"`
	} `json:"deliveries"`
}

type stateKill struct {
	ID      string `json:"id"`
	Channel string `json:"channel"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
	Unknown bool   `json:"unknown"`
}

// prepareKill makes users with a device of every channel, some of which fail
// twice first, and an endpoint. The retry policy is fast, so that the test is.
func prepareKill(t *testing.T, b *binary, sim *simulator.Simulator, key string) []string {
	t.Helper()
	ctx := context.Background()
	do := func(method, path string, in, out any) {
		t.Helper()
		raw, err := json.Marshal(in)
		require.NoError(t, err)
		_, err = call(ctx, method, b.url+path, key, strings.NewReader(string(raw)), out)
		require.NoError(t, err)
	}
	fast := map[string]any{"delays_ms": []int{20, 40, 80, 200, 500, 1000, 1000, 1000, 1000}, "floor_ms": 0}
	do("PUT", "/v1/tenant", map[string]any{"settings": map[string]any{"retry": map[string]any{"fcm": fast, "apns": fast, "webpush": fast, "webhook": fast}}}, nil)
	do("PUT", "/v1/apps/default/credentials/fcm", map[string]any{"service_account": json.RawMessage(sim.FCM().ServiceAccount)}, nil)
	apns := sim.APNs()
	do("PUT", "/v1/apps/default/credentials/apns", map[string]any{"key": string(apns.P8), "key_id": apns.KeyID, "team_id": apns.TeamID, "topics": []string{apns.Topic}}, nil)
	var vapid struct {
		Settings struct {
			PublicKey string `json:"public_key"`
		} `json:"settings"`
	}
	do("PUT", "/v1/apps/default/credentials/webpush", map[string]any{"generate": true, "subject": "mailto:ops@example.com"}, &vapid)
	require.NotEmpty(t, vapid.Settings.PublicKey)
	var users []string
	for i := range 6 {
		user := fmt.Sprintf("user-%d", i)
		users = append(users, user)
		token := fmt.Sprintf("phone-%d", i)
		if i%2 == 1 {
			token = simulator.Token(simulator.FCM, simulator.Fault{Status: 503, Times: 3}, i)
		}
		do("PUT", "/v1/devices", map[string]any{"user": user, "channel": "fcm", "token": token}, nil)
		do("PUT", "/v1/devices", map[string]any{"user": user, "channel": "apns", "token": apns.NewToken(), "environment": "production"}, nil)
		sub, err := sim.Push().NewSubscription(vapid.Settings.PublicKey)
		require.NoError(t, err)
		do("PUT", "/v1/devices", map[string]any{"user": user, "channel": "webpush", "subscription": sub}, nil)
	}
	do("POST", "/v1/endpoints", map[string]any{"url": sim.Webhook().URL("kill"), "event_types": []string{"order.shipped"}}, nil)
	return users
}

// drain waits until nothing is unfinished, and reads how everything came out.
func drain(t *testing.T, b *binary, key string) map[string]stateKill {
	t.Helper()
	type page struct {
		Data       []stateKill `json:"data"`
		NextCursor string      `json:"next_cursor"`
	}
	for _, state := range []string{"pending", "sending", "held"} {
		require.Eventually(t, func() bool {
			var list page
			_, err := call(context.Background(), "GET", b.url+"/v1/deliveries?limit=1&state="+state, key, nil, &list)
			return err == nil && len(list.Data) == 0
		}, 60*time.Second, 20*time.Millisecond, "deliveries stay %s\n%s", state, b.log.tail())
	}
	states := map[string]stateKill{}
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

// judge compares what was promised with what the providers saw.
func judge(t *testing.T, b *binary, sim *simulator.Simulator, accepted []acceptedKill, states map[string]stateKill) {
	t.Helper()
	deliveries, twice, unknown := 0, 0, 0
	for _, a := range accepted {
		require.Len(t, a.Deliveries, 4)
		for _, d := range a.Deliveries {
			deliveries++
			s := states[d.ID]
			require.Contains(t, []string{"sent", "dead"}, s.State, "%+v", s)
			if s.State == "dead" {
				require.NotEmpty(t, s.Reason)
			}
			seen := seenBy(sim, d.Channel, d.ID, a.ID)
			if s.State == "sent" {
				require.Positive(t, seen, "%s is sent, but the %s provider never took it", d.ID, d.Channel)
			}
			if s.Unknown {
				unknown++
			}
			if seen > 1 {
				twice++
				require.True(t, s.Unknown, "%s reached the %s provider %d times and is not flagged", d.ID, d.Channel, seen)
			}
		}
	}
	t.Logf("%d kills: %d notifications accepted, %d deliveries, 0 lost, %d taken over, %d of those sent twice", rounds, len(accepted), deliveries, unknown, twice)
	b.kill()
	ring, err := store.ReadKeyRing(filepath.Join(b.dir, "keyring"))
	require.NoError(t, err)
	s, err := store.Open(context.Background(), store.Options{URL: filepath.Join(b.dir, "c.db"), KeyRing: ring})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	broken, err := s.Check(context.Background(), true)
	require.NoError(t, err)
	require.Empty(t, broken)
	n, err := s.Unfinished(context.Background(), 1000)
	require.NoError(t, err)
	require.Zero(t, n, "what was stored but never answered has come to its end as well")
}

// seenBy counts how often the provider accepted a delivery. The webhook receiver
// is told the notification: it is what a receiver removes duplicates by.
func seenBy(sim *simulator.Simulator, channel, id, notification string) int {
	if ch := simulator.Channel(channel); ch != simulator.Webhook {
		return sim.Accepted(ch, "", id)
	}
	return sim.Accepted(simulator.Webhook, "kill", notification)
}
