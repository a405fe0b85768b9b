// Package channels says what a channel is: one way of reaching a target, such
// as APNs or a signed webhook. A channel checks, prepares and sends; it never
// decides what becomes of a delivery. It answers with a verdict (Result) that
// names who is at fault, and package delivery turns verdicts into states.
package channels

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Kind names a channel. The numbers are stored; a test pins them.
type Kind uint8

// The channels.
const (
	FCM     Kind = 1
	APNs    Kind = 2
	WebPush Kind = 3
	Webhook Kind = 4
)

var kindNames = [...]string{FCM: "fcm", APNs: "apns", WebPush: "webpush", Webhook: "webhook"}

// Kinds lists all channels in a fixed order.
func Kinds() []Kind { return []Kind{FCM, APNs, WebPush, Webhook} }

func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("channel(%d)", uint8(k))
}

// ParseKind reads a channel's name.
func ParseKind(s string) (Kind, bool) {
	for k, name := range kindNames {
		if name == s && s != "" {
			return Kind(k), true
		}
	}
	return 0, false
}

// MarshalText makes a Kind its name in JSON, also as a map key.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads the name.
func (k *Kind) UnmarshalText(b []byte) error {
	v, ok := ParseKind(string(b))
	if !ok {
		return fmt.Errorf("unknown channel %q; use fcm, apns, webpush or webhook", b)
	}
	*k = v
	return nil
}

// AddressKind says what an address is. The names are stored and shown.
type AddressKind string

// The kinds of address.
const (
	FCMToken     AddressKind = "token"        // FCM registration token
	FCMFid       AddressKind = "fid"          // Firebase installation id
	APNsToken    AddressKind = "apns"         // APNs device token, hexadecimal
	Subscription AddressKind = "subscription" // PushSubscription of a browser
	URL          AddressKind = "url"          // webhook endpoint
)

// Environment of an APNs token: which gateway knows it.
type Environment string

// The APNs environments. Auto means that nobody knows yet: production is tried
// first, the sandbox once if production does not know the token.
const (
	Production Environment = "production"
	Sandbox    Environment = "sandbox"
	Auto       Environment = "auto"
)

// Channel is one way of reaching a target. It holds no tenant's credential and
// is safe for concurrent use.
type Channel interface {
	Kind() Kind

	// ParseCredential reads what a tenant put, refuses at once what cannot work
	// (a *problem.Error with code credential_refused or invalid that names the
	// field), and splits it into what may be read back and what must be sealed.
	// prior is the Settings of the version that it replaces, nil for the first:
	// a change that would orphan every device, such as another project, is
	// refused. No network.
	ParseCredential(input []byte, prior json.RawMessage) (Credential, error)

	// CheckTarget refuses an address that can never work (a *problem.Error that
	// names the field: "address", "environment", "keys.auth" ...) and returns
	// it in canonical form. Send may assume that it was called. No network.
	CheckTarget(Target) (Target, error)

	// Prepare turns a message into what all its deliveries on this channel
	// share. It merges Message.Override (allow-listed; anything else is an
	// error with its path) and refuses what the provider would refuse,
	// payload_too_large included.
	Prepare(Message) (Payload, error)

	// Open makes a sender for one credential version. No network.
	Open(Credential) (Sender, error)
}

// Sender sends with one version of one credential. It is safe for concurrent use.
type Sender interface {
	// Send makes exactly one request that the provider may act upon, and returns
	// a verdict; it may ask for a token, or whether a key is good, besides. It
	// never retries and never waits for a rate limit. It drops a
	// stale token or connection itself when its Result asks for a renewal.
	Send(context.Context, Target, Payload, Life) Result

	// Probe tells whether the credential is good, in a request that reaches
	// nobody.
	Probe(context.Context) Result

	// Close drops tokens and idle connections, after sends in flight have ended.
	Close()
}

// Credential is one version of a tenant's credential for a channel.
type Credential struct {
	ID       int64 // 0 until stored
	Version  int
	Settings json.RawMessage // shown on read: project, key id, topics, public key ...
	Secret   []byte          // opened; never logged, never shown
	// Qualifier tells credentials of one app and channel apart: the APNs
	// environment ("" for both), the VAPID public key, "" for FCM.
	Qualifier string
	ExpiresAt time.Time // zero: does not expire
}

