package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

// Row is a delivery as the engine handles it.
type Row struct {
	Tenant, Notification, Target ids.ID
	Channel                      channels.Kind
	Lane                         Lane
	State                        State
	Reason                       Reason
	UserID                       ids.ID // 0: not for a user
	Epoch                        int    // the device's when accepted
	Credential                   ids.ID // of the newest attempt
	DueAt, ExpiresAt             time.Time
	Claim                        int64
	HoldID                       ids.ID
	Round, Spent, Attempts       int
	Takeovers                    int
	Unknown                      bool
	Renewed                      channels.Renewal
	UpdatedAt                    time.Time
}

// Accepted is a notification ready to be stored.
type Accepted struct {
	ID         ids.ID
	Tenant     ids.ID
	Lane       Lane
	Type       string
	CreatedAt  time.Time
	SendAt     time.Time // zero: at once
	Sensitive  bool
	AtMostOnce bool
	Begun      bool   // taken over after Begin
	Scheduled  bool   // a marker: targets are resolved when SendAt comes
	Body       []byte // the request as JSON; the store seals it
	Rows       []Row
	Skips      []Skip
}

// Batch is what one submission commits: all of it or nothing.
type Batch struct {
	Tenant      ids.ID
	Accepted    []Accepted
	Idempotency *Idempotency
	Answer      Answer // stored with the idempotency key
	ExpiresAt   time.Time
}

// AcceptStore is what Accept needs.
type AcceptStore interface {
	// Resolve reads who and what a request names, as it is now.
	Resolve(ctx context.Context, tenant ids.ID, to To, subscribers bool) (Resolution, error)
	// Accept commits a batch, together with whatever else waits to be written.
	// When the idempotency key is taken already, nothing is stored and the
	// stored answer comes back, or problem.IdempotencyMismatch.
	Accept(ctx context.Context, b Batch) (stored *Answer, err error)
}

// Resolution is what the names in a request stand for.
type Resolution struct {
	Users   map[string]ids.ID // those that exist
	Devices []devices.Device  // of the users, and the named ones
	// Endpoints are the named ones, those bound to the users, and with
	// subscribers all unbound ones. Their secrets are left out.
	Endpoints []BoundEndpoint
}

// BoundEndpoint is an endpoint with the internal id of its user.
type BoundEndpoint struct {
	webhooks.Endpoint
	UserID ids.ID // 0: unbound
}

// TargetNow is a target as it is now.
type TargetNow struct {
	Exists    bool
	UserID    ids.ID
	Epoch     int
	Device    devices.Status // 0 for an endpoint
	App       string
	Channel   channels.Kind
	VAPIDKey  string
	Target    channels.Target
	ReadAt    time.Time
	ExpiresAt time.Time // of a subscription
}

// Claimed is a row that Claim leased, with its target. Was is the state that it
// was found in: Sending means that its node died, Held that its deadline came.
type Claimed struct {
	Row
	Was        State
	AtMostOnce bool
	Begun      bool // Begin was written by the node that had it before
	Canceled   bool // its notification, while the row was in somebody's hands
	Now        TargetNow
}

// ClaimOrder asks for due rows of a lane.
type ClaimOrder struct {
	Lane      Lane
	Limit     int
	PerTenant int
	Now       time.Time
	Lease     time.Time
	Claim     int64
}

// Finish writes what became of a leased row. It leaves the row alone when the
// claim has been lost; what the verdict says of the device and the credential
// counts all the same.
type Finish struct {
	Row        Row // identity, claim, and the counters as they were
	Transition Transition
	ExpiresAt  time.Time // the deadline, as it may have moved
	// Attempt is nil when no request was made: the row is deferred, held,
	// expired or given back.
	Attempt    *Attempt
	Credential ids.ID // that was used, with its version
	Version    int
	Hold       Hold                 // for Transition.Hold: which
	Prove      bool                 // first success of this version
	Learned    channels.Environment // "" unless the attempt proved one
	StartedAt  time.Time            // a device registered again since is not retired
	Now        time.Time
}

// QueueStore is what the dispatcher needs.
type QueueStore interface {
	Claim(ctx context.Context, o ClaimOrder) ([]Claimed, error)
	// Begin writes that the attempt of a leased row begins; false: the claim is lost.
	Begin(ctx context.Context, r Row) (bool, error)
	// Finish writes in the background, batched with others, and calls done with
	// what came of it. It blocks while too much waits to be written.
	Finish(f Finish, done func(FinishResult))
	// Renew moves the end of leases; rows whose claim was lost are not touched.
	Renew(ctx context.Context, rows []Row, lease time.Time) (kept []bool, err error)
	Content(ctx context.Context, tenant, notification ids.ID) ([]byte, error)
	Target(ctx context.Context, tenant, target ids.ID, k channels.Kind) (TargetNow, error)
	// WriteBeat is when the writer last came round, and how much waits for it.
	WriteBeat() (last time.Time, waiting int)
	// Alive tells whether this node may begin to send, or has been silent for so
	// long that others may have taken over what it has in hand.
	Alive() bool
	// Unfinished counts rows that are not final, up to limit.
	Unfinished(ctx context.Context, limit int) (int, error)
}

// FinishResult tells what a Finish did.
type FinishResult struct {
	Err  error
	Lost bool // the claim was not ours any more: the row was left alone
	// Written is what the row has become. That differs from what was asked for
	// when the hold has ended meanwhile (pending again), or when what would be
	// tried again belongs to a notification that was canceled (dropped).
	Written Transition
	// Opened: the hold did not stand before.
	Opened bool
}

