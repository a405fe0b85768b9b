package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// story sets everything up through the API, sends, and checks what came of it.
func (d *demo) story(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	if err := d.createTenant(ctx); err != nil {
		return fmt.Errorf("set up the tenant: %w", err)
	}
	t, err := d.register(ctx)
	if err != nil {
		return fmt.Errorf("register devices: %w", err)
	}
	if err := d.rotate(ctx); err != nil {
		return fmt.Errorf("rotate the VAPID pair: %w", err)
	}
	d.print("\nThree notifications: to alice, to bob, and an event for webhook subscribers.\n")
	all, err := d.send(ctx, t)
	if err != nil {
		return err
	}
	if err := d.check(ctx, t, all); err != nil {
		return err
	}
	d.bobs = all[t.dead.target].Notification
	if err := d.replay(ctx, t, all); err != nil {
		return err
	}
	return d.restore(ctx, t)
}

// rotate adds a second VAPID pair: what browsers subscribe with from then on.
func (d *demo) rotate(ctx context.Context) error {
	d.print("PUT /v1/apps/default/credentials/webpush  {\"generate\":true,\"rotate\":true}: a second VAPID pair; both browsers are sent to with the first, which is theirs")
	return d.call(ctx, "PUT", "/v1/apps/default/credentials/webpush", map[string]any{"generate": true, "rotate": true, "subject": "mailto:ops@example.com"}, nil)
}

// createTenant makes the tenant with a fast retry policy, its key, and credentials.
func (d *demo) createTenant(ctx context.Context) error {
	d.print("Server      %s\nSimulator   %s\n", d.server.URL, d.sim.FCM().URL)
	fast := map[string]any{"delays_ms": []int{300, 600, 1200}, "floor_ms": 0}
	settings := map[string]any{"retry": map[string]any{"fcm": fast, "apns": fast, "webpush": fast, "webhook": fast}}
	shown, err := json.Marshal(fast)
	if err != nil {
		return err
	}
	d.print("PUT /v1/tenants/demo        retries after 0.3 s, so that nobody waits for the show (by default as the providers ask):\n"+
		"  {\"settings\":{\"retry\":{\"fcm\":%s, ... the same for the others}}}", shown)
	operator := d.Client(d.server.URL, d.server.OperatorKey, "")
	if err := operator(ctx, "PUT", "/v1/tenants/demo", map[string]any{"title": "Demo", "settings": settings}, nil); err != nil {
		return err
	}
	var key struct {
		Secret string `json:"secret"`
	}
	d.print("POST /v1/keys               a key for the tenant's backend")
	operator = d.Client(d.server.URL, d.server.OperatorKey, "demo")
	if err := operator(ctx, "POST", "/v1/keys", map[string]any{"name": "demo backend",
		"scopes": []string{"send", "devices", "read", "webhooks", "credentials", "admin"}}, &key); err != nil {
		return err
	}
	d.tenantKey, d.call = key.Secret, d.Client(d.server.URL, key.Secret, "")
	apns := d.sim.APNs()
	for _, c := range []struct {
		channel string
		input   any
	}{
		{"fcm", map[string]any{"service_account": json.RawMessage(d.sim.FCM().ServiceAccount)}},
		{"apns", map[string]any{"key": string(apns.P8), "key_id": apns.KeyID, "team_id": apns.TeamID, "topics": []string{apns.Topic}}},
		{"webpush", map[string]any{"generate": true, "subject": "mailto:ops@example.com"}},
	} {
		d.print("PUT /v1/apps/default/credentials/%-8s sealed, version 1", c.channel)
		if err := d.call(ctx, "PUT", "/v1/apps/default/credentials/"+c.channel, c.input, nil); err != nil {
			return fmt.Errorf("%s: %w", c.channel, err)
		}
	}
	withKey := func(key string) Call { return d.Client(d.server.URL, key, "") }
	return d.page.connect(ctx, d.call, withKey)
}

// send posts the notifications and shows their deliveries until all are final.
func (d *demo) send(ctx context.Context, t *targets) (map[string]delivery, error) {
	// Alice first: her devices prove the credentials. Before a credential has
	// worked, no answer is enough to retire a device.
	posts := []map[string]any{
		{"to": map[string]any{"users": []string{"alice"}}, "title": "Your parcel is on its way", "body": "It arrives tomorrow.", "url": "https://example.com/orders/7"},
		{"to": map[string]any{"users": []string{"bob"}}, "title": "Welcome back", "body": "Here is what you missed.", "collapse_key": "welcome"},
		{"type": eventType, "data": map[string]any{"order": 7}},
	}
	live := d.newLiveTable(t)
	var ids []string
	for i, p := range posts {
		var accepted struct {
			ID string `json:"id"`
		}
		if err := d.call(ctx, "POST", "/v1/notifications", p, &accepted); err != nil {
			return nil, fmt.Errorf("send a notification: %w", err)
		}
		ids = append(ids, accepted.ID)
		if i == 0 {
			if _, err := d.watch(ctx, live, ids, 3, false); err != nil {
				return nil, err
			}
		}
	}
	return d.watch(ctx, live, ids, len(t.list), true)
}

