package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// carillonKey is the member of every push payload that holds the delivery's id.
const carillonKey = "carillon"

// topicPrefix and conditionPrefix tell such targets from tokens.
const (
	topicPrefix     = "topic:"
	conditionPrefix = "condition:"
)

// sendRequest is the body of messages:send. Members that it does not know are
// refused, as Google does; Google takes lowerCamelCase too, this does not.
type sendRequest struct {
	ValidateOnly bool        `json:"validate_only"`
	Message      *fcmMessage `json:"message"`
}

type fcmMessage struct {
	Name         string            `json:"name"`
	Token        string            `json:"token"`
	Fid          string            `json:"fid"`
	Topic        string            `json:"topic"`
	Condition    string            `json:"condition"`
	Data         map[string]string `json:"data"`
	Notification *fcmNotification  `json:"notification"`
	Android      *fcmAndroid       `json:"android"`
	APNs         *fcmAPNs          `json:"apns"`
	Webpush      *fcmWebpush       `json:"webpush"`
	Options      *fcmOptions       `json:"fcm_options"`
}

type fcmNotification struct {
	Title string `json:"title"`
	Body  string `json:"body"`
	Image string `json:"image"`
}

type fcmOptions struct {
	AnalyticsLabel string `json:"analytics_label"`
	Image          string `json:"image"`
	Link           string `json:"link"`
}

type fcmAndroid struct {
	CollapseKey            string                  `json:"collapse_key"`
	Priority               string                  `json:"priority"`
	TTL                    *string                 `json:"ttl"`
	RestrictedPackageName  string                  `json:"restricted_package_name"`
	Data                   map[string]string       `json:"data"`
	Notification           *fcmAndroidNotification `json:"notification"`
	Options                *fcmOptions             `json:"fcm_options"`
	DirectBootOK           bool                    `json:"direct_boot_ok"`
	BandwidthConstrainedOK bool                    `json:"bandwidth_constrained_ok"`
	RestrictedSatelliteOK  bool                    `json:"restricted_satellite_ok"`
}

type fcmAndroidNotification struct {
	Title                 string          `json:"title"`
	Body                  string          `json:"body"`
	Icon                  string          `json:"icon"`
	Color                 string          `json:"color"`
	Sound                 string          `json:"sound"`
	Tag                   string          `json:"tag"`
	ClickAction           string          `json:"click_action"`
	BodyLocKey            string          `json:"body_loc_key"`
	BodyLocArgs           []string        `json:"body_loc_args"`
	TitleLocKey           string          `json:"title_loc_key"`
	TitleLocArgs          []string        `json:"title_loc_args"`
	ChannelID             string          `json:"channel_id"`
	Ticker                string          `json:"ticker"`
	Sticky                bool            `json:"sticky"`
	EventTime             string          `json:"event_time"`
	LocalOnly             bool            `json:"local_only"`
	NotificationPriority  string          `json:"notification_priority"`
	DefaultSound          bool            `json:"default_sound"`
	DefaultVibrateTimings bool            `json:"default_vibrate_timings"`
	DefaultLightSettings  bool            `json:"default_light_settings"`
	VibrateTimings        []string        `json:"vibrate_timings"`
	Visibility            string          `json:"visibility"`
	NotificationCount     *int            `json:"notification_count"`
	LightSettings         json.RawMessage `json:"light_settings"`
	Image                 string          `json:"image"`
	Proxy                 string          `json:"proxy"`
	BypassProxy           bool            `json:"bypass_proxy_notification"`
}

type fcmAPNs struct {
	Headers           map[string]string          `json:"headers"`
	Payload           map[string]json.RawMessage `json:"payload"`
	Options           *fcmOptions                `json:"fcm_options"`
	LiveActivityToken string                     `json:"live_activity_token"`
}

type fcmWebpush struct {
	Headers      map[string]string          `json:"headers"`
	Data         map[string]string          `json:"data"`
	Notification map[string]json.RawMessage `json:"notification"`
	Options      *fcmOptions                `json:"fcm_options"`
}

// parseSend reads a body. Without a request the answer tells why.
func parseSend(body []byte) (*sendRequest, answer) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	req := &sendRequest{}
	err := d.Decode(req)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more than one JSON value")
		}
	}
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		field := wrong.Field
		if strings.HasPrefix(field, "message.data") {
			field = "message.data[0].value"
		}
		return nil, invalidType(field, "Invalid value at '"+field+"' (TYPE_"+strings.ToUpper(wrong.Type.String())+"), "+wrong.Value)
	case err != nil && strings.HasPrefix(err.Error(), "json: unknown field "):
		name := strings.TrimPrefix(err.Error(), "json: unknown field ")
		return nil, invalidType("message", "Invalid JSON payload received. Unknown name "+name+": Cannot find field.")
	case err != nil:
		return nil, invalidType("", "Invalid JSON payload received. "+err.Error())
	case req.Message == nil:
		return nil, invalidField("message", "The message is not set.")
	}
	return req, answer{}
}

func (m *fcmMessage) target() string {
	switch {
	case m.Token != "":
		return m.Token
	case m.Fid != "":
		return m.Fid
	case m.Topic != "":
		return topicPrefix + m.Topic
	case m.Condition != "":
		return conditionPrefix + m.Condition
	}
	return ""
}

// maxTTL is four weeks.
const maxTTL = 28 * 24 * time.Hour

func validTTL(s string) bool {
	digits, ok := strings.CutSuffix(s, "s")
	whole, fraction, dotted := strings.Cut(digits, ".")
	if !ok || whole == "" || !onlyDigits(whole+fraction) || len(fraction) > 9 || dotted && fraction == "" {
		return false
	}
	n, err := strconv.ParseInt(whole, 10, 32)
	return err == nil && time.Duration(n)*time.Second <= maxTTL
}

func onlyDigits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}

func validTopic(s string) bool {
	return s != "" && strings.Trim(s, topicAlphabet) == ""
}

// topicAlphabet is that of topics and of analytics labels.
const topicAlphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~%"

func validColor(s string) bool {
	if len(s) != 7 || s[0] != '#' {
		return false
	}
	return strings.Trim(s[1:], "0123456789abcdefABCDEF") == ""
}

// validPackage tells whether s is an Android application id or a bundle id: parts
// of letters, digits and underscores, at least two, with dots between them.
func validPackage(s string) bool {
	parts := strings.Split(s, ".")
	for _, part := range parts {
		if part == "" || strings.Trim(part, packageAlphabet) != "" {
			return false
		}
	}
	return len(parts) > 1
}

const packageAlphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"

func appendQuoted(b []byte, s string) []byte {
	q, _ := json.Marshal(s) // a string always encodes
	return append(b, q...)
}
