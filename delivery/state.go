// Package delivery is the engine: it accepts notifications, turns them into one
// delivery per target, hands each to its channel, and decides by one pure
// function (Next) what every verdict means. The deliveries table is the queue;
// there is no second store.
package delivery

import "fmt"

// State of a delivery. The numbers are stored, and the index of unfinished rows
// is built on "state < 4"; a test pins them.
type State uint8

// The states.
const (
	// Pending waits for its due time. Claim moves it out. A crash changes nothing.
	Pending State = 1
	// Sending is leased by a node until due_at. Finish moves it out, fenced by
	// the claim. After a crash the lease lapses and Claim takes the row again;
	// the attempt that never finished is recorded as unknown.
	Sending State = 2
	// Held waits for a person or a verdict in doubt: a credential or endpoint is
	// paused, missing or suspected. The end of the hold moves it out, or its
	// deadline (due_at). A crash changes nothing.
	Held State = 3
	// Sent: the provider accepted it; a webhook's receiver answered 2xx. Final, unless a
	// person sends a webhook again.
	Sent State = 4
	// Dropped cannot matter any more, for the reason beside it. Final in the same manner.
	Dropped State = 5
	// Dead is a dead letter: it failed for the reason beside it. Replay moves it
	// out; nothing else does.
	Dead State = 6
)

// MaxSpent is more attempts than any policy allows in a round (20 delays at most).
const MaxSpent = 21

// Unfinished tells whether the engine still owes the delivery something.
func (s State) Unfinished() bool { return s < Sent }

var stateNames = [...]string{Pending: "pending", Sending: "sending", Held: "held", Sent: "sent", Dropped: "dropped", Dead: "dead"}

// States lists all states in order.
func States() []State { return []State{Pending, Sending, Held, Sent, Dropped, Dead} }

func (s State) String() string { return nameOf(stateNames[:], uint8(s), "state") }

// ParseState reads a state's name.
func ParseState(s string) (State, bool) {
	n, ok := numberOf(stateNames[:], s)
	return State(n), ok
}

// MarshalText makes a State its name in JSON, also as a map key.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Reason says why a delivery is held, dropped or dead. The numbers are stored;
// a test pins them.
type Reason uint8

// The reasons.
const (
	NoReason Reason = 0

	// Held.
	CredentialMissing Reason = 1 // no credential for the target's app, channel and environment or key
	CredentialPaused  Reason = 2 // paused by a person
	CredentialDenied  Reason = 3 // the provider refused the credential
	EndpointPaused    Reason = 4 // paused by a person
	InDoubt           Reason = 5 // "gone", but a wrong credential could say that too

	// Dropped.
	Gone       Reason = 20 // the address does not exist any more
	Expired    Reason = 21 // push: the deadline passed; webhook: dead for the same reason
	Canceled   Reason = 22
	Rebound    Reason = 23 // the device belongs to another user now
	Superseded Reason = 24 // a newer notification with the same collapse key took its place
	OptedOut   Reason = 25
	NotNeeded  Reason = 26
	Erased     Reason = 27

	// Dead.
	Rejected  Reason = 40 // the message can never be accepted
	Exhausted Reason = 41 // every attempt of the policy was spent
	Ambiguous Reason = 42 // on_ambiguous: stop, and an attempt may have been acted upon
	Crashed   Reason = 43 // five nodes died that were sending it
	Unmapped  Reason = 44 // the stored content cannot be turned into a payload any more
	Stale     Reason = 46 // restored from a backup, and found too old to be sent; dropped or dead, as the operator chose
)

var reasonNames = [...]string{
	CredentialMissing: "credential_missing", CredentialPaused: "credential_paused", CredentialDenied: "credential_denied",
	EndpointPaused: "endpoint_paused", InDoubt: "in_doubt",
	Gone: "gone", Expired: "expired", Canceled: "canceled", Rebound: "rebound", Superseded: "superseded",
	OptedOut: "opted_out", NotNeeded: "not_needed", Erased: "erased",
	Rejected: "rejected", Exhausted: "exhausted", Ambiguous: "ambiguous", Crashed: "crashed", Unmapped: "mapping", Stale: "stale",
}

func (r Reason) String() string {
	if r == NoReason {
		return ""
	}
	return nameOf(reasonNames[:], uint8(r), "reason")
}

// ParseReason reads a reason's name.
func ParseReason(s string) (Reason, bool) {
	n, ok := numberOf(reasonNames[:], s)
	return Reason(n), ok
}

// MarshalText makes a Reason its name in JSON.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Lane orders the queue: a lower lane is served first.
type Lane uint8

// The lanes.
const (
	Urgent     Lane = 0 // urgent: true, at most 10 targets
	Regular    Lane = 1 // up to 1,000 targets
	Bulk       Lane = 2 // audiences
	LanesCount      = 3
)

func nameOf(names []string, n uint8, kind string) string {
	if int(n) < len(names) && names[n] != "" {
		return names[n]
	}
	return fmt.Sprintf("%s(%d)", kind, n)
}

func numberOf(names []string, s string) (int, bool) {
	for n, name := range names {
		if name == s && s != "" {
			return n, true
		}
	}
	return 0, false
}
