package fcm

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

const overridePath = "overrides.fcm"

// rule says what a member of an override must be. Exactly one of members and
// check is set.
type rule struct {
	members map[string]rule
	check   func(v any) bool
	want    string // completes "must be …", or says it all where check is never
	grows   bool   // a list of words to which Google adds; lenient takes any
}

func (r rule) sentence() string {
	if r.check == nil {
		return "must be an object"
	}
	return r.want
}

var (
	analyticsLabel = regexp.MustCompile(`^[a-zA-Z0-9\-_.~%]{1,50}$`)
	color          = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)
	hexToken       = regexp.MustCompile(`^([0-9a-fA-F]{2}){32,200}$`)
	duration       = regexp.MustCompile(`^[0-9]{1,9}(\.[0-9]{1,9})?s$`)
)

func is[T any](want string) rule {
	return rule{check: func(v any) bool { _, ok := v.(T); return ok }, want: want}
}

func matches(re *regexp.Regexp, want string) rule {
	return rule{check: func(v any) bool { s, ok := v.(string); return ok && re.MatchString(s) }, want: want}
}

func oneOf(words ...string) rule {
	return rule{check: func(v any) bool { s, ok := v.(string); return ok && slices.Contains(words, s) },
		want: "must be one of " + strings.Join(words, ", ")}
}

// words are a list to which Google adds with new versions of Android.
func words(known ...string) rule {
	r := oneOf(known...)
	r.grows = true
	return r
}

func listOf(r rule) rule {
	return rule{want: "must be a list whose items each " + r.want, check: func(v any) bool {
		list, ok := v.([]any)
		return ok && !slices.ContainsFunc(list, func(x any) bool { return !r.check(x) })
	}}
}

func refused(why string) rule {
	return rule{check: func(any) bool { return false }, want: why}
}

// allowed is what an override may hold: the members of the REST reference's
// Message that do not depend on the device, the delivery or the attempt.
func allowed() map[string]rule {
	text, flag, number := is[string]("must be a string"), is[bool]("must be true or false"), is[json.Number]("must be a number")
	object := is[map[string]any]("must be an object")
	link := rule{check: func(v any) bool { s, ok := v.(string); return ok && isHTTPS(s) }, want: "must be an absolute https URL"}
	label := map[string]rule{"analytics_label": matches(analyticsLabel, "must be 1 to 50 letters, digits and -_.~%")}
	with := func(m map[string]rule, name string, r rule) rule {
		m = maps.Clone(m)
		m[name] = r
		return rule{members: m}
	}
	life := refused("follows from the notification's ttl; set that")
	data := refused("would replace the notification's data together with the delivery's id; set overrides in data itself")
	return map[string]rule{
		"fcm_options":  {members: label},
		"notification": {members: map[string]rule{"title": text, "body": text, "image": link}},
		"android": {members: map[string]rule{
			"ttl": life, "data": data, "collapse_key": text, "priority": oneOf("normal", "high", "NORMAL", "HIGH"),
			"restricted_package_name": text, "direct_boot_ok": flag, "bandwidth_constrained_ok": flag,
			"restricted_satellite_ok": flag, "fcm_options": {members: label}, "notification": {members: androidNotification(text, flag, number, link)},
		}},
		"apns": {members: map[string]rule{
			"headers": {members: map[string]rule{"apns-expiration": life, "apns-priority": oneOf("10", "5", "1"),
				"apns-push-type": text, "apns-collapse-id": text}},
			"payload": object, "fcm_options": with(label, "image", link),
			"live_activity_token": matches(hexToken, "must be the push token or push-to-start token of the Live Activity, in hexadecimal"),
		}},
		"webpush": {members: map[string]rule{
			"headers": {members: map[string]rule{"TTL": life, "Urgency": oneOf("very-low", "low", "normal", "high"), "Topic": text}},
			"data":    data, "notification": object, "fcm_options": with(label, "link", link),
		}},
	}
}

