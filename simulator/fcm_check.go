package simulator

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// FCM's limits on the payload, in bytes.
const (
	fcmLimit      = 4096
	fcmTopicLimit = 2048
	labelMax      = 50
)

// check finds what FCM would refuse in a message. The bool is true when it does.
func (m *fcmMessage) check() (answer, bool) {
	targets := 0
	for _, t := range []string{m.Token, m.Fid, m.Topic, m.Condition} {
		if t != "" {
			targets++
		}
	}
	switch {
	case targets == 0:
		return invalidField("message", "Recipient of the message is not set."), true
	case targets > 1:
		return invalidField("message", "Only one of token, fid, topic and condition may be set."), true
	case m.Name != "":
		return invalidField("message.name", "The name is output only."), true
	case m.Topic != "" && !validTopic(m.Topic):
		return invalidField("message.topic", "Invalid topic name."), true
	}
	for _, check := range []func() (string, string){m.checkData, m.checkNotification, m.checkAndroid, m.checkAPNs, m.checkWebpush} {
		if field, what := check(); what != "" {
			return invalidField(field, what), true
		}
	}
	limit := fcmLimit
	if m.Topic != "" || m.Condition != "" {
		limit = fcmTopicLimit
	}
	if n := m.size(); n > limit {
		return tooLarge(fmt.Sprintf("The payload has %d bytes; the limit is %d.", n, limit)), true
	}
	return answer{}, false
}

// reservedData are keys that FCM keeps for itself, and prefixes of such keys.
func reservedData(key string) bool {
	return key == "from" || key == "message_type" || strings.HasPrefix(key, "google") || strings.HasPrefix(key, "gcm")
}

func (m *fcmMessage) checkData() (field, what string) {
	maps := []map[string]string{m.Data}
	if m.Android != nil {
		maps = append(maps, m.Android.Data)
	}
	if m.Webpush != nil {
		maps = append(maps, m.Webpush.Data)
	}
	for _, data := range maps {
		for key := range data {
			if key == "" || reservedData(key) {
				return "message.data", "Invalid data payload key: " + key
			}
		}
	}
	return "", ""
}

func (m *fcmMessage) checkNotification() (field, what string) {
	if m.Notification != nil && m.Notification.Image != "" && !absoluteURL(m.Notification.Image) {
		return "message.notification.image", "The image must be an absolute URL."
	}
	for _, o := range []*fcmOptions{m.Options, m.androidOptions(), m.apnsOptions()} {
		if o != nil && o.AnalyticsLabel != "" && (len(o.AnalyticsLabel) > labelMax || !validTopic(o.AnalyticsLabel)) {
			return "message.fcm_options.analytics_label", "Invalid analytics label."
		}
	}
	return "", ""
}

func (m *fcmMessage) androidOptions() *fcmOptions {
	if m.Android == nil {
		return nil
	}
	return m.Android.Options
}

func (m *fcmMessage) apnsOptions() *fcmOptions {
	if m.APNs == nil {
		return nil
	}
	return m.APNs.Options
}

func (m *fcmMessage) checkAndroid() (field, what string) {
	a := m.Android
	switch {
	case a == nil:
		return "", ""
	case !slices.Contains([]string{"", "normal", "high", "NORMAL", "HIGH"}, a.Priority):
		return "message.android.priority", "Invalid value: " + a.Priority
	case a.TTL != nil && !validTTL(*a.TTL):
		return "message.android.ttl", "Invalid TTL: it must be seconds with an s, from 0s to 2419200s."
	case a.RestrictedPackageName != "" && !validPackage(a.RestrictedPackageName):
		return "message.android.restricted_package_name", "Invalid package name."
	case a.Notification == nil:
		return "", ""
	case a.Notification.Color != "" && !validColor(a.Notification.Color):
		return "message.android.notification.color", "Invalid color: it must be #rrggbb."
	case a.Notification.Image != "" && !absoluteURL(a.Notification.Image):
		return "message.android.notification.image", "The image must be an absolute URL."
	case len(a.Notification.BodyLocArgs) > 0 && a.Notification.BodyLocKey == "":
		return "message.android.notification.body_loc_key", "It is required with body_loc_args."
	case len(a.Notification.TitleLocArgs) > 0 && a.Notification.TitleLocKey == "":
		return "message.android.notification.title_loc_key", "It is required with title_loc_args."
	}
	return "", ""
}

