package lists

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// complete adds what a row does not say.
func (r *Reader) complete(d *Device) {
	d.App = cmp.Or(d.App, r.o.Default.App)
	if d.FID == "" && d.Subscription == nil {
		d.Channel = cmp.Or(d.Channel, r.o.Default.Channel)
	}
	d.User = cmp.Or(d.User, r.o.Default.User)
	if d.User == "" && r.o.Anonymous != "" {
		sum := sha256.Sum256([]byte(d.address()))
		d.User = r.o.Anonymous + hex.EncodeToString(sum[:16])
	}
}

func (d *Device) address() string {
	if d.Subscription != nil {
		return d.Subscription.Endpoint
	}
	return cmp.Or(d.Token, d.FID)
}

// field is a member of a device as a column of CSV, in the order in which they are written.
type field struct {
	name string
	text func(*Device) *string // one of these
	at   func(*Device) *time.Time
}

func fields() []field {
	text := func(name string, f func(*Device) *string) field { return field{name: name, text: f} }
	at := func(name string, f func(*Device) *time.Time) field { return field{name: name, at: f} }
	return []field{
		text("id", func(d *Device) *string { return &d.ID }),
		text("user", func(d *Device) *string { return &d.User }),
		text("app", func(d *Device) *string { return &d.App }),
		text("channel", func(d *Device) *string { return &d.Channel }),
		text("token", func(d *Device) *string { return &d.Token }),
		text("fid", func(d *Device) *string { return &d.FID }),
		text("subscription.endpoint", func(d *Device) *string { return &d.subscription().Endpoint }),
		text("subscription.keys.p256dh", func(d *Device) *string { return &d.subscription().Keys.P256dh }),
		text("subscription.keys.auth", func(d *Device) *string { return &d.subscription().Keys.Auth }),
		text("subscription.vapid_key", func(d *Device) *string { return &d.subscription().VAPIDKey }),
		text("environment", func(d *Device) *string { return &d.Environment }),
		text("purpose", func(d *Device) *string { return &d.Purpose }),
		text("activity_id", func(d *Device) *string { return &d.ActivityID }),
		at("expires_at", func(d *Device) *time.Time { return &d.ExpiresAt }),
		text("installation_id", func(d *Device) *string { return &d.InstallationID }),
		text("os", func(d *Device) *string { return &d.OS }),
		text("app_version", func(d *Device) *string { return &d.AppVersion }),
		text("locale", func(d *Device) *string { return &d.Locale }),
		text("time_zone", func(d *Device) *string { return &d.TimeZone }),
		at("registered_at", func(d *Device) *time.Time { return &d.RegisteredAt }),
		at("last_seen_at", func(d *Device) *time.Time { return &d.LastSeenAt }),
	}
}

// Fields that are neither a text nor a time, and what begins the column of a single tag.
const (
	expirationTime = "subscription.expirationTime"
	tagsField      = "tags"
	oneTag         = "tags."
)

// addresses are the fields of which a list needs one.
func addresses() []string { return []string{"token", "fid", "subscription.endpoint"} }

func (d *Device) subscription() *Subscription {
	if d.Subscription == nil {
		d.Subscription = &Subscription{}
	}
	return d.Subscription
}

// setter writes the text of a column, which is not empty, into a device.
type setter func(d *Device, value string) error

// setterOf is nil where there is no such field.
func setterOf(name string) setter {
	if i := slices.IndexFunc(fields(), func(f field) bool { return f.name == name }); i >= 0 {
		f := fields()[i]
		if f.text != nil {
			return func(d *Device, v string) error { *f.text(d) = v; return nil }
		}
		return func(d *Device, v string) (err error) {
			*f.at(d), err = parseTime(name, v)
			return err
		}
	}
	switch {
	case name == expirationTime:
		return setExpiration
	case name == tagsField:
		return setTags
	case strings.HasPrefix(name, oneTag) && name != oneTag:
		return func(d *Device, v string) error { d.tag(name[len(oneTag):], v); return nil }
	}
	return nil
}

func setExpiration(d *Device, v string) error {
	ms, err := strconv.ParseFloat(v, 64)
	if err != nil {
		return &fault{expirationTime, "is not a number of milliseconds since 1970"}
	}
	d.subscription().ExpirationTime = &ms
	return nil
}

func setTags(d *Device, v string) error {
	var tags map[string]string
	if json.Unmarshal([]byte(v), &tags) != nil {
		return &fault{tagsField, `is not a JSON object of texts, such as {"plan":"pro"}`}
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		d.tag(name, tags[name])
	}
	return nil
}

func (d *Device) tag(name, value string) {
	if d.Tags == nil {
		d.Tags = map[string]string{}
	}
	d.Tags[name] = value
}

// parseTime reads RFC 3339, what databases write, and seconds or milliseconds since 1970.
func parseTime(name, v string) (time.Time, error) {
	for _, form := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999 MST", "2006-01-02 15:04:05.999999999 -0700", "2006-01-02 15:04:05.999999999-07", "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", time.DateOnly} {
		if at, err := time.Parse(form, v); err == nil && (!strings.HasSuffix(form, "MST") || strings.HasSuffix(v, "UTC") || strings.HasSuffix(v, "GMT")) {
			return at.UTC(), nil
		}
	}
	const inSeconds = 100_000_000_000 // until the year 5138; as milliseconds it is in 1973
	if n, err := strconv.ParseInt(v, 10, 64); err == nil && n > 0 {
		if n < inSeconds {
			return time.Unix(n, 0).UTC(), nil
		}
		return time.UnixMilli(n).UTC(), nil
	}
	return time.Time{}, &fault{name, "is not a time; use the form 2026-01-31T12:00:00Z"}
}