func androidNotification(text, flag, number, link rule) map[string]rule {
	span := matches(duration, `must be seconds such as "3.5s"`)
	return map[string]rule{
		"title": text, "body": text, "icon": text, "color": matches(color, "must be #RRGGBB"), "sound": text, "tag": text,
		"click_action": text, "body_loc_key": text, "body_loc_args": listOf(text), "title_loc_key": text,
		"title_loc_args": listOf(text), "channel_id": text, "ticker": text, "sticky": flag, "event_time": text,
		"local_only": flag, "notification_count": number, "image": link,
		"notification_priority": words("PRIORITY_MIN", "PRIORITY_LOW", "PRIORITY_DEFAULT", "PRIORITY_HIGH", "PRIORITY_MAX"),
		"default_sound":         flag, "default_vibrate_timings": flag, "default_light_settings": flag,
		"vibrate_timings": listOf(span), "visibility": words("PRIVATE", "PUBLIC", "SECRET"),
		"proxy": words("ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
		"light_settings": {members: map[string]rule{"light_on_duration": span, "light_off_duration": span,
			"color": {members: map[string]rule{"red": number, "green": number, "blue": number, "alpha": number}}}},
	}
}

// parseOverride reads Message.Override and records what it may not hold. JSON
// stays JSON here: read into the SDK's types, a ttl of "3.5s" would change and an
// unknown member vanish.
func parseOverride(m channels.Message, faults *problem.Fields) map[string]any {
	if len(m.Override) == 0 {
		return nil
	}
	own, err := tree(m.Override)
	if err != nil || own == nil {
		faults.Add(overridePath, "must be a JSON object")
		return nil
	}
	checker{lenient: m.Lenient(), faults: faults}.members(own, allowed(), overridePath)
	if android, ok := own["android"].(map[string]any); ok {
		if p, ok := android["priority"].(string); ok {
			android["priority"] = strings.ToLower(p)
		}
	}
	if apns, ok := own["apns"].(map[string]any); ok {
		if body, ok := apns["payload"].(map[string]any); ok && body[channels.ReservedKey] != nil {
			faults.Add(overridePath+".apns.payload."+channels.ReservedKey, "is reserved; choose another name")
		}
		if apns[liveActivity] != nil {
			checkLiveActivity(apns, faults)
		}
	}
	return own
}

// liveActivity is the member that makes a message one for a Live Activity.
const liveActivity = "live_activity_token"

// checkLiveActivity wants what Apple wants of one.
func checkLiveActivity(apns map[string]any, faults *problem.Fields) {
	body, _ := apns["payload"].(map[string]any)
	aps, _ := body["aps"].(map[string]any)
	for _, name := range []string{"event", "timestamp", "content-state"} {
		if aps[name] == nil {
			faults.Add(overridePath+".apns.payload.aps."+name, "is required with "+liveActivity)
		}
	}
}

// checker compares an override with the rules.
type checker struct {
	lenient bool // what has no rule passes, unless guard says no
	faults  *problem.Fields
}

func (c checker) members(own map[string]any, rules map[string]rule, path string) {
	for _, name := range slices.Sorted(maps.Keys(own)) {
		r, known := rules[name]
		at := problem.Join(path, name)
		members, isObject := own[name].(map[string]any)
		word, isString := own[name].(string)
		switch {
		case !known && c.lenient:
			if why := guard(path, name, own[name], rules); why != "" {
				c.faults.Add(at, "%s", why)
			}
		case !known:
			c.faults.Add(at, "cannot be overridden for FCM; here %s can", strings.Join(slices.Sorted(maps.Keys(rules)), ", "))
		case own[name] == nil: // null takes the member away; what Carillon puts in stays
		case r.members != nil && isObject:
			c.members(members, r.members, at)
		case c.lenient && r.grows && isString && word != "":
		case r.members != nil || !r.check(own[name]):
			c.faults.Add(at, "%s", r.sentence())
		}
	}
}

// merge writes from into to (RFC 7396): objects are merged, null removes,
// anything else replaces.
func merge(to, from map[string]any) {
	for name, value := range from {
		was, merged := to[name].(map[string]any)
		with, object := value.(map[string]any)
		switch {
		case value == nil:
			delete(to, name)
		case merged && object:
			merge(was, with)
		case object:
			fresh := map[string]any{}
			merge(fresh, with)
			to[name] = fresh
		default:
			to[name] = value
		}
	}
}
