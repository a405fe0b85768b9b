package channels

import (
	"fmt"
	"time"
)

// Outcome is the verdict on an attempt. It says who is at fault; what follows
// from it is decided by delivery.Next alone. The numbers are stored.
type Outcome uint8

// The outcomes.
const (
	// Accepted: the provider took it (a webhook's receiver answered 2xx).
	Accepted Outcome = 1
	// Retry: the provider or the network is at fault, for now.
	Retry Outcome = 2
	// Throttled: we are too fast. Spends no attempt; Scope waits until NotBefore,
	// and Wider for a while, if others are told the same.
	Throttled Outcome = 3
	// Gone: the target does not exist any more.
	Gone Outcome = 4
	// Rejected: the message can never be accepted.
	Rejected Outcome = 5
	// Denied: our credential is refused. Spends no attempt.
	Denied Outcome = 6
	// Interrupted: we gave up ourselves, because the server is stopping.
	// Spends no attempt.
	Interrupted Outcome = 7
	// Unknown is written by the engine, never by a sender: a node died between
	// the lease and the verdict, so the attempt may have been made.
	Unknown Outcome = 8
)

var outcomeNames = [...]string{Accepted: "accepted", Retry: "retry", Throttled: "throttled", Gone: "gone",
	Rejected: "rejected", Denied: "denied", Interrupted: "interrupted", Unknown: "unknown"}

func (o Outcome) String() string {
	if int(o) < len(outcomeNames) && outcomeNames[o] != "" {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome(%d)", uint8(o))
}

// MarshalText makes an Outcome its name in JSON.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Scope says what has to wait, or is in doubt, beyond this one delivery.
type Scope uint8

// The scopes.
const (
	ScopeTarget     Scope = 0 // this device or endpoint
	ScopeOrigin     Scope = 1 // everything of this credential at the target's push service origin
	ScopeCredential Scope = 2 // everything of this credential
)

// Renewal is what the sender has already thrown away, so that the next attempt,
// made at once and at no cost, starts with a fresh one. The engine passes it to
// that attempt as Life.Renewed; the sender then gives a final verdict if the
// same answer comes again. The numbers are stored.
type Renewal uint8

// The renewals.
const (
	RenewNothing    Renewal = 0
	RenewToken      Renewal = 1 // provider token or VAPID JWT
	RenewConnection Renewal = 2
	RenewPadding    Renewal = 3 // web push: smaller record
	RenewGateway    Renewal = 4 // APNs: the other environment
	RenewPair       Renewal = 5 // web push: another VAPID pair of the app, which the engine picks
)

// Result is a verdict, not an error.
type Result struct {
	Outcome Outcome
	// Scope is what the answer is about, by its own words; the target where it has none.
	Scope Scope
	// Wider is what else a Throttled may be about, where the answer does not say whether
	// it is: one browser's limit and that of its push service look the same. 0: nothing.
	Wider Scope
	// Code is stable and dotted: "fcm.unregistered", "apns.bad_device_token",
	// "transport.timeout". Metrics and the API show it.
	Code string
	// Detail is for people: at most 256 bytes, free of tokens, secrets and payload.
	Detail     string
	Status     int    // HTTP status, 0 without an answer
	ProviderID string // the provider's message id
	// NotBefore is the earliest next attempt that the answer itself names
	// (Retry-After). Zero: it names none.
	NotBefore time.Time
	// Floor is the least wait that the provider's published rules ask for after
	// this answer, such as 10 s after a 503 of FCM. A tenant's retry policy may
	// lower it for tests. 0: the policy alone decides.
	Floor time.Duration
	// MaxTries ends the delivery as rejected when this many attempts were spent
	// and the outcome is still Retry. 0: the policy decides.
	MaxTries int
	Renew    Renewal
	// Ambiguous: the request was written and no answer of the provider's came, so it
	// may have acted on it.
	Ambiguous bool
	// Unreached: no connection came about, so nobody has seen any of the request.
	Unreached bool
	// Doubtful: a Gone that a wrong credential, topic, project or environment
	// would cause as well. It makes a device suspect, never retired, until
	// the credential is seen to work.
	Doubtful bool
	// Resubscribe: the subscription is bound to another VAPID key than the one that
	// was used. Unless another pair of the app fits, the browser has to subscribe again.
	Resubscribe bool
	// Environment is the APNs environment that this attempt has proved.
	Environment Environment
}