// UnescapeLines puts line breaks where a PEM text has them as \n and \r\n in
// letters, as it does when it was copied out of a JSON file or an environment
// variable. No PEM has a backslash.
func UnescapeLines(pem string) string {
	return strings.NewReplacer(`\r\n`, "\n", `\n`, "\n", `\r`, "").Replace(pem)
}

// String keeps a credential out of logs, whatever verb prints it.
func (c Credential) String() string { return fmt.Sprintf("credential %d version %d", c.ID, c.Version) }

// GoString does the same for %#v.
func (c Credential) GoString() string { return c.String() }

// Target is where a delivery goes: a device's address or an endpoint.
type Target struct {
	Kind        AddressKind
	Address     string      // token, fid, hex token, push endpoint or webhook URL
	Environment Environment // APNs only
	P256dh      []byte      // web push: 65 octets
	Auth        []byte      // web push: 16 octets
	Secrets     [][]byte    // webhook: signing keys that count now, newest first
	OS          string      // "ios", "android", "web" ...; "" where unknown
	// RegisteredAt is the app's last registration of this address. Zero means
	// unknown and counts as older than any time a provider names.
	RegisteredAt time.Time
}

// String keeps addresses and keys out of logs.
func (t Target) String() string { return string(t.Kind) + " target" }

// GoString does the same for %#v.
func (t Target) GoString() string { return t.String() }

// Priority is what the provider is told; it does not reorder Carillon's queue.
type Priority string

// The priorities.
const (
	High   Priority = "high"
	Normal Priority = "normal"
	Low    Priority = "low"
)

// Validation says how an override is checked.
type Validation string

// The kinds of validation. With Lenient, members that Carillon does not know
// pass to the provider, whose lists grow faster than ours.
const (
	Strict  Validation = "strict" // also where none was given
	Lenient Validation = "lenient"
)

// Message is the content of a notification, the same for every target.
type Message struct {
	Notification string // ntf_ id
	Type         string // "" where none was given
	CreatedAt    time.Time
	Title        string
	Body         string
	Image        string          // https URL
	URL          string          // opened on a tap or click
	Data         json.RawMessage // a JSON object, or nil
	Badge        *int
	Sound        string
	Silent       bool     // wakes the app, shows nothing
	Priority     Priority // "": high where something is shown, else normal
	CollapseKey  string
	Override     json.RawMessage // overrides.<this channel>, or nil
	Validation   Validation      // of Override; "" is Strict
	// Accepted: it passed Prepare when it was accepted, maybe by a version with
	// other rules. What only a rule of today refuses is then mended or left as it
	// is, because a refusal would lose what was accepted.
	Accepted bool
}

// ReplaceID names what is shown on a device: a second copy with the same name takes the
// place of the first. Where the caller gives no collapse key it is the notification's
// own, so that one that is sent again, because nobody knows whether it was received,
// is seen once.
func (m Message) ReplaceID() string { return cmp.Or(m.CollapseKey, m.Notification) }

// Lenient tells whether unknown members of Override pass. Those of an accepted
// message have passed already.
func (m Message) Lenient() bool { return m.Validation == Lenient || m.Accepted }

// ReservedKey carries the delivery's id in every push payload; callers may not
// use it in data.
const ReservedKey = "carillon"

// Payload is what Prepare made. It is immutable and shared by concurrent sends.
type Payload interface {
	// Size is what counts against the provider's limit, in bytes, with the
	// delivery's id in place. A sender that encrypts counts the plaintext.
	Size() int
	// Preview shows the payload as it would be sent to the named delivery.
	Preview(delivery string) json.RawMessage
}

// Life is what differs between the attempts of one delivery.
type Life struct {
	Delivery     string    // dlv_ id, the same on every attempt
	Notification string    // ntf_ id: the webhook-id
	UUID         string    // apns-id, derived from the delivery
	Attempt      int       // 1 for the first
	Renewed      Renewal   // what the attempt before this one asked for
	AtMostOnce   bool      // it ends if it may have been acted upon without an answer
	ExpiresAt    time.Time // the deadline; what remains of it goes to the provider
}

// Remaining is the time to live to tell the provider: whole seconds, rounded
// down, and never negative.
func (l Life) Remaining(now time.Time) time.Duration {
	return max(l.ExpiresAt.Sub(now).Truncate(time.Second), 0)
}
