package lists

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// members are those formats whose rows are JSON.
var members = map[Format]converter{NDJSON: deviceLine, Tokens: tokenMember, AeroGear: aeroGear, SNS: snsEndpoint, Firebase: firebaseJSON}

// presets are those whose rows are CSV with columns of their own, and needed the columns
// without which they are something else.
var (
	presets = map[Format]func(column func(string) string) (Device, error){OneSignal: oneSignal, Firebase: firebase}
	needed  = map[Format][]string{OneSignal: {"identifier", "device_type"}, Firebase: {"instance_id"}}
)

// plainToken is a line of a list of tokens.
func plainToken(row []byte) (Device, error) {
	token := strings.TrimSpace(string(row))
	if strings.ContainsAny(token, " \t,;\"") {
		return Device{}, &fault{"token", "has a space, comma or quote; is this a list in CSV or NDJSON?"}
	}
	return Device{Token: token}, nil
}

// tokenMember is a token, or an object with one and with gorush's number of its platform.
func tokenMember(row []byte) (Device, error) {
	var token string
	if len(row) > 0 && row[0] == '"' {
		err := unmarshal(row, &token)
		return Device{Token: token}, err
	}
	var in struct {
		Token    string `json:"token"`
		Platform int    `json:"platform"`
		User     string `json:"user"`
	}
	if err := unmarshal(row, &in, json.RejectUnknownMembers(true)); err != nil {
		return Device{}, err
	}
	d := Device{Token: in.Token, User: in.User}
	switch in.Platform {
	case 0:
	case 1:
		d.Channel, d.OS = "apns", "ios"
	case 2:
		d.Channel, d.OS = "fcm", "android"
	default:
		return d, &fault{"platform", "is neither 1 (iOS) nor 2 (Android), which are those that can be reached"}
	}
	return d, nil
}

// oneSignal is a row of "Export subscriptions CSV".
func oneSignal(column func(string) string) (Device, error) {
	d := Device{User: column("external_user_id"), AppVersion: column("game_version"), Locale: column("language"), TimeZone: column("timezone_id")}
	if slices.Contains([]string{"t", "true", "TRUE", "True"}, column("invalid_identifier")) {
		return d, &fault{"invalid_identifier", "says that the address is dead"}
	}
	if n, err := strconv.Atoi(column("notification_types")); err == nil && n <= 0 {
		return d, &fault{"notification_types", "says that the user has unsubscribed"}
	}
	address := strings.TrimSpace(column("identifier"))
	if address == "" {
		return d, &fault{"identifier", "is empty: it has never had an address"}
	}
	switch kind := strings.ToLower(strings.TrimSpace(column("device_type"))); kind {
	case "0", "ios":
		d.Channel, d.Token, d.OS = "apns", address, "ios"
	case "1", "android":
		d.Channel, d.Token, d.OS = "fcm", address, "android"
	case "5", "8", "17", "chrome", "firefox", "safari", "edge":
		if !strings.HasPrefix(address, "https://") {
			return d, &fault{"identifier", "is not the endpoint of a push subscription"}
		}
		d.Subscription = &Subscription{Endpoint: address, Keys: Keys{P256dh: column("web_p256"), Auth: column("web_auth")}}
		d.OS = "web"
	default:
		return d, &fault{"device_type", "is none that can be reached: those are 0 (iOS), 1 (Android), 5 (Chrome), 8 (Firefox) and 17 (Safari)"}
	}
	for _, x := range []struct{ column, field string }{{"last_active", "last_seen_at"}, {"created_at", "registered_at"}} {
		v := column(x.column)
		if v == "" {
			continue
		}
		if err := setterOf(x.field)(&d, v); err != nil {
			return d, &fault{x.column, "is not a time"}
		}
	}
	err := looseTags(&d, column("tags"))
	return d, err
}

// looseTags takes a JSON object whose members may be of any type.
func looseTags(d *Device, v string) error {
	if v == "" {
		return nil
	}
	var tags map[string]jsontext.Value
	if json.Unmarshal([]byte(v), &tags) != nil {
		return &fault{"tags", "is not a JSON object"}
	}
	for name, value := range tags {
		text := string(value)
		if value.Kind() == '"' {
			_ = json.Unmarshal(value, &text) // it was read as JSON before
		}
		d.tag(name, text)
	}
	return nil
}

