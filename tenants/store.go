package tenants

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// Page asks for a part of a list, newest first unless said otherwise.
type Page struct {
	After ids.ID // the last id of the page before; 0 for the first
	Limit int    // 1 to 500
}

// Change says who makes a change, for the audit row that is written with it.
type Change struct {
	Actor  string // "key_...", "cli", "engine"
	Action string // "credential.put", "key.revoke" ...
}

// Store keeps tenants. Lists are never longer than the page. What is absent, or
// another tenant's, is problem.NotFound.
type Store interface {
	CreateTenant(context.Context, Tenant, Change) error // Conflict when the name is taken
	UpdateTenant(context.Context, Tenant, Change) error // title and settings; Conflict while it is being deleted
	// DeleteTenant refuses the tenant's keys, destroys its sealing keys, and has its
	// rows removed in the background. May be repeated until they are.
	DeleteTenant(ctx context.Context, id ids.ID, c Change) (Tenant, error)
	Tenant(context.Context, ids.ID) (Tenant, error)
	TenantByName(context.Context, string) (Tenant, error)
	Tenants(context.Context, Page) ([]Tenant, error) // oldest first
	KeyStore
	UserKeyStore
	CredentialStore
}

// KeyStore keeps API keys.
type KeyStore interface {
	CreateKey(context.Context, Key, Change) error
	Key(context.Context, ids.ID) (Key, error)
	Keys(ctx context.Context, tenant ids.ID, p Page) ([]Key, error)
	RevokeKey(ctx context.Context, tenant, id ids.ID, at time.Time, c Change) error // again: no error
	TouchKey(ctx context.Context, id ids.ID, at time.Time) error                    // last used
}

// UserKeyStore keeps user keys. Secrets are sealed on the way in and opened on
// the way out of UserKey; UserKeys lists them without.
type UserKeyStore interface {
	CreateUserKey(context.Context, UserKey, Change) error
	UserKey(ctx context.Context, id ids.ID) (UserKey, error)
	UserKeys(ctx context.Context, tenant ids.ID, p Page) ([]UserKey, error)
	DeleteUserKey(ctx context.Context, tenant, id ids.ID, c Change) error
}

// PutOptions say how a credential is put.
type PutOptions struct {
	Rotate bool // web push: another pair may stand beside those that the app has
	// Compromised: the secrets of the versions before are destroyed at once.
	Compromised bool
	// AutoRollback: it goes back to the version before if it is refused before its
	// first success.
	AutoRollback bool
	Verification Verification
}

// MostBound is how many subscriptions are looked at to say how many are bound.
const MostBound = 10_000

// Bound says how many subscriptions of an app, of those that are not retired, are
// bound to one of its VAPID pairs. Where not all were looked at, those that were are a
// fair sample.
type Bound struct {
	Pair, Unknown, App int
	LowerBound         bool // there may be more: MostBound were looked at
}

// Percent is the share of the app's subscriptions that are bound to the pair.
func (b Bound) Percent() int {
	if b.App == 0 {
		return 100
	}
	return b.Pair * 100 / b.App
}

// CredentialStore keeps apps and credentials.
type CredentialStore interface {
	PutApp(context.Context, App, Change) error // exists: no error
	// Apps lists those that were made, and up to MaxDeviceApps of a channel that only
	// devices name; by name.
	Apps(ctx context.Context, tenant ids.ID) ([]App, error)
	// DeleteApp removes an app with its credentials, and has its devices removed in
	// the background by the job that it names.
	DeleteApp(ctx context.Context, tenant ids.ID, name string, c Change) (job ids.ID, err error)

	// PutCredential stores a new version of the credential with this app,
	// channel and qualifier, creating it and the app where needed. In the same
	// transaction it ends the holds that the old version, or its absence,
	// caused. Version, times and status are set by the store.
	//
	// A second VAPID pair of an app is Conflict unless the put says that it rotates.
	PutCredential(context.Context, Credential, channels.Credential, PutOptions, Change) (Credential, error)
	Credential(ctx context.Context, tenant, id ids.ID) (Credential, error)
	Credentials(ctx context.Context, tenant ids.ID) ([]Credential, error) // at most 1,000
	// OpenCredential returns the newest version with its secret, for a sender.
	OpenCredential(ctx context.Context, tenant, id ids.ID) (channels.Credential, error)
	// RecoverCredential resumes a credential that the engine has paused because its
	// provider refused it; a person's pause stands.
	RecoverCredential(ctx context.Context, tenant, id ids.ID) error
	// CredentialVersions lists those of a credential, the newest first. MaxVersions are
	// kept, and the one that WayBack names.
	CredentialVersions(ctx context.Context, tenant, id ids.ID) ([]CredentialVersion, error)
	// OpenVersion returns a version with its secret; Conflict where that is destroyed.
	OpenVersion(ctx context.Context, tenant, id ids.ID, version int) (channels.Credential, error)
	// WayBack names the version to go back to where nobody says which: the newest from
	// before the content of the current one was put, that is kept, whose content
	// the provider has not refused, and that nobody went back from. 0: there is none.
	WayBack(ctx context.Context, tenant, id ids.ID) (int, error)
	// RollbackCredential makes a new version with the content of an earlier one.
	RollbackCredential(ctx context.Context, tenant, id ids.ID, to int, v Verification, c Change) (Credential, error)
	// NoteVerification writes what a provider says of the newest version.
	NoteVerification(ctx context.Context, tenant, id ids.ID, version int, v Verification) error
	// CountBound counts the subscriptions that are bound to a VAPID pair of an app.
	CountBound(ctx context.Context, tenant ids.ID, app, key string) (Bound, error)
	// DeleteCredential: its deliveries are held as credential_missing from then on.
	DeleteCredential(ctx context.Context, tenant, id ids.ID, c Change) error
	// PauseCredential makes a hold; ResumeCredential ends it and every other hold
	// on the credential. Both may be repeated.
	PauseCredential(ctx context.Context, tenant, id ids.ID, reason string, c Change) (Credential, error)
	ResumeCredential(ctx context.Context, tenant, id ids.ID, c Change) (Credential, error)
}
