// Package tenants holds what belongs to a tenant as a whole: the tenant and its
// settings, API keys and their scopes, user keys, apps and provider credentials.
package tenants

import (
	"encoding/json"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// Tenant is the isolation boundary: nothing that belongs to one is ever seen,
// named or touched with the key of another.
type Tenant struct {
	ID        ids.ID
	Name      string // the id that callers use: chosen by them, or ten_...
	Title     string // for people
	Settings  Settings
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt time.Time // zero: it is not being deleted
}

// Deleting tells whether the tenant is on its way out: its keys are refused,
// nothing of it is sent any more, and its rows are being removed.
func (t Tenant) Deleting() bool { return !t.DeletedAt.IsZero() }

// Settings of a tenant. Everything is optional; what is absent has the default
// of the server.
type Settings struct {
	// Retry replaces a channel's retry policy.
	Retry map[channels.Kind]RetryPolicy `json:"retry,omitempty"`
	// TTL replaces a channel's default time to live, in seconds.
	TTL map[channels.Kind]int64 `json:"ttl,omitempty"`
	// Origins may register browsers with user tokens (CORS), such as
	// https://app.example.com. "*" is not allowed.
	Origins []string `json:"origins,omitempty"`
	// Retention replaces how long things are kept.
	Retention Retention `json:"retention,omitzero"`
	// StaleAfter is after how long without a registration a device is retired,
	// in milliseconds. 0 is never.
	StaleAfter *int64 `json:"stale_after_ms,omitempty"`
}

// Retention says how long things are kept, in milliseconds. It may be shorter or
// longer than the server's default.
type Retention struct {
	// Sent is for the content of a notification, after the last of its deliveries
	// is final.
	Sent *int64 `json:"sent_ms,omitempty"`
	// Dead is for dead letters with their content.
	Dead *int64 `json:"dead_ms,omitempty"`
	// Rows is for everything else of a notification.
	Rows *int64 `json:"rows_ms,omitempty"`
}

// RetryPolicy says when a failed attempt is followed by another.
type RetryPolicy struct {
	// Preset is a named schedule: "default", "six-step", "standard-webhooks" or
	// "fast". Empty: Delays.
	Preset string `json:"preset,omitempty"`
	// Delays before the second, third ... attempt, in milliseconds. Their number
	// plus one is the number of attempts.
	Delays []int64 `json:"delays_ms,omitempty"`
	// Jitter is the share by which each delay varies both ways, 0 to 0.5.
	Jitter *float64 `json:"jitter,omitempty"`
	// Floor is the least wait that a provider's error imposes where it names
	// none (such as 10 s after a 503 of FCM), in milliseconds. Tests and demos
	// lower it; a provider's own Retry-After always counts.
	Floor *int64 `json:"floor_ms,omitempty"`
}

// Scope is what a key may do.
type Scope string

// The scopes. Operator is of another kind: only operator keys have it, and they
// name the tenant they act for in the Carillon-Tenant header.
const (
	Send        Scope = "send"        // notifications: post, cancel, replay
	Devices     Scope = "devices"     // register, read and delete devices
	Read        Scope = "read"        // read notifications, deliveries, dead letters, holds
	Webhooks    Scope = "webhooks"    // endpoints
	Credentials Scope = "credentials" // apps, credentials, user keys, pause and resume
	Erase       Scope = "erase"       // erase users, and read the receipts
	Admin       Scope = "admin"       // the tenant's own settings and keys, and all of the above
	Operator    Scope = "operator"    // tenants
)

// Scopes lists what a tenant's key may hold.
func Scopes() []Scope { return []Scope{Send, Devices, Read, Webhooks, Credentials, Erase, Admin} }

// Key is an API key. Its secret is shown once, when it is made.
type Key struct {
	ID         ids.ID
	Tenant     ids.ID // 0: an operator key
	Name       string
	Scopes     []Scope
	Hash       []byte // SHA-256 of the secret
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: never
	RevokedAt  time.Time // zero: not revoked
	LastUsedAt time.Time // to the minute; zero: never
}

// UserKey verifies the short-lived tokens that a tenant's backend signs for its
// users' browsers and apps.
type UserKey struct {
	ID        ids.ID
	Tenant    ids.ID
	Name      string
	Secret    []byte // HS256 secret: the bytes of the text that is shown once; sealed at rest
	CreatedAt time.Time
}

// String keeps the secret out of logs, whatever verb prints it.
func (k UserKey) String() string { return "user key " + k.ID.Format(ids.UserKey) }

// GoString does the same for %#v.
func (k UserKey) GoString() string { return k.String() }

// App is one of a tenant's applications. "default" exists from the start.
type App struct {
	Tenant    ids.ID
	Name      string    // [a-z0-9][a-z0-9_-]{0,62}
	CreatedAt time.Time // zero: nobody has made it, and devices alone name it
}

// MaxDeviceApps is how many apps are listed, per channel, that devices alone name.
const MaxDeviceApps = 1000

// DefaultApp is used where a caller names no app.
const DefaultApp = "default"

// CredentialStatus says whether deliveries use a credential.
type CredentialStatus string

// The statuses of a credential.
const (
	CredentialActive CredentialStatus = "active"
	CredentialPaused CredentialStatus = "paused" // by a person, or because the provider refused it
)

// Credential is what is stored of a credential. The secret is not in it: see
// Store.OpenCredential.
type Credential struct {
	Tenant    ids.ID
	ID        ids.ID
	App       string
	Channel   channels.Kind
	Qualifier string // channels.Credential.Qualifier
	Version   int    // grows with every put
	Settings  json.RawMessage
	Status    CredentialStatus
	Reason    string // why it is paused
	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt time.Time // zero: never
	// ProvenAt is the first success of this version. Zero: none yet, so no
	// answer of a provider may retire a device on its word.
	ProvenAt time.Time
	// Verification is how this version stands with its provider.
	Verification Verification
}

// CredentialVersion is one of a credential.
type CredentialVersion struct {
	Version                        int
	Settings                       json.RawMessage
	Actor                          string // who put it; "" in versions from before it was noted
	CreatedAt, ExpiresAt, ProvenAt time.Time
	Verification                   Verification
	AutoRollback                   bool
	Current                        bool
	Kept                           bool // its content is, so that it can be gone back to
}
