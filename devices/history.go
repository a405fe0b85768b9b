package devices

import (
	"fmt"
	"time"

	"github.com/carillonhq/carillon/ids"
)

const (
	// MaxHistory is how many events of a device are kept: the newest.
	MaxHistory = 100
	// KeepHistory is for how long.
	KeepHistory = 30 * 24 * time.Hour
)

// EngineActor is the actor of what nobody asked for.
const EngineActor = "engine"

// EventKind is what has happened to a device. The numbers are stored; a test pins
// them.
type EventKind uint8

// The kinds.
const (
	EventRegistered     EventKind = 1 // its address was not known before
	EventRebound        EventKind = 2 // it was registered for another user
	EventAddressChanged EventKind = 3 // its installation has a new address
	EventSuspected      EventKind = 4
	EventRetired        EventKind = 5
	EventRestored       EventKind = 6 // it was suspect or retired, and is active again
	EventDeleted        EventKind = 7
)

var eventNames = [...]string{EventRegistered: "registered", EventRebound: "rebound", EventAddressChanged: "address_changed",
	EventSuspected: "suspected", EventRetired: "retired", EventRestored: "restored", EventDeleted: "deleted"}

func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return fmt.Sprintf("event(%d)", uint8(k))
}

// Reasons of events that no provider gave.
const (
	BySend         = "sent"             // restored: something was sent to it
	ByRegistration = "registered_again" // restored: its app registered it again
	ByRequest      = "asked_for"        // restored, retired, deleted: somebody asked for it
	ByConfirmation = "doubt_confirmed"  // retired: the credential has had a success since it called the device gone
	ByReversal     = "doubt_reversed"   // restored: the credential's word about it did not count
	ByBreaker      = "credential_doubt" // suspected: it was retired by a credential that called too many gone
	ByReplacement  = "replaced"         // deleted: another device has the address that its installation got
	ByLimit        = "too_many_devices" // deleted: it was the oldest of too many of its user's
	ByApp          = "app_deleted"      // deleted: its app was
	Ended          = "ended"            // deleted: the Live Activity that it was for is over
	Stale          = "stale"            // retired: nothing was heard of it for too long
)

// Event is something that has happened to a device.
type Event struct {
	Tenant     ids.ID
	ID         ids.ID
	Device     ids.ID
	At         time.Time
	Kind       EventKind
	UserID     ids.ID // registered, rebound: whose it is from then on; 0: not said
	User       string // the tenant's own id of that user; only when read
	Reason     string // the provider's code, or one of the reasons above
	Credential ids.ID // whose verdict it was; 0: nobody's
	Version    int
	Actor      string // "engine", or the key or job that did it
}

// Caller is who registers a device.
type Caller struct {
	Actor string // the key, such as key_...
	Own   bool   // they hold a token of the user, not a key of the tenant
	Full  error  // what is answered to a new device beyond Room; nil: there is room for any number
	Room  int
}
