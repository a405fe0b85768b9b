package delivery

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
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
	Takeovers                    int // by how many nodes that died it was being sent, or may have been
	Unknown                      bool
	Renewed                      channels.Renewal
	UpdatedAt                    time.Time
	// OrderKey stands for the collapse key of a push: of the deliveries of a device
	// that share it the newest counts. 0: none.
	OrderKey int64
	Replaces ids.ID // the notification that was the newest before; 0: none
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
	CreatedAt time.Time // about
	ReadAt    time.Time
	ExpiresAt time.Time // of a subscription
}

// origin is the push service, or the host, of a target: https://push.example.com.
func (t *TargetNow) origin() string { return originOf(t.Target.Address) }

// Claimed is a row that Claim leased, with its target. Was is the state that it
// was found in: Sending means that its node died, Held that its deadline came.
type Claimed struct {
	Row
	Was        State
	AtMostOnce bool
	Begun      bool // Begin was written by the node that had it before
	Canceled   bool // its notification, while the row was in somebody's hands
	Asked      bool // a person asked for it to be sent now, whatever it waits for
	Now        TargetNow
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

// Waited is what a delivery has waited for, or waits for: see Wait. Zero: nothing that
// is known.
type Waited struct {
	Cause   WaitCause
	Subject ids.ID
	Origin  string
	Device  bool // it is its own device that had to wait
	Detail  string
	Since   time.Time // when the trouble began
	Until   time.Time // as was known
	At      time.Time // when it was put off
}

// waitedFor is what a gate has a delivery wait for.
func waitedFor(g standing, now time.Time) Waited {
	return Waited{Cause: g.why.Cause, Subject: g.why.Subject, Origin: g.why.Origin, Device: !g.shared, Detail: g.why.Detail,
		Since: g.why.Since, Until: g.opens, At: now}
}

// originOf cuts a URL after its host: https://push.example.com.
func originOf(raw string) string {
	scheme := strings.Index(raw, "://")
	if scheme < 0 {
		return ""
	}
	if path := strings.IndexByte(raw[scheme+3:], '/'); path >= 0 {
		return raw[:scheme+3+path]
	}
	return raw
}

// uuidOf derives a UUID (version 8, RFC 9562) from a delivery, the same on every
// attempt: APNs takes it as apns-id.
func uuidOf(notification, target ids.ID) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(notification))
	binary.BigEndian.PutUint64(b[8:], uint64(target))
	// The version takes four bits, which are folded into the top of the first
	// byte; the variant takes two that no id sets before 2060.
	b[0] ^= b[6] & 0xf0
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[:8], b[:4])
	out[8] = '-'
	hex.Encode(out[9:13], b[4:6])
	out[13] = '-'
	hex.Encode(out[14:18], b[6:8])
	out[18] = '-'
	hex.Encode(out[19:23], b[8:10])
	out[23] = '-'
	hex.Encode(out[24:], b[10:])
	return string(out[:])
}