func (m *fcmMessage) checkAPNs() (field, what string) {
	if m.APNs == nil {
		return "", ""
	}
	for name, value := range m.APNs.Headers {
		switch strings.ToLower(name) {
		case "apns-priority":
			if !validAPNsPriority(value) {
				return "message.apns.headers", "Invalid apns-priority: " + value
			}
		case "apns-expiration":
			if value == "" || !onlyDigits(value) {
				return "message.apns.headers", "Invalid apns-expiration: " + value
			}
		case "apns-collapse-id":
			if len(value) > collapseIDMax {
				return "message.apns.headers", "apns-collapse-id is over 64 bytes."
			}
		}
	}
	if aps, ok := m.APNs.Payload["aps"]; ok && (len(aps) == 0 || aps[0] != '{') {
		return "message.apns.payload.aps", "It must be an object."
	}
	return m.APNs.checkLiveActivity()
}

// checkLiveActivity finds what Apple would refuse of one.
func (a *fcmAPNs) checkLiveActivity() (field, what string) {
	if a.LiveActivityToken == "" {
		return "", ""
	}
	var aps map[string]json.RawMessage
	if !isDeviceToken(strings.ToLower(a.LiveActivityToken)) {
		return "message.apns.live_activity_token", "It is not a token of Apple's."
	}
	_ = json.Unmarshal(a.Payload["aps"], &aps) // absent: no member is there
	for _, name := range []string{"event", "timestamp", "content-state"} {
		if aps[name] == nil {
			return "message.apns.payload.aps." + name, "It is required for a live activity."
		}
	}
	return "", ""
}

func (m *fcmMessage) checkWebpush() (field, what string) {
	if m.Webpush == nil {
		return "", ""
	}
	for name, value := range m.Webpush.Headers {
		switch strings.ToLower(name) {
		case "ttl":
			if value == "" || !onlyDigits(value) {
				return "message.webpush.headers", "Invalid TTL: " + value
			}
		case "urgency":
			if !validUrgency(value) {
				return "message.webpush.headers", "Invalid Urgency: " + value
			}
		}
	}
	if o := m.Webpush.Options; o != nil && o.Link != "" {
		if u, err := url.Parse(o.Link); err != nil || u.Scheme != "https" || u.Host == "" {
			return "message.webpush.fcm_options.link", "The link must be an https URL."
		}
	}
	return "", ""
}

// size is the largest payload that any platform would get.
func (m *fcmMessage) size() int {
	shared := 0
	if n := m.Notification; n != nil {
		shared = len(n.Title) + len(n.Body) + len(n.Image)
	}
	most := shared + sizeOf(m.Data)
	if a := m.Android; a != nil {
		data, text := a.Data, shared
		if data == nil {
			data = m.Data
		}
		if n := a.Notification; n != nil {
			text = max(text, len(n.Title)+len(n.Body)+len(n.Image))
		}
		most = max(most, text+sizeOf(data))
	}
	if m.APNs != nil {
		n := 0
		for key, value := range m.APNs.Payload {
			n += len(key) + len(value)
		}
		most = max(most, n)
	}
	if w := m.Webpush; w != nil {
		n := sizeOf(w.Data)
		for key, value := range w.Notification {
			n += len(key) + len(value)
		}
		most = max(most, n)
	}
	return most
}

func sizeOf(data map[string]string) int {
	n := 0
	for key, value := range data {
		n += len(key) + len(value)
	}
	return n
}

func absoluteURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.IsAbs() && u.Host != ""
}
