package delivery

import (
	"context"
	"encoding/json"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// NotificationView is a notification as it can be read back.
type NotificationView struct {
	ID        ids.ID
	Type      string
	CreatedAt time.Time
	SendAt    time.Time // zero: at once
	Scheduled bool      // still waits for its send_at; targets are not resolved yet
	Canceled  bool
	Sensitive bool
	// Content is the Request as JSON; nil when sensitive or past its retention.
	Content json.RawMessage
	Counts  map[State]int
	Skips   []Skip // at most 1,000
}

// View is a delivery as it can be read back.
type View struct {
	Notification ids.ID
	Target       ids.ID
	Channel      channels.Kind
	User         string // "" for an endpoint not bound to a user
	App          string // "" for endpoints and forgotten devices
	State        State
	Reason       Reason
	DueAt        time.Time // pending: the next attempt; zero otherwise
	ExpiresAt    time.Time
	HoldID       ids.ID
	Round        int // grows with every replay
	Spent        int // attempts that count against the policy in this round
	Takeovers    int
	Unknown      bool // a node died with it: the provider may have it twice
	CreatedAt    time.Time
	UpdatedAt    time.Time
	Last         Attempt   // the newest; Number 0: none yet
	Attempts     []Attempt // all, oldest first; only in Reader.Delivery
}

// Attempt is one request to a provider, or one that may have been made.
type Attempt struct {
	Number     int // over all rounds
	At         time.Time
	Duration   time.Duration
	Outcome    channels.Outcome
	Code       string
	Detail     string
	Status     int
	ProviderID string
	Ambiguous  bool
}

// Query selects deliveries. Zero members select everything. Lists are newest
// first by notification; dead letters by the time they died.
type Query struct {
	Notification ids.ID
	State        State
	Reason       Reason
	Channel      channels.Kind
	User         string
	Since, Until time.Time // when the notification was accepted; dead letters: when they died
	After        Cursor
	Limit        int // 1 to 500
}

// Cursor is the place of the last row of the page before.
type Cursor struct {
	Notification ids.ID
	Target       ids.ID
	At           time.Time // dead letters only
}

// HoldScope says what a hold stops.
type HoldScope uint8

// The scopes of a hold. The numbers are stored.
const (
	HoldCredential HoldScope = 1 // Subject: the credential
	HoldEndpoint   HoldScope = 2 // Subject: the endpoint
	HoldMissing    HoldScope = 3 // App, Channel, Qualifier: no credential there
	HoldDoubt      HoldScope = 4 // Subject and Version: a verdict that awaits confirmation
)

var holdScopeNames = [...]string{HoldCredential: "credential", HoldEndpoint: "endpoint", HoldMissing: "missing_credential", HoldDoubt: "doubt"}

func (s HoldScope) String() string { return nameOf(holdScopeNames[:], uint8(s), "scope") }

// MarshalText makes a HoldScope its name in JSON.
func (s HoldScope) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Hold is why deliveries are held.
type Hold struct {
	Tenant    ids.ID
	ID        ids.ID
	Scope     HoldScope
	Subject   ids.ID // credential or endpoint; 0 for HoldMissing
	Version   int    // of the credential, for HoldDoubt
	App       string // HoldMissing
	Channel   channels.Kind
	Qualifier string // HoldMissing
	Reason    Reason
	Detail    string // what the provider said, or the person
	Since     time.Time
	Ending    Ending // set: its deliveries are being moved out
	Held      int    // deliveries now; only in Reader.Holds
}

// Ending says where the deliveries of a hold that ends go. The numbers are stored.
type Ending uint8

// The endings.
const (
	Open    Ending = 0 // the hold stands
	Resume  Ending = 1 // back to pending
	Confirm Ending = 2 // the doubt was right: dropped as gone, suspects retired
	Reverse Ending = 3 // the doubt was wrong: back to pending, suspects active again
)

// Reader reads what the engine wrote. What is absent, or another tenant's, is
// problem.NotFound.
type Reader interface {
	Notification(ctx context.Context, tenant, id ids.ID) (NotificationView, error)
	Delivery(ctx context.Context, tenant, notification, target ids.ID) (View, error)
	Deliveries(ctx context.Context, tenant ids.ID, q Query) ([]View, error)
	// DeadLetters lists deliveries in state dead, the latest death first.
	DeadLetters(ctx context.Context, tenant ids.ID, q Query) ([]View, error)
	Holds(ctx context.Context, tenant ids.ID) ([]Hold, error) // at most 1,000
	// Erasures lists the receipts of a tenant, newest first.
	Erasures(ctx context.Context, tenant, after ids.ID, limit int) ([]Erasure, error)
	Erasure(ctx context.Context, tenant, id ids.ID) (Erasure, error)
	// UserNotifications lists what was accepted for a user, newest first, with the
	// skips of that user.
	UserNotifications(ctx context.Context, tenant ids.ID, user string, after ids.ID, limit int) ([]NotificationView, error)
	// Stored looks an idempotency key up: the stored answer, whether the hash
	// differs, and whether there is one at all.
	Stored(ctx context.Context, tenant ids.ID, i Idempotency) (Answer, bool, error)
}
