package devices

import (
	"context"
	"encoding/base64"
	"strings"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/text"
)

// MaxPage is how many devices a list returns at most.
const MaxPage = 500

// Options of a Registry. All are needed.
type Options struct {
	Store    Store
	Channels map[channels.Kind]channels.Channel // those whose targets are devices
	IDs      *ids.Generator
	Now      func() time.Time
}

// Registry registers devices. It validates; what it hands to the store is
// sound and in canonical form. It is safe for concurrent use.
type Registry struct {
	store    Store
	channels map[channels.Kind]channels.Channel
	ids      *ids.Generator
	now      func() time.Time
	zones    sync.Map // names of time zones that exist; there are some 600
}

// NewRegistry makes a Registry.
func NewRegistry(o Options) *Registry {
	return &Registry{store: o.Store, channels: o.Channels, ids: o.IDs, now: o.Now}
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

	InstallationID string
	OS             string
	AppVersion     string
	Locale         string // BCP 47; stored in canonical form
	TimeZone       string // IANA
	Tags           map[string]string
	RegisteredAt   time.Time // zero: unknown
	LastSeenAt     time.Time // zero: unknown
	ExpiresAt      time.Time // zero: never
	Own            bool      // the caller holds a token of User, not a key of the tenant
}

// defaultApp is used where a caller names no app.
const defaultApp = "default"

// addressKinds lists what a device of a channel may be; the first is the usual one.
func addressKinds(k channels.Kind) []channels.AddressKind {
	switch k {
	case channels.FCM:
		return []channels.AddressKind{channels.FCMToken, channels.FCMFid}
	case channels.APNs:
		return []channels.AddressKind{channels.APNsToken}
	case channels.WebPush:
		return []channels.AddressKind{channels.Subscription}
	}
	return nil
}

// Register stores a device, or what has changed about it. Paths in the error are
// those of the JSON body ("keys.auth" for Auth); all faults are reported at once.
func (r *Registry) Register(ctx context.Context, tenant ids.ID, in Registration) (Registered, error) {
	now := r.now().UTC()
	if in.App == "" {
		in.App = defaultApp
	}
	var faults problem.Fields
	target := r.target(&faults, in)
	vapid := vapidKey(&faults, in)
	locale := r.describe(&faults, in)
	checkTimes(&faults, in, now)
	if err := faults.Err(); err != nil {
		return Registered{}, err
	}
	return r.store.UpsertDevice(ctx, Device{
		Tenant: tenant, ID: r.ids.Next(), User: in.User,
		App: in.App, Channel: in.Channel, Target: target, VAPIDKey: vapid,
		InstallationID: in.InstallationID, AppVersion: in.AppVersion,
		Locale: locale, TimeZone: in.TimeZone, Tags: in.Tags,
		LastSeenAt: in.LastSeenAt, ExpiresAt: in.ExpiresAt,
		Status: Active, StatusAt: now, CreatedAt: now, UpdatedAt: now,
	}, in.Own)
}

// Device returns a device of the tenant.
func (r *Registry) Device(ctx context.Context, tenant, id ids.ID) (Device, error) {
	return r.store.Device(ctx, tenant, id)
}

// Devices lists what the filter selects, at most MaxPage.
func (r *Registry) Devices(ctx context.Context, tenant ids.ID, f Filter) ([]Device, error) {
	f.Limit = min(max(f.Limit, 1), MaxPage)
	return r.store.Devices(ctx, tenant, f)
}

// Delete forgets a device. user, unless empty, must be its owner: otherwise the
// device counts as absent.
func (r *Registry) Delete(ctx context.Context, tenant, id ids.ID, user string) error {
	return r.store.DeleteDevice(ctx, tenant, id, user)
}

// DeleteAddress forgets the device with an address, in any form that Register
// takes. An empty App is "default".
func (r *Registry) DeleteAddress(ctx context.Context, tenant ids.ID, key AddressKey, user string) error {
	if key.App == "" {
		key.App = defaultApp
	}
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
	return r.store.DeleteAddress(ctx, tenant, key, user)
}

// channel finds the channel, or notes why there is none.
func (r *Registry) channel(faults *problem.Fields, kind channels.Kind) channels.Channel {
	c, ok := r.channels[kind]
	switch {
	case kind == 0:
		faults.Add("channel", "is missing; use fcm, apns or webpush")
	case addressKinds(kind) == nil:
		faults.Add("channel", "cannot be %s for a device; use fcm, apns or webpush", kind)
	case !ok:
		faults.Add("channel", "%s is switched off on this server", kind)
	default:
		return c
	}
	return nil
}

// target reads and checks the address, in canonical form.
func (r *Registry) target(faults *problem.Fields, in Registration) channels.Target {
	channel := r.channel(faults, in.Channel)
	if channel == nil {
		return channels.Target{}
	}
	var found problem.Fields
	kind := addressKind(&found, in)
	t := channels.Target{
		Kind: kind, Address: in.Address, Environment: channels.Environment(in.Environment),
		P256dh: decodeKey(&found, "keys.p256dh", in.P256dh), Auth: decodeKey(&found, "keys.auth", in.Auth),
		OS: in.OS, RegisteredAt: in.RegisteredAt,
	}
	if in.Address == "" {
		found.Add("address", "is missing; give the %s that the device got from its push service", kind)
	}
	err := found.Err()
	if err == nil { // otherwise the channel would only repeat the fault
		t, err = channel.CheckTarget(t)
	}
	faults.Merge("", err)
	return t
}

func addressKind(faults *problem.Fields, in Registration) channels.AddressKind {
	kinds := addressKinds(in.Channel)
	if in.Kind == "" {
		return kinds[0]
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		if k == in.Kind {
			return k
		}
		names[i] = string(k)
	}
	faults.Add("kind", "does not fit the channel %s; use %s", in.Channel, strings.Join(names, " or "))
	return kinds[0]
}

// decodeKey reads base64url, and the standard alphabet and padding as well:
// hand-written clients send both. "" is nil; the channel says whether it is needed.
func decodeKey(faults *problem.Fields, path, s string) []byte {
	if s == "" {
		return nil
	}
	digits := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(s, "="))
	key, err := base64.RawURLEncoding.DecodeString(digits)
	if err != nil || strings.ContainsAny(digits, "\r\n") {
		faults.Add(path, "is not base64url; pass on what the browser gives")
		return nil
	}
	return key
}

// vapidKey is the public key that a subscription is bound to, in the form in
// which credentials show theirs: unpadded base64url.
func vapidKey(faults *problem.Fields, in Registration) string {
	const path, pointSize, uncompressed = "vapid_key", 65, 4
	if in.VAPIDKey == "" {
		return ""
	}
	if in.Channel != channels.WebPush {
		faults.Add(path, "is for web push only; leave it out")
		return ""
	}
	key := decodeKey(faults, path, in.VAPIDKey)
	if key != nil && (len(key) != pointSize || key[0] != uncompressed) {
		faults.Add(path, "is not a P-256 public key of %d bytes; give the applicationServerKey that the browser subscribed with", pointSize)
	}
	return base64.RawURLEncoding.EncodeToString(key)
}

// checkUser adds what is wrong with the id of a user.
func checkUser(faults *problem.Fields, user string) {
	if err := text.CheckUser(user); err != nil {
		faults.Add("user", "%s; give your own id of the user, 1 to %d bytes of printable text", err, text.MaxUser)
	}
}
