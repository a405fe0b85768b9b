package api

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/danielgtaylor/huma/v2"
	jsonv2 "github.com/go-json-experiment/json"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// To names the targets of a notification.
type To struct {
	Users     []string `json:"users,omitempty" doc:"Your own ids of users"`
	Devices   []string `json:"devices,omitempty" example:"[\"dev_0d1kq3w8r000c\"]"`
	Endpoints []string `json:"endpoints,omitempty" example:"[\"whe_0d1kq3w8r000c\"]"`
}

// ChannelList lists channels by name.
type ChannelList []channels.Kind

// Schema keeps huma from taking small integers for bytes in base64.
func (ChannelList) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
}

// Content is what a notification says and to whom.
type Content struct {
	To          To                                `json:"to,omitzero" doc:"At most 1,000 targets. May be left out for an event that only webhook subscribers get; type is needed then"`
	Channels    ChannelList                       `json:"channels,omitempty" enum:"fcm,apns,webpush,webhook" doc:"Absent: all that the users have"`
	Type        string                            `json:"type,omitempty" maxLength:"128" doc:"What happened, such as order.shipped"`
	Title       string                            `json:"title,omitempty"`
	Body        string                            `json:"body,omitempty"`
	Image       string                            `json:"image,omitempty" doc:"https URL"`
	URL         string                            `json:"url,omitempty" doc:"Opened on a tap or click"`
	Data        json.RawMessage                   `json:"data,omitzero" doc:"A JSON object for the app"`
	Badge       *int                              `json:"badge,omitempty" minimum:"0"`
	Sound       string                            `json:"sound,omitempty"`
	Silent      bool                              `json:"silent,omitzero" doc:"Wakes the app, shows nothing"`
	Priority    channels.Priority                 `json:"priority,omitempty" enum:"high,normal,low" doc:"What the provider is told; high where absent, normal for silent ones"`
	Urgent      bool                              `json:"urgent,omitzero" doc:"Goes before everything else; at most 10 targets"`
	TTL         *int64                            `json:"ttl,omitempty" minimum:"0" doc:"Seconds until it is worthless, queue and retries included"`
	CollapseKey string                            `json:"collapse_key,omitempty" doc:"A newer notification with the same key takes the place of this one on the device"`
	SendAt      time.Time                         `json:"send_at,omitzero" doc:"Not before this time, at most 90 days ahead"`
	Sensitive   bool                              `json:"sensitive,omitzero" doc:"Content is never shown again, and erased when all deliveries are final"`
	OnAmbiguous delivery.OnAmbiguous              `json:"on_ambiguous,omitempty" enum:"retry,stop" doc:"After an attempt without an answer: retry (at least once) or stop (at most once)"`
	Overrides   map[channels.Kind]json.RawMessage `json:"overrides,omitempty" doc:"By channel: the provider's own fields"`
}

// TransformSchema says what the Go types cannot: these are objects.
func (Content) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["data"].Type = huma.TypeObject
	s.Properties["overrides"].AdditionalProperties = &huma.Schema{Type: huma.TypeObject}
	return s
}

var (
	_ huma.SchemaProvider    = ChannelList{}
	_ huma.SchemaTransformer = Content{}
)

// NotificationRequest is a notification to be sent.
type NotificationRequest struct {
	Content
	DryRun bool `json:"dry_run,omitzero" doc:"Store and send nothing; show what would be sent"`
}

// request turns the body into what the engine takes, which checks the rest.
func (n *Content) request() (delivery.Request, error) {
	r := delivery.Request{
		Channels: n.Channels, Type: n.Type, Title: n.Title, Body: n.Body, Image: n.Image, URL: n.URL, Data: n.Data, Badge: n.Badge,
		Sound: n.Sound, Silent: n.Silent, Priority: n.Priority, Urgent: n.Urgent, TTL: n.TTL, CollapseKey: n.CollapseKey,
		SendAt: n.SendAt, Sensitive: n.Sensitive, OnAmbiguous: n.OnAmbiguous, Overrides: n.Overrides,
	}
	if string(r.Data) == "null" {
		r.Data = nil
	}
	var faults problem.Fields
	r.To = delivery.To{
		Users:     n.To.Users,
		Devices:   parseIDs(&faults, "to.devices", ids.Device, n.To.Devices),
		Endpoints: parseIDs(&faults, "to.endpoints", ids.Endpoint, n.To.Endpoints),
	}
	return r, faults.Err()
}

