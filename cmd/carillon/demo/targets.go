package demo

import (
	"context"
	"fmt"

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

// targets are all that the story sends to.
type targets struct {
	list    []*expected
	retired string // device that will be retired
	refused string // FCM token that the simulator refuses until told otherwise
	dead    *expected
}

const eventType = "order.shipped"

// register makes devices of every channel for two users, and an endpoint.
func (d *demo) register(ctx context.Context) (*targets, error) {
	t := &targets{refused: "bobs-tablet"}
	d.sim.SetFault(t.refused, simulator.Fault{Status: 400, Reason: "INVALID_ARGUMENT"})
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
			map[string]any{"channel": "fcm", "token": t.refused, "os": "android"}},
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
		if err := d.call(ctx, "PUT", "/v1/devices", x.body, &got); err != nil {
			return nil, fmt.Errorf("%s's %s: %w", x.who, x.where, err)
		}
		x.target = got.ID
		t.list = append(t.list, &x.expected)
		switch x.where {
		case "old phone":
			t.retired = got.ID
		case "tablet":
			t.dead = &x.expected
		}
	}
	d.print("PUT /v1/devices             8 devices of alice and bob: FCM, APNs, web push")
	return t, d.registerEndpoint(ctx, t)
}

func (d *demo) registerEndpoint(ctx context.Context, t *targets) error {
	var hook struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
	}
	if err := d.call(ctx, "POST", "/v1/endpoints", map[string]any{"url": d.sim.Webhook().URL("orders"), "event_types": []string{eventType}}, &hook); err != nil {
		return err
	}
	if err := d.sim.Webhook().SetSecret("orders", hook.Secret); err != nil {
		return err
	}
	d.print("POST /v1/endpoints          a webhook endpoint for %s, which verifies the signature", eventType)
	t.list = append(t.list, &expected{who: "-", where: "orders", target: hook.ID, state: "sent", attempts: 1})
	return nil
}
