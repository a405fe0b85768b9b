package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carillonhq/carillon/simulator"
)

// expected is a delivery of the story and how it must come out.
type expected struct {
	who, where string // as shown
	target     string // device or endpoint
	state      string
	attempts   int
	note       string
}

// story sets everything up through the API, sends, and checks what came of it.
func (d *demo) story(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	if err := d.tenant(ctx); err != nil {
		return fmt.Errorf("set up the tenant: %w", err)
	}
	cast, err := d.register(ctx)
	if err != nil {
		return fmt.Errorf("register devices: %w", err)
	}
	d.said("\nThree notifications: to alice, to bob, and an event for webhook subscribers.\n")
	all, err := d.send(ctx, cast)
	if err != nil {
		return err
	}
	if err := d.check(ctx, cast, all); err != nil {
		return err
	}
	d.bobs = all[cast.dead.target].Notification
	return d.replay(ctx, cast, all)
}

// tenant makes the tenant with a fast retry policy, its key, and credentials.
func (d *demo) tenant(ctx context.Context) error {
	d.said("Server      %s\nSimulator   %s\n", d.api.base, d.sim.FCM().URL)
	fast := map[string]any{"delays_ms": []int{300, 600, 1200}, "floor_ms": 0}
	settings := map[string]any{"retry": map[string]any{"fcm": fast, "apns": fast, "webpush": fast, "webhook": fast}}
	shown, err := json.Marshal(fast)
	if err != nil {
		return err
	}
	d.said("PUT /v1/tenants/demo        retries after 0.3 s, so that nobody waits for the show (by default as the providers ask):\n"+
		"  {\"settings\":{\"retry\":{\"fcm\":%s, ... the same for the others}}}", shown)
	x := d.api
	bare := *x
	bare.tenant = ""
	if err := bare.call(ctx, "PUT", "/v1/tenants/demo", map[string]any{"title": "Demo", "settings": settings}, nil); err != nil {
		return err
	}
	var key struct {
		Secret string `json:"secret"`
	}
	d.said("POST /v1/keys               a key for the tenant's backend")
	if err := x.call(ctx, "POST", "/v1/keys", map[string]any{"name": "demo backend",
		"scopes": []string{"send", "devices", "read", "webhooks", "credentials", "admin"}}, &key); err != nil {
		return err
	}
	x.key, x.tenant = key.Secret, ""
	apns := d.sim.APNs()
	for _, c := range []struct {
		channel string
		input   any
	}{
		{"fcm", map[string]any{"service_account": json.RawMessage(d.sim.FCM().ServiceAccount)}},
		{"apns", map[string]any{"key": string(apns.P8), "key_id": apns.KeyID, "team_id": apns.TeamID, "topics": []string{apns.Topic}}},
		{"webpush", map[string]any{"generate": true, "subject": "mailto:ops@example.com"}},
	} {
		d.said("PUT /v1/apps/default/credentials/%-8s sealed, version 1", c.channel)
		if err := x.call(ctx, "PUT", "/v1/apps/default/credentials/"+c.channel, c.input, nil); err != nil {
			return fmt.Errorf("%s: %w", c.channel, err)
		}
	}
	return d.page.open(ctx, x)
}

// cast is who takes part.
type cast struct {
	list    []*expected
	retired string // device that will be retired
	refused string // FCM token that the simulator refuses until told otherwise
	dead    *expected
}

const demoType = "order.shipped"

// register makes devices of every channel for two users, and an endpoint.
func (d *demo) register(ctx context.Context) (*cast, error) {
	c := &cast{refused: "bobs-tablet"}
	d.sim.SetFault(c.refused, simulator.Fault{Status: 400, Reason: "INVALID_ARGUMENT"})
	var pushKey struct {
		PublicKey string `json:"public_key"`
	}
	if err := d.page.asUser(ctx, "alice", "/v1/me/push-key", &pushKey); err != nil {
		return nil, err
	}
	subscribe := func() (any, error) { return d.sim.Push().NewSubscription(pushKey.PublicKey) }
	apns := d.sim.APNs()
	type device struct {
		expected
		body map[string]any
	}
	devices := []device{
		{expected{who: "alice", where: "Android", state: "sent", attempts: 1}, map[string]any{"channel": "fcm", "token": "alices-phone", "os": "android"}},
		{expected{who: "alice", where: "iPhone", state: "sent", attempts: 1}, map[string]any{"channel": "apns", "token": apns.NewToken(), "environment": "production", "os": "ios"}},
		{expected{who: "alice", where: "browser", state: "sent", attempts: 1}, map[string]any{"channel": "webpush", "os": "web"}},
		{expected{who: "bob", where: "Android", state: "sent", attempts: 3, note: "failed twice with 503, then went through"},
			map[string]any{"channel": "fcm", "token": simulator.Token(simulator.FCM, simulator.Fault{Status: 503, Times: 2}, 1), "os": "android"}},
		{expected{who: "bob", where: "old phone", state: "dropped (gone)", attempts: 1, note: "the app was removed: the device is retired"},
			map[string]any{"channel": "fcm", "token": simulator.Token(simulator.FCM, simulator.Fault{Status: 404, Reason: "UNREGISTERED"}, 2), "os": "android"}},
		{expected{who: "bob", where: "tablet", state: "dead (rejected)", attempts: 1, note: "a dead letter, until it is replayed"},
			map[string]any{"channel": "fcm", "token": c.refused, "os": "android"}},
		{expected{who: "bob", where: "dev build", state: "sent", attempts: 2, note: "the sandbox knew the token, which is remembered"},
			map[string]any{"channel": "apns", "token": apns.NewSandboxToken(), "environment": "auto", "os": "ios"}},
		{expected{who: "bob", where: "browser", state: "sent", attempts: 1}, map[string]any{"channel": "webpush", "os": "web"}},
	}
	for i := range devices {
		x := &devices[i]
		x.body["user"] = x.who
		if x.body["channel"] == "webpush" {
			sub, err := subscribe()
			if err != nil {
				return nil, err
			}
			x.body["subscription"] = sub
		}
		var got struct {
			ID string `json:"id"`
		}
		if err := d.api.call(ctx, "PUT", "/v1/devices", x.body, &got); err != nil {
			return nil, fmt.Errorf("%s's %s: %w", x.who, x.where, err)
		}
		x.target = got.ID
		c.list = append(c.list, &x.expected)
		switch x.where {
		case "old phone":
			c.retired = got.ID
		case "tablet":
			c.dead = &x.expected
		}
	}
	d.said("PUT /v1/devices             8 devices of alice and bob: FCM, APNs, web push")
	return c, d.endpoint(ctx, c)
}