// watch shows the deliveries until n of them are final. Where the table cannot be
// redrawn, it is shown at the end only, and only if it ends a chapter.
func (d *demo) watch(ctx context.Context, live *liveTable, ids []string, n int, chapter bool) (map[string]delivery, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all := map[string]delivery{}
		done := 0
		for _, id := range ids {
			var list struct {
				Data []delivery `json:"data"`
			}
			if err := d.call(ctx, "GET", "/v1/notifications/"+id+"/deliveries?limit=100", nil, &list); err != nil {
				return nil, err
			}
			for _, x := range list.Data {
				all[x.Target] = x
				if x.final() {
					done++
				}
			}
		}
		last := done >= n
		live.show(all, last && chapter)
		if last {
			return all, nil
		}
		select {
		case <-ctx.Done():
			live.show(all, true)
			return nil, errors.New("the deliveries did not come to their ends in time")
		case <-tick.C:
		}
	}
}

// check compares what came out with what was said.
func (d *demo) check(ctx context.Context, t *targets, all map[string]delivery) error {
	var wrong []string
	for _, e := range t.list {
		got, ok := all[e.target]
		state, attempts := got.outcome(), 0
		if got.Last != nil {
			attempts = got.Last.Number
		}
		if !ok || state != e.state || attempts != e.attempts {
			wrong = append(wrong, fmt.Sprintf("%s's %s should be %s after %d attempts, but is %s after %d", e.who, e.where, e.state, e.attempts, cmp.Or(state, "missing"), attempts))
		}
	}
	var device struct {
		Status string `json:"status"`
		Reason string `json:"reason"`
	}
	if err := d.call(ctx, "GET", "/v1/devices/"+t.retired, nil, &device); err != nil {
		return err
	}
	if device.Status != "retired" {
		wrong = append(wrong, "bob's old phone should be retired, but is "+device.Status)
	}
	d.print("\nGET /v1/devices/%s   status %s, reason %s", t.retired, device.Status, device.Reason)
	if len(wrong) > 0 {
		return errors.New("not everything came out as said:\n  - " + strings.Join(wrong, "\n  - "))
	}
	return nil
}

// replay makes the simulator take the dead letter, and sends it again.
func (d *demo) replay(ctx context.Context, t *targets, all map[string]delivery) error {
	id := all[t.dead.target].ID
	d.sim.ClearFault(t.refused)
	d.print("The simulator now takes messages for bob's tablet.\nPOST /v1/deliveries/%s/replay", id)
	if err := d.call(ctx, "POST", "/v1/deliveries/"+id+"/replay", nil, nil); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	t.dead.state, t.dead.attempts, t.dead.note = "sent", 2, "replayed"
	again := &targets{list: []*expected{t.dead}}
	got, err := d.watch(ctx, d.newLiveTable(again), []string{all[t.dead.target].Notification}, 5, true)
	if err != nil {
		return err
	}
	if state := got[t.dead.target].outcome(); state != "sent" {
		return fmt.Errorf("the replayed delivery should be sent, but is %s", state)
	}
	return nil
}

// restore takes the retirement of bob's old phone back, as after a mistake.
func (d *demo) restore(ctx context.Context, t *targets) error {
	order := map[string]any{"filter": map[string]any{"reason": "fcm.unregistered"}}
	d.print("Was that a mistake? What a verdict has retired can be taken back.\nPOST /v1/devices/restore    {\"filter\":{\"reason\":\"fcm.unregistered\"}}")
	var job struct{ ID string }
	if err := d.call(ctx, "POST", "/v1/devices/restore", order, &job); err != nil {
		return fmt.Errorf("restore devices: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var device struct{ Status string }
		if err := d.call(ctx, "GET", "/v1/devices/"+t.retired, nil, &device); err != nil {
			return err
		}
		if device.Status == "active" {
			break
		}
		select {
		case <-ctx.Done():
			return errors.New("the device was not restored in time")
		case <-tick.C:
		}
	}
	var history struct {
		Data []struct{ Event, Reason, Actor string }
	}
	if err := d.call(ctx, "GET", "/v1/devices/"+t.retired+"/history", nil, &history); err != nil {
		return err
	}
	d.print("GET /v1/devices/%s/history", t.retired)
	for _, e := range history.Data {
		d.print("  %-10s  %-16s  %s", e.Event, e.Reason, e.Actor)
	}
	return nil
}

// delivery is what the demo shows of the API's answer.
type delivery struct {
	ID           string `json:"id"`
	Notification string `json:"notification"`
	Target       string `json:"target"`
	Channel      string `json:"channel"`
	State        string `json:"state"`
	Reason       string `json:"reason"`
	Last         *struct {
		Number     int    `json:"number"`
		DurationMS int64  `json:"duration_ms"`
		ProviderID string `json:"provider_id"`
	} `json:"last"`
}

// final tells whether it has come to its end.
func (x delivery) final() bool { return x.State == "sent" || x.State == "dropped" || x.State == "dead" }

// outcome is its state, with the reason for it.
func (x delivery) outcome() string {
	if x.Reason == "" {
		return x.State
	}
	return x.State + " (" + x.Reason + ")"
}
