package devices

import (
	"encoding/base64"
	"strings"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/text"
)

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
		Kind: kind, Address: strings.TrimSpace(in.Address), Environment: channels.Environment(in.Environment),
		P256dh: decodeKey(&found, "keys.p256dh", in.P256dh), Auth: decodeKey(&found, "keys.auth", in.Auth),
		OS: in.OS, RegisteredAt: in.RegisteredAt,
	}
	if t.Address == "" {
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

// purposeOf is what an APNs token is for; it checks the activity id as well.
func purposeOf(faults *problem.Fields, in Registration) channels.Purpose {
	purpose, known := channels.ParsePurpose(in.Purpose)
	switch {
	case in.Purpose == "":
		purpose = channels.Alert
	case in.Channel != channels.APNs:
		faults.Add("purpose", "is for APNs only; leave it out")
	case !known:
		faults.Add("purpose", "must be alert, voip, push_to_start, activity or widget")
	}
	activity := purpose == channels.Activity
	switch {
	case in.Channel != channels.APNs && in.ActivityID != "":
		faults.Add("activity_id", "is for APNs only; leave it out")
	case activity && in.ActivityID == "":
		faults.Add("activity_id", "is missing: give your own id of the Live Activity")
	case !activity && in.ActivityID != "":
		faults.Add("activity_id", "is for the purpose activity only; leave it out")
	case activity:
		if err := text.Check(in.ActivityID, 1, MaxActivityID); err != nil {
			faults.Add("activity_id", "%s", err)
		}
	}
	return purpose
}
