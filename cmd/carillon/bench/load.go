package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/simulator"
)

type call func(ctx context.Context, method, path string, in, out any) error

// registerTargets registers one target of the channel per user and returns the
// bodies to post.
func registerTargets(ctx context.Context, api call, sim *simulator.Simulator, channel string, users int) ([]string, error) {
	var vapid struct {
		Settings struct {
			PublicKey string `json:"public_key"`
		} `json:"settings"`
	}
	apns := sim.APNs()
	credential := map[string]any{
		"fcm":     map[string]any{"service_account": json.RawMessage(sim.FCM().ServiceAccount)},
		"apns":    map[string]any{"key": string(apns.P8), "key_id": apns.KeyID, "team_id": apns.TeamID, "topics": []string{apns.Topic}},
		"webpush": map[string]any{"generate": true, "subject": "mailto:ops@example.com"},
	}[channel]
	if credential != nil {
		if err := api(ctx, "PUT", "/v1/apps/default/credentials/"+channel, credential, &vapid); err != nil {
			return nil, err
		}
	}
	var bodies []string
	for i := range users {
		user := fmt.Sprintf("user-%d", i)
		device := map[string]any{"user": user, "channel": channel}
		switch channel {
		case "fcm":
			device["token"] = fmt.Sprintf("bench-token-%d", i)
		case "apns":
			device["token"], device["environment"] = apns.NewToken(), "production"
		case "webpush":
			sub, err := sim.Push().NewSubscription(vapid.Settings.PublicKey)
			if err != nil {
				return nil, err
			}
			device["subscription"] = sub
		case "webhook":
			if err := api(ctx, "POST", "/v1/endpoints", map[string]any{"url": sim.Webhook().URL(user), "event_types": []string{"*"}, "user": user}, nil); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("there is no channel %q", channel)
		}
		if channel != "webhook" {
			if err := api(ctx, "PUT", "/v1/devices", device, nil); err != nil {
				return nil, err
			}
		}
		bodies = append(bodies, fmt.Sprintf(`{"to":{"users":[%q]},"title":"Your order has shipped","body":"It arrives tomorrow between nine and eleven.","type":"order.shipped","data":{"order":%d}}`, user, i))
	}
	return bodies, nil
}

// load posts until the time is over: closed loop, or at a fixed rate with
// latency counted from when each post was due.
func load(ctx context.Context, s *server, bodies []string, o Options) (r Result, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.Length)
	defer cancel()
	var (
		wg                sync.WaitGroup
		accepted, refused atomic.Int64
		next              atomic.Int64
		mu                sync.Mutex
		took              []time.Duration
	)
	poster := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 1024}}
	began := time.Now()
	for range o.Clients {
		wg.Go(func() {
			var own []time.Duration
			for {
				n := next.Add(1) - 1
				due := time.Now()
				if o.Rate > 0 {
					due = began.Add(time.Duration(float64(n) / o.Rate * float64(time.Second)))
					if !sleepUntil(ctx, due) {
						break
					}
				}
				if ctx.Err() != nil {
					break
				}
				// A post that has begun is answered, so that all is counted.
				if post(context.WithoutCancel(ctx), poster, s, bodies[int(n)%len(bodies)]) {
					accepted.Add(1)
					own = append(own, time.Since(due))
				} else {
					refused.Add(1)
				}
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	r.Posting, r.Accepted, r.Refused = time.Since(began), int(accepted.Load()), int(refused.Load())
	if r.Accepted == 0 {
		return r, errors.New("no notification was accepted")
	}
	r.API = quantiles(took)
	return r, nil
}

// post posts a notification and tells whether it was accepted.
func post(ctx context.Context, poster *http.Client, s *server, body string) bool {
	return postTo(ctx, poster, s, "/v1/notifications", body)
}

func postTo(ctx context.Context, poster *http.Client, s *server, path, body string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(body))
	if err != nil {
		return false
	}
	req.Header.Set("Authorization", "Bearer "+s.key)
	req.Header.Set("Content-Type", "application/json")
	res, err := poster.Do(req)
	if err != nil {
		return false
	}
	var drain [4096]byte
	for {
		if _, err := res.Body.Read(drain[:]); err != nil {
			break
		}
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusAccepted
}

func sleepUntil(ctx context.Context, at time.Time) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