func parseIDs(faults *problem.Fields, path, prefix string, list []string) []ids.ID {
	if len(list) == 0 {
		return nil
	}
	out := make([]ids.ID, len(list))
	for i, s := range list {
		id, err := ids.Parse(prefix, s)
		if err != nil {
			badID(faults, fmt.Sprintf("%s[%d]", path, i), prefix)
		}
		out[i] = id
	}
	return out
}

// contentOf is the way back, for reading.
func contentOf(raw json.RawMessage) (*Content, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var r delivery.Request
	if err := jsonv2.Unmarshal(raw, &r); err != nil {
		return nil, fmt.Errorf("stored content: %w", err)
	}
	return &Content{
		To:       To{Users: r.To.Users, Devices: formatIDs(ids.Device, r.To.Devices), Endpoints: formatIDs(ids.Endpoint, r.To.Endpoints)},
		Channels: r.Channels, Type: r.Type, Title: r.Title, Body: r.Body, Image: r.Image, URL: r.URL, Data: r.Data, Badge: r.Badge,
		Sound: r.Sound, Silent: r.Silent, Priority: r.Priority, Urgent: r.Urgent, TTL: r.TTL, CollapseKey: r.CollapseKey,
		SendAt: when(r.SendAt), Sensitive: r.Sensitive, OnAmbiguous: r.OnAmbiguous, Overrides: r.Overrides,
	}, nil
}

func formatIDs(prefix string, list []ids.ID) []string {
	out := make([]string, len(list))
	for i, id := range list {
		out[i] = id.Format(prefix)
	}
	return out
}

// Accepted is the answer to a notification that was accepted.
type Accepted struct {
	ID         string   `json:"id" example:"ntf_0d1kq3w8r000c"`
	Scheduled  bool     `json:"scheduled" doc:"send_at is ahead: its targets are looked up then"`
	Deliveries []Target `json:"deliveries" doc:"One for each target that will be tried"`
	Skips      []Skip   `json:"skips" doc:"Who gets nothing, and why"`
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
	Reason  string `json:"reason" enum:"unknown_user,no_device,retired,endpoint_paused,unknown_target,sensitive,no_subscriber,too_many_targets,unreadable,erased"`
}

// Preview is the answer to a dry run.
type Preview struct {
	DryRun     bool             `json:"dry_run"`
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
	Scheduled bool           `json:"scheduled" doc:"Still waits for its send_at"`
	Canceled  bool           `json:"canceled"`
	Sensitive bool           `json:"sensitive"`
	Content   *Content       `json:"content,omitempty" doc:"Absent when sensitive, or past its retention"`
	Counts    map[string]int `json:"counts" doc:"Deliveries by state"`
	Skips     []Skip         `json:"skips" doc:"At most 1,000"`
}

// targetID prints the id of a target, whose kind follows from the channel.
func targetID(kind channels.Kind, id ids.ID) string {
	switch {
	case id == 0:
		return ""
	case kind == channels.Webhook:
		return id.Format(ids.Endpoint)
	}
	return id.Format(ids.Device)
}

func showReceipt(r delivery.Receipt) Accepted {
	return Accepted{ID: r.Notification.Format(ids.Notification), Scheduled: r.Scheduled,
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
	out := Preview{DryRun: true, Deliveries: showTargets(0, p.Deliveries), Skips: showSkips(p.Skips), Payloads: make([]PayloadPreview, len(p.Payloads))}
	for i, x := range p.Payloads {
		out.Payloads[i] = PayloadPreview{Channel: x.Channel.String(), Size: x.Size, Payload: x.Payload}
	}
	return out
}

func showNotification(n delivery.NotificationView) (Notification, error) {
	out := Notification{ID: n.ID.Format(ids.Notification), Type: n.Type, CreatedAt: when(n.CreatedAt), SendAt: when(n.SendAt),
		Scheduled: n.Scheduled, Canceled: n.Canceled, Sensitive: n.Sensitive, Counts: map[string]int{}, Skips: showSkips(n.Skips)}
	for _, state := range delivery.States() {
		out.Counts[state.String()] = n.Counts[state]
	}
	var err error
	if !n.Sensitive { // the reads leaves it out too; this is the last place where it could slip through
		out.Content, err = contentOf(n.Content)
	}
	return out, err
}
