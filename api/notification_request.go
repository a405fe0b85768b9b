package api

import (
	"encoding/json"
	"time"

	"github.com/danielgtaylor/huma/v2"

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

	ActivityID string `json:"activity_id,omitempty" maxLength:"128" doc:"APNs, push type liveactivity: of the users' Live Activities only this one"`
}

// ChannelList lists channels by name.
type ChannelList []channels.Kind

// Schema keeps huma from taking small integers for bytes in base64.
func (ChannelList) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}
}

// Content is what a notification says and to whom.
type Content struct {
	To          To                                `json:"to,omitzero" doc:"At most 1,000 users, devices and endpoints. What leads to more than 1,000 targets is stored in parts: the answer says fans_out. May be left out for an event that only webhook subscribers get; type is needed then"`
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
	Priority    channels.Priority                 `json:"priority,omitempty" enum:"high,normal,low" doc:"What the provider is told. Absent: high where something is shown, normal for silent and data-only ones"`
	Urgent      bool                              `json:"urgent,omitzero" doc:"Goes before everything else; at most 10 targets"`
	TTL         *int64                            `json:"ttl,omitempty" minimum:"0" doc:"Seconds until it is worthless, queue and retries included"`
	CollapseKey string                            `json:"collapse_key,omitempty" doc:"A newer notification with the same key takes the place of this one on the device, and of what still waits to be sent to it; webhooks get all"`
	SendAt      time.Time                         `json:"send_at,omitzero" doc:"Not before this time, at most 90 days ahead"`
	Sensitive   bool                              `json:"sensitive,omitzero" doc:"Content is never shown again, and erased when all deliveries are final"`
	OnAmbiguous delivery.OnAmbiguous              `json:"on_ambiguous,omitempty" enum:"retry,stop" doc:"After an attempt without an answer: retry (at least once) or stop (at most once)"`
	Overrides   map[channels.Kind]json.RawMessage `json:"overrides,omitempty" doc:"By channel: the provider's own fields"`

	OverrideValidation map[channels.Kind]channels.Validation `json:"override_validation,omitempty" doc:"By channel (fcm, apns, webpush): strict, the default, refuses members of its override that Carillon does not know; lenient passes them to the provider"`
}

// TransformSchema says what the Go types cannot: these are objects.
func (Content) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["data"].Type = huma.TypeObject
	s.Properties["overrides"].AdditionalProperties = &huma.Schema{Type: huma.TypeObject}
	s.Properties["override_validation"].AdditionalProperties = &huma.Schema{Type: huma.TypeString, Enum: []any{"strict", "lenient"}}
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
		OverrideValidation: n.OverrideValidation,
	}
	if string(r.Data) == "null" {
		r.Data = nil
	}
	var faults problem.Fields
	r.To = delivery.To{
		Users:     n.To.Users,
		Devices:   parseIDs(&faults, "to.devices", ids.Device, n.To.Devices),
		Endpoints: parseIDs(&faults, "to.endpoints", ids.Endpoint, n.To.Endpoints),

		ActivityID: n.To.ActivityID,
	}
	return r, faults.Err()
}
