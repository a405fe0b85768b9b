package devices

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

const (
	// MaxPage is how many devices a list returns at most.
	MaxPage = 500
	// MaxBatch is how many are registered with one call.
	MaxBatch = 1000
	// MaxTogether is how many of them are stored in one transaction, so that nobody waits
	// long behind them.
	MaxTogether = 250
)

// Quota bounds how many a tenant may have. *quota.Quota is one.
type Quota interface {
	// Room is how many more there may be, and what is answered to those beyond.
	Room(tenant ids.ID) (left int, full error)
	Add(tenant ids.ID, n int)
}

// Options of a Registry. All are needed.
type Options struct {
	Store    Store
	Quota    Quota
	Channels map[channels.Kind]channels.Channel // those whose targets are devices
	IDs      *ids.Generator
	Now      func() time.Time
}

// Registry registers devices. It validates; what it hands to the store is
// sound and in canonical form. It is safe for concurrent use.
type Registry struct {
	store    Store
	quota    Quota
	channels map[channels.Kind]channels.Channel
	ids      *ids.Generator
	now      func() time.Time
	zones    sync.Map      // names of time zones that exist; there are some 600
	lists    chan struct{} // one part of a list is stored at a time, so that others can write beside it
}

// NewRegistry makes a Registry.
func NewRegistry(o Options) *Registry {
	return &Registry{store: o.Store, quota: o.Quota, channels: o.Channels, ids: o.IDs, now: o.Now, lists: make(chan struct{}, 1)}
}

// Registration is what a caller says of a device. Only User, Channel and Address
// are needed, and P256dh and Auth for web push.
type Registration struct {
	User    string
	App     string // "" is "default"
	Channel channels.Kind
	Kind    channels.AddressKind // "" is the channel's usual one: token, apns or subscription
	Address string               // token, installation id, or endpoint of a push subscription

	Environment string // APNs: production, sandbox or auto
	P256dh      string // web push: base64url, as PushSubscription.toJSON() gives it
	Auth        string
	VAPIDKey    string // web push: the applicationServerKey of the subscription, base64url; "" is unknown
	Purpose     string // APNs: alert, voip, push_to_start, activity or widget; "" is alert
	ActivityID  string // APNs: needed for an activity

	InstallationID string
	OS             string
	AppVersion     string
	Locale         string // BCP 47; stored in canonical form
	TimeZone       string // IANA
	Tags           map[string]string
	RegisteredAt   time.Time // zero: unknown
	LastSeenAt     time.Time // zero: unknown
	ExpiresAt      time.Time // of a subscription or an activity; zero: never, and of an activity after ActivityLife
	By             Caller
}

// defaultApp is used where a caller names no app.
const defaultApp = "default"

// Device returns a device of the tenant.
func (r *Registry) Device(ctx context.Context, tenant, id ids.ID) (Device, error) {
	return r.store.Device(ctx, tenant, id)
}

// DeviceWindow is where a page of Devices has to stop: see Store.
func (r *Registry) DeviceWindow(ctx context.Context, tenant ids.ID, f Filter) (ids.ID, error) {
	return r.store.DeviceWindow(ctx, tenant, f)
}

// Devices lists what the filter selects, at most MaxPage.
func (r *Registry) Devices(ctx context.Context, tenant ids.ID, f Filter) ([]Device, error) {
	f.Limit = min(max(f.Limit, 1), MaxPage)
	return r.store.Devices(ctx, tenant, f)
}

// History lists the newest events of a device, the newest first.
func (r *Registry) History(ctx context.Context, tenant, id ids.ID) ([]Event, error) {
	return r.store.DeviceHistory(ctx, tenant, id)
}

// Delete forgets a device. user, unless empty, must be its owner: otherwise the
// device counts as absent.
func (r *Registry) Delete(ctx context.Context, tenant, id ids.ID, user, actor string) error {
	return r.deleted(tenant, r.store.DeleteDevice(ctx, tenant, id, user, actor))
}

// DeleteAddress forgets the device with an address, in any form that Register
// takes. An empty App is "default".
func (r *Registry) DeleteAddress(ctx context.Context, tenant ids.ID, key AddressKey, user, actor string) error {
	if key.App == "" {
		key.App = defaultApp
	}
	key.Address = strings.TrimSpace(key.Address)
	var faults problem.Fields
	channel := r.channel(&faults, key.Channel)
	if key.Address == "" {
		faults.Add("address", "is missing; name the address to forget")
	}
	if err := faults.Err(); err != nil {
		return err
	}
	// What cannot be checked without more than the address, such as a
	// subscription without its keys, is looked up as it was given.
	t, err := channel.CheckTarget(channels.Target{Kind: addressKinds(key.Channel)[0], Address: key.Address})
	if err == nil {
		key.Address = t.Address
	}
	return r.deleted(tenant, r.store.DeleteAddress(ctx, tenant, key, user, actor))
}

func (r *Registry) deleted(tenant ids.ID, err error) error {
	if err == nil {
		r.quota.Add(tenant, -1)
	}
	return err
}
