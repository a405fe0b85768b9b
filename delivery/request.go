package delivery

import (
	"encoding/json"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// Limits of what one request may ask for.
const (
	MaxTargets   = 1000                // users, devices and endpoints that a notification names, and targets that are stored at once
	MaxUrgent    = 10                  // of an urgent one
	MaxBatch     = 500                 // notifications in one batch request
	MaxSendAhead = 90 * 24 * time.Hour // send_at
)

// To names the targets of a notification. At least one list is not empty,
// unless the notification is an event for webhook subscribers only.
type To struct {
	Users     []string `json:"users,omitempty"` // the tenant's own ids
	Devices   []ids.ID `json:"devices,omitempty"`
	Endpoints []ids.ID `json:"endpoints,omitempty"`
	// ActivityID is the Live Activity of the users that is meant; "" is each.
	ActivityID string `json:"activity_id,omitempty"`
}

// Empty tells whether nothing is named.
func (t To) Empty() bool { return len(t.Users)+len(t.Devices)+len(t.Endpoints) == 0 }

// Request is a notification as its caller gives it. Check validates it.
type Request struct {
	To          To                                `json:"to,omitzero"`
	Channels    []channels.Kind                   `json:"channels,omitempty"` // empty: all that the users have
	Type        string                            `json:"type,omitempty"`
	Title       string                            `json:"title,omitempty"`
	Body        string                            `json:"body,omitempty"`
	Image       string                            `json:"image,omitempty"`
	URL         string                            `json:"url,omitempty"`
	Data        json.RawMessage                   `json:"data,omitempty"`
	Badge       *int                              `json:"badge,omitempty"`
	Sound       string                            `json:"sound,omitempty"`
	Silent      bool                              `json:"silent,omitempty"`
	Priority    channels.Priority                 `json:"priority,omitempty"` // empty: high where something is shown, else normal
	Urgent      bool                              `json:"urgent,omitempty"`
	TTL         *int64                            `json:"ttl,omitempty"` // seconds
	CollapseKey string                            `json:"collapse_key,omitempty"`
	SendAt      time.Time                         `json:"send_at,omitzero"`
	Sensitive   bool                              `json:"sensitive,omitempty"`
	OnAmbiguous OnAmbiguous                       `json:"on_ambiguous,omitempty"`
	Overrides   map[channels.Kind]json.RawMessage `json:"overrides,omitempty"`
	// OverrideValidation says by channel how its override is checked: strict
	// where nothing is said, which is the case of all content of before.
	OverrideValidation map[channels.Kind]channels.Validation `json:"override_validation,omitempty"`
}

// OnAmbiguous says what follows an attempt that was written and not answered.
type OnAmbiguous string

// The choices.
const (
	OnAmbiguousRetry OnAmbiguous = "retry" // the default: at least once
	OnAmbiguousStop  OnAmbiguous = "stop"  // dead (ambiguous): at most once, for one-time codes and calls
)

// Idempotency makes a repeated request one. It is unique per tenant, principal,
// route and key, for 24 h.
type Idempotency struct {
	Principal ids.ID // the API key
	Route     string // "POST /v1/notifications"
	Key       string // 1 to 255 bytes
	BodyHash  [32]byte
}

// Submission is what Accept takes: one request, or a batch of them that commits
// as one.
type Submission struct {
	Tenant   ids.ID
	Requests []Request
	// Refused makes the submission a batch: it has, at the same index, why a member
	// was refused before (its JSON could not be read), or nil. Without it there
	// is one request, whose refusal is Accept's own error.
	Refused     []error
	Idempotency *Idempotency
	// Render makes the answer that is stored with the idempotency key, in the
	// transaction that accepts. It sees one Receipt per request.
	Render func([]Receipt) (status int, body []byte, err error)
}

// Answer is what the caller gets: freshly rendered, or as stored.
type Answer struct {
	Status   int
	Body     []byte
	Replayed bool
}

// Receipt says what became of one request. With Err it was not accepted and
// nothing of it was stored.
type Receipt struct {
	Err          error
	Notification ids.ID
	Scheduled    bool // send_at is far ahead: targets are resolved then
	FansOut      bool // it leads to more targets than are stored at once: they follow in parts
	Deliveries   []DeliveryRef
	Skips        []Skip
}

// DeliveryRef names a delivery and where it goes.
type DeliveryRef struct {
	Target  ids.ID
	Channel channels.Kind
	User    string // "" for an endpoint that is not bound to a user
}

// SkipReason says why a user gets nothing on a wanted channel. The numbers are
// stored; a test pins them.
type SkipReason uint8

// The reasons to skip.
const (
	SkipUnknownUser    SkipReason = 1  // never seen before
	SkipNoDevice       SkipReason = 2  // no device or bound endpoint on this channel
	SkipRetired        SkipReason = 3  // only retired ones
	SkipEndpointPaused SkipReason = 4  // reserved for endpoints that refuse events while paused
	SkipUnknownTarget  SkipReason = 5  // a named device or endpoint does not exist
	SkipSensitive      SkipReason = 6  // sensitive content never goes to unbound endpoints
	SkipNoSubscriber   SkipReason = 7  // an event that no endpoint subscribes to
	SkipTooMany        SkipReason = 8  // scheduled, and by now more than one notification may reach
	SkipUnreadable     SkipReason = 9  // scheduled, and its content cannot be read any more
	SkipErased         SkipReason = 10 // scheduled, and the user whom it named was erased
	SkipOtherPurpose   SkipReason = 11 // a named device's token is not for this type of push
)

var skipNames = [...]string{SkipUnknownUser: "unknown_user", SkipNoDevice: "no_device", SkipRetired: "retired",
	SkipEndpointPaused: "endpoint_paused", SkipUnknownTarget: "unknown_target", SkipSensitive: "sensitive", SkipNoSubscriber: "no_subscriber", SkipTooMany: "too_many_targets", SkipUnreadable: "unreadable",
	SkipErased: "erased", SkipOtherPurpose: "other_purpose"}

func (r SkipReason) String() string { return nameOf(skipNames[:], uint8(r), "skip") }

// MarshalText makes a SkipReason its name in JSON.
func (r SkipReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Skip is a target that gets no delivery, with the reason.
type Skip struct {
	User    string        // "" where a device or endpoint was named
	Target  ids.ID        // 0 where a user was named
	Channel channels.Kind // 0: no channel in particular
	Reason  SkipReason
}

// Preview is what a dry run shows; nothing is stored.
type Preview struct {
	FansOut    bool // there are more deliveries than are listed
	Deliveries []DeliveryRef
	Skips      []Skip
	Payloads   []PayloadPreview // one per channel that has a target, in Kinds order
}

// PayloadPreview is the exact payload of a channel. The delivery's id in it is
// the one of a made-up delivery.
type PayloadPreview struct {
	Channel channels.Kind
	Size    int // bytes that count against the provider's limit
	Payload json.RawMessage
}
