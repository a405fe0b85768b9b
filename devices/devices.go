// Package devices is the registry of addresses: which device of which user at
// which app can be reached over which channel, and since when it cannot.
package devices

import (
	"context"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// Status of a device. The numbers are stored; a test pins them.
type Status uint8

// The statuses.
const (
	// Active devices get notifications.
	Active Status = 1
	// Suspect devices get notifications too: a provider called the address dead,
	// but a wrong credential could have caused that answer. An accepted send
	// settles it either way.
	Suspect Status = 2
	// Retired devices get nothing: the provider said the address is gone, or the
	// subscription expired. Restorable for 30 days, and revived when
	// the app registers the address again.
	Retired Status = 3
)

var statusNames = [...]string{Active: "active", Suspect: "suspect", Retired: "retired"}

func (s Status) String() string {
	if int(s) < len(statusNames) && statusNames[s] != "" {
		return statusNames[s]
	}
	return fmt.Sprintf("status(%d)", uint8(s))
}

// ParseStatus reads a status's name.
func ParseStatus(s string) (Status, bool) {
	for n, name := range statusNames {
		if name == s && s != "" {
			return Status(n), true
		}
	}
	return 0, false
}

// Device is an address of a user at an app.
type Device struct {
	Tenant ids.ID
	ID     ids.ID
	UserID ids.ID
	User   string // the tenant's own id of the user
	// Epoch grows whenever the device changes hands, or its address is for something
	// else. A delivery carries the epoch it was accepted for and is dropped when they
	// differ.
	Epoch          int
	App            string
	Channel        channels.Kind
	Target         channels.Target  // Kind, Address, Environment, P256dh, Auth, OS, RegisteredAt
	Purpose        channels.Purpose // what an APNs token is for; Alert on other channels
	ActivityID     string           // of an APNs token that is for one Live Activity; the app's own id of it
	VAPIDKey       string           // web push: the public key that the subscription is bound to; "" where unknown
	InstallationID string           // "" where unknown
	AppVersion     string
	Locale         string            // BCP 47
	TimeZone       string            // IANA
	Tags           map[string]string // at most 32
	LastSeenAt     time.Time         // zero: unknown
	ExpiresAt      time.Time         // of a push subscription, or the end of a Live Activity; zero: never
	Status         Status
	Reason         string // why it is suspect or retired: "fcm.unregistered" ...
	StatusAt       time.Time
	CreatedAt      time.Time
	UpdatedAt      time.Time
}

const (
	// MaxOwn is how many installations a user has at most after registering a device
	// with a user's token: one user could otherwise make every notification that
	// names them among others too large. A device without an installation id counts
	// as one.
	MaxOwn = 20
	// MaxActivities is how many Live Activities of an installation have a device:
	// each gets its own delivery. Apple's systems run a few at once.
	MaxActivities = 8
	// ActivityLife is for how long a Live Activity can be seen: 8 hours as it runs
	// and 4 after its end ("Displaying live data with Live Activities").
	ActivityLife = 12 * time.Hour
)

// Filter selects devices for a list. Zero members select everything.
type Filter struct {
	User    string
	Channel channels.Kind
	Status  Status
	App     string
	After   ids.ID // the last id of the page before
	To      ids.ID // the last that is looked at: see Store.DeviceWindow
	Limit   int    // 1 to 500
}

// Registered tells what an upsert did.
type Registered struct {
	Device  Device
	Created bool
	// Rebound: the address belonged to another user, who has lost it now.
	Rebound bool
	// Replaced: another address of the same installation gave way to this one.
	Replaced bool
	// Err is why it was refused, in a list; nothing was changed then.
	Err error
}

// Store keeps devices. What is absent, or another tenant's, is problem.NotFound.
type Store interface {
	ExportStore
	// UpsertDevice registers an address in one transaction. The same address
	// (tenant, app, channel, address) is one device, whoever registers it: it
	// moves to the new user with a new epoch. Of an installation there is one
	// device of each (app, installation id, channel, purpose, activity id): the new
	// address takes the old one's place and id; only a new device takes the id of d.
	// Registering revives a suspect or retired device. Beyond MaxActivities, those of
	// the installation that were not heard of for longest are forgotten.
	//
	// Where the caller holds a user's token, only an installation of that user
	// gives way, and beyond MaxOwn the oldest of the user's installations are
	// forgotten, with all their devices.
	UpsertDevice(ctx context.Context, d Device, by Caller) (Registered, error)
	// UpsertDevices comes to what UpsertDevice would come to for one device of a tenant after the
	// other, in one transaction: of those with one address the last wins. There is a
	// result for each, in order.
	UpsertDevices(ctx context.Context, tenant ids.ID, list []Device, by Caller) ([]Registered, error)
	// HasPair tells whether a VAPID key is that of a pair of an app.
	HasPair(ctx context.Context, tenant ids.ID, app, key string) (bool, error)
	Device(ctx context.Context, tenant, id ids.ID) (Device, error)
	// DeviceWindow is the device at which a page of Devices stops to look, where the filter passes
	// devices over: a page costs what it looks at, not what there is. 0: it may look to
	// the end.
	DeviceWindow(ctx context.Context, tenant ids.ID, f Filter) (ids.ID, error)
	Devices(ctx context.Context, tenant ids.ID, f Filter) ([]Device, error)
	// UpdateDevice changes what is known of a device, as it is at that moment.
	UpdateDevice(ctx context.Context, tenant, id ids.ID, p Patch) (Device, error)
	// DeleteDevice forgets an address. user, unless empty, must be its owner.
	DeleteDevice(ctx context.Context, tenant, id ids.ID, user, actor string) error
	// DeleteAddress is the same by address, for a browser that unsubscribes.
	DeleteAddress(ctx context.Context, tenant ids.ID, key AddressKey, user, actor string) error
	// DeviceHistory lists the newest events of a device, the newest first: at most
	// MaxHistory of the last KeepHistory, also of one that was deleted.
	DeviceHistory(ctx context.Context, tenant, id ids.ID) ([]Event, error)
}

// AddressKey is what makes a device unique in its tenant.
type AddressKey struct {
	App     string
	Channel channels.Kind
	Address string
}
