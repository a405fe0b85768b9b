// Package webhooks holds what a webhook endpoint is, which event types it
// wants, and the Standard Webhooks signature (v1, HMAC-SHA256) that its
// receiver checks. Receivers may import it for Verify alone.
package webhooks

import (
	"fmt"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// Status says whether an endpoint is served.
type Status string

// The statuses. Who leaves one is always a person or the API; a crash changes
// none of them.
const (
	// Active endpoints receive. Left by a pause, or by disabling.
	Active Status = "active"
	// Paused by its owner: deliveries are held until it is active again.
	Paused Status = "paused"
	// Disabled because the receiver said 410 Gone or has failed for too long;
	// StatusReason says which. Left by a person who makes it active.
	Disabled Status = "disabled"
)

// Endpoint is a tenant's webhook URL with its secrets and what it subscribes to.
type Endpoint struct {
	Tenant       ids.ID    `json:"-"`
	ID           ids.ID    `json:"-"`
	URL          string    `json:"url"`
	Description  string    `json:"description"`
	EventTypes   []string  `json:"event_types"` // see CheckSubscription; empty matches nothing
	User         string    `json:"user"`        // external id of the user it is bound to; "" is unbound
	Status       Status    `json:"status"`
	StatusReason string    `json:"status_reason"`
	Secrets      []Secret  `json:"-"` // newest first
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
}

// Matches tells whether the endpoint subscribes to an event type.
func (e Endpoint) Matches(eventType string) bool {
	for _, pattern := range e.EventTypes {
		if matches(pattern, eventType) {
			return true
		}
	}
	return false
}

// SigningKeys are the keys that count at now, newest first, at most MaxKeys.
// A delivery is signed with all of them, so that a receiver may change its
// secret at any moment of a rotation.
func (e Endpoint) SigningKeys(now time.Time) [][]byte {
	var keys [][]byte
	for _, s := range e.Secrets {
		if len(keys) < MaxKeys && s.Counts(now) {
			keys = append(keys, s.Key)
		}
	}
	return keys
}

// String keeps secrets and the user's id out of logs, whatever verb prints it.
func (e Endpoint) String() string { return "endpoint " + e.ID.Format(ids.Endpoint) }

// GoString does the same for %#v.
func (e Endpoint) GoString() string { return e.String() }

var (
	_ fmt.Stringer   = Endpoint{}
	_ fmt.GoStringer = Endpoint{}
)
