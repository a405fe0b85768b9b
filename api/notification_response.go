package api

import (
	"encoding/json"
	"fmt"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// contentOf shows stored content, which is a delivery.Request, as it was sent.
func contentOf(raw json.RawMessage) (*Content, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var r delivery.Request
	if err := jsonv2.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("stored content: %w", err)
	}
	return &Content{
		To:       To{Users: r.To.Users, Devices: formatIDs(ids.Device, r.To.Devices), Endpoints: formatIDs(ids.Endpoint, r.To.Endpoints), ActivityID: r.To.ActivityID},
		Channels: r.Channels, Type: r.Type, Title: r.Title, Body: r.Body, Image: r.Image, URL: r.URL, Data: r.Data, Badge: r.Badge,
		Sound: r.Sound, Silent: r.Silent, Priority: r.Priority, Urgent: r.Urgent, TTL: r.TTL, CollapseKey: r.CollapseKey,
		SendAt: timestamp(r.SendAt), Sensitive: r.Sensitive, OnAmbiguous: r.OnAmbiguous, Overrides: r.Overrides,
		OverrideValidation: r.OverrideValidation,
	}, nil
}

// Accepted is the answer to a notification that was accepted.
type Accepted struct {
	ID         string   `json:"id" example:"ntf_0d1kq3w8r000c"`
	Scheduled  bool     `json:"scheduled" doc:"send_at is ahead: its targets are looked up then"`
	Deliveries []Target `json:"deliveries,omitzero" required:"true" doc:"One for each target that will be tried; absent where delivery_count is there"`
	Skips      []Skip   `json:"skips,omitzero" required:"true" doc:"Who gets nothing, and why; absent where delivery_count is there"`
	FansOut    bool     `json:"fans_out" doc:"It leads to more than 1,000 targets: its deliveries are stored in parts from now on, and are not listed here"`

	DeliveryCount int `json:"delivery_count,omitzero" doc:"In the answer to a batch that names more than 1,000 targets, instead of the lists"`
	SkipCount     int `json:"skip_count,omitzero" doc:"The same of skips"`
}

// Target is where a delivery goes.
type Target struct {
	ID      string `json:"id,omitempty" doc:"The delivery's id; absent in a preview" example:"dlv_0d1kq3w8r000c0d1kq3w8r000d"`
	Channel string `json:"channel" enum:"fcm,apns,webpush,webhook"`
	Target  string `json:"target" doc:"The device or endpoint"`
	User    string `json:"user,omitempty" doc:"Absent for an endpoint that is bound to nobody"`
}

// Skip is a target that gets no delivery.
type Skip struct {
	User    string `json:"user,omitempty"`
	Target  string `json:"target,omitempty" doc:"The device or endpoint that was named"`
	Channel string `json:"channel,omitempty" doc:"Absent: no channel in particular"`
	Reason  string `json:"reason" enum:"unknown_user,no_device,retired,endpoint_paused,unknown_target,sensitive,no_subscriber,too_many_targets,unreadable,erased,other_purpose"`
}

// Preview is the answer to a dry run.
type Preview struct {
	DryRun     bool             `json:"dry_run"`
	FansOut    bool             `json:"fans_out" doc:"It leads to more than 1,000 targets, of which the first are listed"`
	Deliveries []Target         `json:"deliveries"`
	Skips      []Skip           `json:"skips"`
	Payloads   []PayloadPreview `json:"payloads" doc:"One for each channel that has a target"`
}

// PayloadPreview is the exact payload of a channel.
type PayloadPreview struct {
	Channel string          `json:"channel" enum:"fcm,apns,webpush,webhook"`
	Size    int             `json:"size" doc:"Bytes that count against the provider's limit"`
	Payload json.RawMessage `json:"payload"`
}

// Notification is a notification as it is shown.
type Notification struct {
	ID        string         `json:"id" example:"ntf_0d1kq3w8r000c"`
	Type      string         `json:"type,omitempty"`
	CreatedAt time.Time      `json:"created_at"`
	SendAt    time.Time      `json:"send_at,omitzero"`
	Scheduled bool           `json:"scheduled" doc:"It has a send_at, and its targets are not all looked up yet"`
	FansOut   bool           `json:"fans_out" doc:"Its targets are being looked up: there will be more deliveries"`
	Canceled  bool           `json:"canceled"`
	Sensitive bool           `json:"sensitive"`
	Content   *Content       `json:"content,omitempty" doc:"Absent when sensitive, or past its retention"`
	Counts    map[string]int `json:"counts" doc:"Deliveries by state"`
	Skips     []Skip         `json:"skips" doc:"At most 1,000"`
}

func showReceipt(r delivery.Receipt) Accepted {
	return Accepted{ID: r.Notification.Format(ids.Notification), Scheduled: r.Scheduled, FansOut: r.FansOut,
		Deliveries: showTargets(r.Notification, r.Deliveries), Skips: showSkips(r.Skips)}
}

// showTargets prints delivery ids where there is a notification.
func showTargets(notification ids.ID, list []delivery.DeliveryRef) []Target {
	out := make([]Target, len(list))
	for i, d := range list {
		out[i] = Target{Channel: d.Channel.String(), Target: targetID(d.Channel, d.Target), User: d.User}
		if notification != 0 {
			out[i].ID = ids.FormatDelivery(notification, d.Target)
		}
	}
	return out
}

func showSkips(list []delivery.Skip) []Skip {
	out := make([]Skip, len(list))
	for i, s := range list {
		out[i] = Skip{User: s.User, Target: targetID(s.Channel, s.Target), Reason: s.Reason.String()}
		if s.Channel != 0 {
			out[i].Channel = s.Channel.String()
		}
	}
	return out
}

func showPreview(p delivery.Preview) Preview {
	out := Preview{DryRun: true, FansOut: p.FansOut, Deliveries: showTargets(0, p.Deliveries), Skips: showSkips(p.Skips), Payloads: make([]PayloadPreview, len(p.Payloads))}
	for i, x := range p.Payloads {
		out.Payloads[i] = PayloadPreview{Channel: x.Channel.String(), Size: x.Size, Payload: x.Payload}
	}
	return out
}

func showNotification(n delivery.NotificationView) (Notification, error) {
	out := Notification{ID: n.ID.Format(ids.Notification), Type: n.Type, CreatedAt: timestamp(n.CreatedAt), SendAt: timestamp(n.SendAt),
		Scheduled: n.Scheduled, FansOut: n.FansOut, Canceled: n.Canceled, Sensitive: n.Sensitive, Counts: map[string]int{}, Skips: showSkips(n.Skips)}
	for _, state := range delivery.States() {
		out.Counts[state.String()] = n.Counts[state]
	}
	var err error
	if !n.Sensitive { // the reads leaves it out too; this is the last place where it could slip through
		out.Content, err = contentOf(n.Content)
	}
	return out, err
}
