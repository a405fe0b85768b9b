package devices

import (
	"maps"
	"regexp"
	"slices"
	"time"

	"golang.org/x/text/language"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/text"
)

// Limits of what is stored of a device, in bytes where nothing else is said.
const (
	MaxTags         = 32 // tags of a device
	MaxTagValue     = 256
	MaxInstallation = 255
	MaxActivityID   = 128
	MaxOS           = 32
	MaxAppVersion   = 64
	maxLocale       = 64
	maxZone         = 64

	// maxAhead is how far a caller's clock may be ahead of ours.
	maxAhead = 5 * time.Minute
)

var (
	appForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)
	tagForm = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)
)

// checkDetails checks everything but the address, and returns the locale in
// canonical form.
func (r *Registry) checkDetails(faults *problem.Fields, in Registration) (locale string) {
	checkUser(faults, in.User)
	if !appForm.MatchString(in.App) {
		faults.Add("app", "consists of 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit")
	}
	for _, x := range []struct {
		path, value string
		most        int
	}{
		{"installation_id", in.InstallationID, MaxInstallation},
		{"os", in.OS, MaxOS},
		{"app_version", in.AppVersion, MaxAppVersion},
	} {
		checkShort(faults, x.path, x.value, x.most)
	}
	checkTags(faults, in.Tags)
	r.checkZone(faults, in.TimeZone)
	return checkLocale(faults, in.Locale)
}

func checkShort(faults *problem.Fields, path, value string, most int) {
	if err := text.Check(value, 0, most); err != nil {
		faults.Add(path, "%s", err)
	}
}

// checkTags names a tag by its key only if the key is sound.
func checkTags(faults *problem.Fields, tags map[string]string) {
	if len(tags) > MaxTags {
		faults.Add("tags", "has %d tags; at most %d are allowed", len(tags), MaxTags)
		return
	}
	badKey := false
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		if !tagForm.MatchString(key) {
			badKey = true
			continue
		}
		if err := text.Check(tags[key], 0, MaxTagValue); err != nil {
			faults.Add("tags."+key, "%s", err)
		}
	}
	if badKey {
		faults.Add("tags", "has a key of another form than 1 to 64 of a-z, A-Z, 0-9, _, . and -")
	}
}

// checkLocale reads a BCP 47 tag; "en_GB" is taken for "en-GB".
func checkLocale(faults *problem.Fields, s string) string {
	if s == "" {
		return ""
	}
	tag, err := language.Tag{}, error(nil)
	if len(s) <= maxLocale {
		tag, err = language.Parse(s)
	}
	if len(s) > maxLocale || err != nil {
		faults.Add("locale", "is not a BCP 47 language tag, such as en, de-CH or zh-Hant-TW")
		return ""
	}
	return tag.String()
}

func (r *Registry) checkZone(faults *problem.Fields, name string) {
	if name == "" {
		return
	}
	if _, known := r.zones.Load(name); known {
		return
	}
	// LoadLocation also takes "Local", which would be the server's own zone.
	if len(name) <= maxZone && name != "Local" {
		if _, err := time.LoadLocation(name); err == nil {
			r.zones.Store(name, struct{}{})
			return
		}
	}
	faults.Add("time_zone", "is not a zone of the IANA database, such as Europe/Berlin or UTC")
}

func checkTimes(faults *problem.Fields, in Registration, purpose channels.Purpose, now time.Time) {
	for _, x := range []struct {
		path string
		at   time.Time
	}{{"registered_at", in.RegisteredAt}, {"last_seen_at", in.LastSeenAt}, {"expires_at", in.ExpiresAt}} {
		if y := x.at.UTC().Year(); !x.at.IsZero() && (y < 1970 || y > 9998) {
			faults.Add(x.path, "is out of range; give a time from 1970 to 9998")
		}
	}
	if in.RegisteredAt.After(now.Add(maxAhead)) {
		faults.Add("registered_at", "is in the future; give the time at which the app got the address, in UTC or with an offset")
	}
	if in.LastSeenAt.After(now.Add(maxAhead)) {
		faults.Add("last_seen_at", "is in the future; give the time at which the app was last used, in UTC or with an offset")
	}
	switch activity := purpose == channels.Activity; {
	case in.ExpiresAt.IsZero():
	case !activity && in.Channel != channels.WebPush:
		faults.Add("expires_at", "is for the purpose activity only; leave it out")
	case in.ExpiresAt.After(now):
	case activity:
		faults.Add("expires_at", "has passed; give the time at which the Live Activity ends, or leave it out")
	default:
		faults.Add("expires_at", "has passed: the subscription is dead; subscribe again and register the new one")
	}
}

// checkUser adds what is wrong with the id of a user.
func checkUser(faults *problem.Fields, user string) {
	if err := text.CheckUser(user); err != nil {
		faults.Add("user", "%s; give your own id of the user, 1 to %d bytes of printable text", err, text.MaxUser)
	}
}