// Scheduled is a notification whose targets are due to be resolved.
type Scheduled struct {
	Tenant, Notification ids.ID
	Lane                 Lane
	SendAt               time.Time
	AtMostOnce           bool
	Type                 string
}

// CommandStore is what people's commands and the care loops need.
type CommandStore interface {
	// TakeDuty makes background work that one node does this node's for a while.
	TakeDuty(ctx context.Context, name string, every time.Duration) (bool, error)
	// DueScheduled leases up to limit markers that are due, oldest first: no other
	// node gets them for a while, nor does this one.
	DueScheduled(ctx context.Context, now time.Time, limit int) ([]Scheduled, error)
	// ResolveScheduled stores the deliveries of a marker and removes it, in one
	// transaction; false when it is gone already.
	ResolveScheduled(ctx context.Context, a Accepted) (bool, error)
	// Cancel drops what is pending or held of a notification, and its marker.
	Cancel(ctx context.Context, tenant, notification ids.ID, now time.Time) (int, error)
	// Replay moves a dead delivery to pending with a new round and deadline. A
	// notification that was canceled is not any more.
	Replay(ctx context.Context, tenant, notification, target ids.ID, now time.Time, ttl func(Request, channels.Kind) time.Duration, actor string) error
	// HoldsEndingOrDenied lists the holds of all tenants that end, or that a provider's
	// refusal made.
	HoldsEndingOrDenied(ctx context.Context) ([]Hold, error)
	// EndHold says where the deliveries of a hold go; false: it does not stand.
	EndHold(ctx context.Context, hold ids.ID, e Ending) (bool, error)
	// MoveHeld moves up to limit rows of a hold that ends, and removes the hold
	// with the last one.
	MoveHeld(ctx context.Context, h Hold, limit int, now time.Time) (moved int, done bool, err error)
	// RecoverCredential resumes a credential that its provider takes again.
	RecoverCredential(ctx context.Context, tenant, id ids.ID) error
	// UnretireDevices makes devices suspect again that a version retired since.
	UnretireDevices(ctx context.Context, credential ids.ID, version int, since, now time.Time) (int, error)
	// Purge removes up to limit rows of each table that are past their time: the
	// tenant's own where its settings name one, r otherwise.
	Purge(ctx context.Context, r Retention, now time.Time, limit int) (int, error)
}

// UpkeepStore is what the slow loop needs.
type UpkeepStore interface {
	// RetireStale retires devices, as stale, of which nothing was heard for so long,
	// or for as long as the tenant's settings say: no registration, and no success
	// among the deliveries that are kept. 0 is never.
	RetireStale(ctx context.Context, after time.Duration, now time.Time) (int, error)
	// DropExpiredSecrets removes the secrets of endpoints that do not count any more.
	DropExpiredSecrets(ctx context.Context, now time.Time) (int, error)
	// DropReplacedCredentials removes the secrets of up to limit credential versions
	// that were replaced before a time.
	DropReplacedCredentials(ctx context.Context, before time.Time, limit int) (int, error)
	// DropOldKeys removes up to limit API keys that were revoked or expired before
	// a time.
	DropOldKeys(ctx context.Context, before time.Time, limit int) (int, error)
}

// DirectoryStore reads what the engine keeps in memory of a tenant.
type DirectoryStore interface {
	Tenant(context.Context, ids.ID) (tenants.Tenant, error)
	Credentials(ctx context.Context, tenant ids.ID) ([]tenants.Credential, error)
	OpenCredential(ctx context.Context, tenant, id ids.ID) (channels.Credential, error)
	// StandingHolds lists the holds of a tenant that do not end yet.
	StandingHolds(ctx context.Context, tenant ids.ID) ([]Hold, error)
}

// HintStore carries hints between the nodes of a database.
type HintStore interface {
	Hint(Hint)
	OnHint(func(Hint))
}

// Store is all of it.
type Store interface {
	HintStore
	ShareStore
	AcceptStore
	QueueStore
	CommandStore
	UpkeepStore
	ErasureStore
	ReplayStore
	DirectoryStore
	PauseStore
}

// Retention says how long things are kept.
type Retention struct {
	SentPayload time.Duration // content of notifications with nothing unfinished or dead
	DeadPayload time.Duration // content of dead letters
	Rows        time.Duration // notifications and all that belongs to them
}

// For is the retention of a tenant with these settings: what they leave out is
// the server's.
func (r Retention) For(own tenants.Retention) Retention {
	replace := func(d *time.Duration, ms *int64) {
		if ms != nil {
			*d = time.Duration(*ms) * time.Millisecond
		}
	}
	replace(&r.SentPayload, own.Sent)
	replace(&r.DeadPayload, own.Dead)
	replace(&r.Rows, own.Rows)
	return r
}

// DefaultRetention is 24 h for content, 30 days for dead letters and rows.
func DefaultRetention() Retention {
	const day = 24 * time.Hour
	return Retention{SentPayload: day, DeadPayload: 30 * day, Rows: 30 * day}
}

// Hint tells another node to look at something at once. It may be lost: the next
// poll finds what it was about.
type Hint struct {
	Kind                 HintKind
	Tenant, Notification ids.ID // as the kind needs them
}

// HintKind says what to look at.
type HintKind uint8

// The kinds, as nodes of different versions send them to each other.
const (
	HintDue      HintKind = 1 // deliveries that are due
	HintHolds    HintKind = 2 // holds that end
	HintTenant   HintKind = 3 // a tenant whose settings, credentials or holds changed
	HintCanceled HintKind = 4 // a notification that was canceled
	HintShared   HintKind = 5 // what nodes tell each other, see ShareStore
)
