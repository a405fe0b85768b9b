package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// HoldScope says what a hold stops.
type HoldScope uint8

// The scopes of a hold. The numbers are stored.
const (
	HoldCredential HoldScope = 1 // Subject: the credential
	HoldEndpoint   HoldScope = 2 // Subject: the endpoint
	HoldMissing    HoldScope = 3 // App, Channel, Qualifier: no credential there
	HoldDoubt      HoldScope = 4 // Subject and Version: a verdict that awaits confirmation
	HoldRefusal    HoldScope = 5 // Subject, Version and Qualifier: targets that were refused, each looked at again by itself
)

var holdScopeNames = [...]string{HoldCredential: "credential", HoldEndpoint: "endpoint", HoldMissing: "missing_credential", HoldDoubt: "doubt", HoldRefusal: "refusal"}

func (s HoldScope) String() string { return nameOf(holdScopeNames[:], uint8(s), "scope") }

// MarshalText makes a HoldScope its name in JSON.
func (s HoldScope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Hold is why deliveries are held.
type Hold struct {
	Tenant    ids.ID
	ID        ids.ID
	Scope     HoldScope
	Subject   ids.ID // credential or endpoint; 0 for HoldMissing
	Version   int    // of the credential, for HoldDoubt and HoldRefusal
	App       string // HoldMissing
	Channel   channels.Kind
	Qualifier string // HoldMissing; otherwise the push service
	Reason    Reason
	Detail    string // what the provider said, or the person
	Since     time.Time
	Ending    Ending // set: its deliveries are being moved out
	Held      int    // deliveries now; only in Reader.Holds
	More      bool   // there are more than Held: see HeldMost
}

// HeldMost is how many deliveries are counted for a list of holds: a tenth of them in
// one hold, and fewer where there are more than ten.
const HeldMost = 100_000

// Ending says where the deliveries of a hold that ends go. The numbers are stored.
type Ending uint8

// The endings.
const (
	Open    Ending = 0 // the hold stands
	Resume  Ending = 1 // back to pending
	Confirm Ending = 2 // the doubt was right: dropped as gone, suspects retired
	Reverse Ending = 3 // the doubt was wrong: back to pending, suspects active again
)

type holdKey struct {
	scope     HoldScope
	subject   ids.ID
	version   int
	app       string
	channel   channels.Kind
	qualifier string
}

func (h Hold) key() holdKey {
	k := holdKey{scope: h.Scope, subject: h.Subject, version: h.Version, app: h.App, channel: h.Channel, qualifier: h.Qualifier}
	if h.Scope == HoldCredential || h.Scope == HoldEndpoint {
		k.channel = 0
	}
	return k
}
