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
	Scheduled bool      // it has a send_at, and its targets are not all resolved yet
	FansOut   bool      // targets are being resolved, in parts if they are many
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
	SupersededBy ids.ID // the newer notification for which it was dropped; 0: none
	Unknown      bool   // a node died with it: the provider may have it twice
	Waited       Waited
	CreatedAt    time.Time
	UpdatedAt    time.Time
	Last         Attempt   // the newest; Number 0: none yet
	Attempts     []Attempt // all, oldest first; only in Reader.Delivery
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
	To           Cursor // the last row to be looked at: see DeliveryReader.DeliveryWindow
	Limit        int    // 1 to 500
}

// IsFiltered tells whether rows of the list may have to be passed over.
func (q Query) IsFiltered() bool { return q.State != 0 || q.Reason != 0 || q.Channel != 0 }

// Cursor is the place of the last row of the page before.
type Cursor struct {
	Notification ids.ID
	Target       ids.ID
	At           time.Time // dead letters only
}

// Reader reads what the engine wrote. What is absent, or another tenant's, is
// problem.NotFound.
type Reader interface {
	NotificationReader
	DeliveryReader
	WaitReader
	ErasureReader
	AffectedReader
}

// NotificationReader reads notifications.
type NotificationReader interface {
	Notification(ctx context.Context, tenant, id ids.ID) (NotificationView, error)
	// UserNotifications lists what was accepted for a user, newest first, with the
	// skips of that user.
	UserNotifications(ctx context.Context, tenant ids.ID, user string, after ids.ID, limit int) ([]NotificationView, error)
	// Stored looks an idempotency key up: the stored answer, whether the hash
	// differs, and whether there is one at all.
	Stored(ctx context.Context, tenant ids.ID, i Idempotency) (Answer, bool, error)
}

// DeliveryReader reads deliveries, and why they wait.
type DeliveryReader interface {
	// DeliveryWindow is the row at which a page of Deliveries, or of DeadLetters, stops to look
	// where a filter passes rows over: a page costs what it looks at, not what there is.
	// Zero: it may look to the end of the list.
	DeliveryWindow(ctx context.Context, tenant ids.ID, q Query, dead bool) (Cursor, error)
	Delivery(ctx context.Context, tenant, notification, target ids.ID) (View, error)
	Deliveries(ctx context.Context, tenant ids.ID, q Query) ([]View, error)
	// DeadLetters lists deliveries in state dead, the latest death first.
	DeadLetters(ctx context.Context, tenant ids.ID, q Query) ([]View, error)
	Holds(ctx context.Context, tenant ids.ID) ([]Hold, error) // at most 1,000
}

// WaitReader reads what is in trouble.
type WaitReader interface {
	StandingHolds(ctx context.Context, tenant ids.ID) ([]Hold, error)
	Waits(ctx context.Context, tenant ids.ID) ([]Wait, error) // at most 1,000
}

// ErasureReader reads the receipts of erasures.
type ErasureReader interface {
	// Erasures lists the receipts of a tenant, newest first.
	Erasures(ctx context.Context, tenant, after ids.ID, limit int) ([]Erasure, error)
	Erasure(ctx context.Context, tenant, id ids.ID) (Erasure, error)
}