// aeroGear is an installation of the UnifiedPush Server.
func aeroGear(row []byte) (Device, error) {
	var in struct {
		Token      string           `json:"deviceToken"`
		System     string           `json:"operatingSystem"`
		Alias      string           `json:"alias"`
		Enabled    *bool            `json:"enabled"`
		Categories []jsontext.Value `json:"categories"`
	}
	if err := unmarshal(row, &in); err != nil {
		return Device{}, err
	}
	d := Device{User: in.Alias}
	switch {
	case in.Enabled != nil && !*in.Enabled:
		return d, &fault{"enabled", "says that the installation is switched off"}
	case in.Token == "":
		return d, &fault{"deviceToken", "is missing"}
	}
	switch system := strings.ToLower(in.System); system {
	case "ios":
		d.Channel, d.OS = "apns", system
	case "android":
		d.Channel, d.OS = "fcm", system
	}
	if s, ok := encodedSubscription(in.Token); ok {
		d.Channel, d.Subscription = "", &s
	} else {
		d.Token = in.Token
	}
	for _, c := range in.Categories {
		var name string
		if json.Unmarshal(c, &name) != nil {
			var named struct {
				Name string `json:"name"`
			}
			if json.Unmarshal(c, &named) != nil || named.Name == "" {
				return d, &fault{"categories", "has something else than names"}
			}
			name = named.Name
		}
		d.tag(name, "true")
	}
	return d, nil
}

// encodedSubscription reads a PushSubscription in base64, which is the token of a browser
// there.
func encodedSubscription(token string) (s Subscription, ok bool) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil || len(b) == 0 || b[0] != '{' {
		return s, false
	}
	return s, json.Unmarshal(b, &s) == nil && s.Endpoint != ""
}

// snsEndpoint is a platform endpoint. The name of its platform is a part of its ARN, as in
// arn:aws:sns:us-east-1:123456789012:endpoint/APNS_SANDBOX/shop/<uuid>.
func snsEndpoint(row []byte) (Device, error) {
	var in struct {
		ARN        string `json:"EndpointArn"`
		Attributes struct {
			Token, Enabled, CustomUserData string
		}
	}
	if err := unmarshal(row, &in); err != nil {
		return Device{}, err
	}
	d := Device{Token: in.Attributes.Token, User: in.Attributes.CustomUserData}
	parts := strings.Split(in.ARN, "/")
	switch {
	case len(parts) < 3 || !strings.HasSuffix(parts[0], ":endpoint"):
		return d, &fault{"EndpointArn", "is not the ARN of a platform endpoint"}
	case strings.EqualFold(in.Attributes.Enabled, "false"):
		return d, &fault{"Enabled", "is false: SNS holds the token for dead, or it was switched off"}
	case d.Token == "":
		return d, &fault{"Token", "is missing"}
	}
	switch platform := parts[1]; platform {
	case "GCM", "FCM":
		d.Channel, d.OS = "fcm", "android"
	case "APNS", "APNS_VOIP":
		d.Channel, d.Environment = "apns", "production"
	case "APNS_SANDBOX", "APNS_VOIP_SANDBOX":
		d.Channel, d.Environment = "apns", "sandbox"
	default:
		return d, &fault{"EndpointArn", "is of a platform that cannot be reached; those are GCM, APNS, APNS_SANDBOX, APNS_VOIP and APNS_VOIP_SANDBOX"}
	}
	if strings.HasPrefix(parts[1], "APNS_VOIP") {
		d.Purpose = "voip"
	}
	return d, nil
}

// firebaseJSON is a row of the message delivery data in BigQuery, as bq writes it.
func firebaseJSON(row []byte) (Device, error) {
	var in map[string]any
	if err := unmarshal(row, &in); err != nil {
		return Device{}, err
	}
	return firebase(func(name string) string { s, _ := in[name].(string); return s })
}

func firebase(column func(string) string) (Device, error) {
	d := Device{FID: column("instance_id"), OS: strings.ToLower(column("sdk_platform"))}
	if d.FID == "" {
		return d, &fault{"instance_id", "is empty"}
	}
	if v := column("event_timestamp"); v != "" {
		if setterOf("last_seen_at")(&d, v) != nil {
			return d, &fault{"event_timestamp", "is not a time"}
		}
	}
	return d, nil
}