func (d *demo) endpoint(ctx context.Context, c *cast) error {
	var hook struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
	if err := d.api.call(ctx, "POST", "/v1/endpoints", map[string]any{"url": d.sim.Webhook().URL("orders"), "event_types": []string{demoType}}, &hook); err != nil {
		return err
	}
	if err := d.sim.Webhook().SetSecret("orders", hook.Secret); err != nil {
		return err
	}
	d.said("POST /v1/endpoints          a webhook endpoint for %s, which verifies the signature", demoType)
	c.list = append(c.list, &expected{who: "-", where: "orders", target: hook.ID, state: "sent", attempts: 1})
	return nil
}

// send posts the notifications and shows their deliveries until all are final.
func (d *demo) send(ctx context.Context, c *cast) (map[string]deliveryAnswer, error) {
	// Alice first: her devices prove the credentials. Before a credential has
	// worked, no answer is enough to retire a device.
	posts := []map[string]any{
		{"to": map[string]any{"users": []string{"alice"}}, "title": "Your parcel is on its way", "body": "It arrives tomorrow.", "url": "https://example.com/orders/7"},
		{"to": map[string]any{"users": []string{"bob"}}, "title": "Welcome back", "body": "Here is what you missed.", "collapse_key": "welcome"},
		{"type": demoType, "data": map[string]any{"order": 7}},
	}
	live := newLiveTable(d.out, c)
	var ids []string
	for i, p := range posts {
		var a acceptedAnswer
		if err := d.api.call(ctx, "POST", "/v1/notifications", p, &a); err != nil {
			return nil, fmt.Errorf("send a notification: %w", err)
		}
		ids = append(ids, a.ID)
		if i == 0 {
			if _, err := d.watch(ctx, live, ids, 3, false); err != nil {
				return nil, err
			}
		}
	}
	return d.watch(ctx, live, ids, len(c.list), true)
}

// watch shows the deliveries until n of them are final. Where the table cannot be
// redrawn, it is shown at the end only, and only if it ends a chapter.
func (d *demo) watch(ctx context.Context, live *liveTable, ids []string, n int, chapter bool) (map[string]deliveryAnswer, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		all := map[string]deliveryAnswer{}
		done := 0
		for _, id := range ids {
			var list listAnswer[deliveryAnswer]
			if err := d.api.call(ctx, "GET", "/v1/notifications/"+id+"/deliveries?limit=100", nil, &list); err != nil {
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
func (d *demo) check(ctx context.Context, c *cast, all map[string]deliveryAnswer) error {
	var wrong []string
	for _, e := range c.list {
		got, ok := all[e.target]
		state, attempts := stateText(got), 0
		if got.Last != nil {
			attempts = got.Last.Number
		}
		if !ok || state != e.state || attempts != e.attempts {
			wrong = append(wrong, fmt.Sprintf("%s's %s should be %s after %d attempts, but is %s after %d", e.who, e.where, e.state, e.attempts, first(state, "missing"), attempts))
		}
	}
	var device struct {
		Status string `json:"status"`
		Reason string `json:"reason"`
	}
	if err := d.api.call(ctx, "GET", "/v1/devices/"+c.retired, nil, &device); err != nil {
		return err
	}
	if device.Status != "retired" {
		wrong = append(wrong, "bob's old phone should be retired, but is "+device.Status)
	}
	d.said("\nGET /v1/devices/%s   status %s, reason %s", c.retired, device.Status, device.Reason)
	if len(wrong) > 0 {
		return errors.New("not everything came out as said:\n  - " + strings.Join(wrong, "\n  - "))
	}
	return nil
}

// replay makes the simulator take the dead letter, and sends it again.
func (d *demo) replay(ctx context.Context, c *cast, all map[string]deliveryAnswer) error {
	id := all[c.dead.target].ID
	d.sim.ClearFault(c.refused)
	d.said("The simulator now takes messages for bob's tablet.\nPOST /v1/deliveries/%s/replay", id)
	if err := d.api.call(ctx, "POST", "/v1/deliveries/"+id+"/replay", nil, nil); err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	c.dead.state, c.dead.attempts, c.dead.note = "sent", 2, "replayed"
	again := &cast{list: []*expected{c.dead}}
	got, err := d.watch(ctx, newLiveTable(d.out, again), []string{all[c.dead.target].Notification}, 5, true)
	if err != nil {
		return err
	}
	if state := stateText(got[c.dead.target]); state != "sent" {
		return fmt.Errorf("the replayed delivery should be sent, but is %s", state)
	}
	return nil
}

func stateText(x deliveryAnswer) string {
	if x.Reason == "" {
		return x.State
	}
	return x.State + " (" + x.Reason + ")"
}
