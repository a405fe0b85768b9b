package webpush

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	webpushgo "github.com/SherClockHolmes/webpush-go"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// override is what overrides.webpush may hold.
type override struct {
	notification map[string]any // by the names that browsers use
	urgency      webpushgo.Urgency
	topic        string
}

// parseOverride takes what is on the list and names everything else.
func parseOverride(m channels.Message) (override, error) {
	const path = "overrides.webpush"
	raw := m.Override
	var o override
	if len(raw) == 0 {
		return o, nil
	}
	var members map[string]any
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return o, problem.AtField(path, "must be a JSON object")
	}
	var faults problem.Fields
	for _, name := range slices.Sorted(maps.Keys(members)) {
		value, at := members[name], problem.Join(path, name)
		switch name {
		case "notification":
			o.notification = parseNotification(value, at, m.Lenient(), &faults)
		case "urgency":
			if !oneOf(value, "very-low", "low", "normal", "high") {
				faults.Add(at, "must be very-low, low, normal or high")
				continue
			}
			o.urgency = webpushgo.Urgency(value.(string))
		case "topic":
			topic, _ := value.(string)
			if m.Accepted && !isTopic(topic) { // of before: else it stays, so that every attempt has the same
				topic = topicOf(topic)
			}
			if !isTopic(topic) {
				faults.Add(at, "must have 2 to %d characters of A-Z, a-z, 0-9, - and _, and a length other than 5, 9, 13, ... (4n+1), which Apple refuses", maxTopic)
			}
			o.topic = topic
		default:
			faults.Add(at, "cannot be overridden for web push; notification, urgency and topic can")
		}
	}
	return o, faults.Err()
}

// parseNotification: lenient passes what browsers may have learned since, but
// for what the notification's own members and the delivery's id are written to.
func parseNotification(value any, path string, lenient bool, faults *problem.Fields) map[string]any {
	members, ok := value.(map[string]any)
	if !ok {
		faults.Add(path, "must be a JSON object")
		return nil
	}
	out := make(map[string]any, len(members))
	for _, name := range slices.Sorted(maps.Keys(members)) {
		value, at := members[name], problem.Join(path, name)
		key, want := name, ""
		switch name {
		case "icon", "badge", "image", "lang", "tag":
			if s, ok := value.(string); !ok || s == "" {
				want = "must be a string that is not empty"
			}
		case "dir":
			if !oneOf(value, "auto", "ltr", "rtl") {
				want = "must be auto, ltr or rtl"
			}
		case "silent", "renotify", "require_interaction", "requireInteraction":
			if name == "require_interaction" {
				key = "requireInteraction"
			}
			if _, ok := value.(bool); !ok {
				want = "must be true or false"
			}
		case "timestamp":
			if !isCount(value) {
				want = "must be a whole number of milliseconds since 1970"
			}
		case "vibrate":
			list, ok := value.([]any)
			if !ok || slices.ContainsFunc(list, func(v any) bool { return !isCount(v) }) {
				want = "must be a list of milliseconds"
			}
		case "actions":
			checkActions(value, at, lenient, faults)
		case "title", "body", "navigate", "data", channels.ReservedKey:
			want = "cannot be overridden for web push; it follows from the notification's title, body, url and data"
		default:
			if !lenient {
				want = "cannot be overridden for web push"
			}
		}
		if want != "" {
			faults.Add(at, "%s", want)
			continue
		}
		out[key] = value
	}
	return out
}

// checkActions wants a list of {"action", "title", "icon", "navigate"}, the
// first two required. With a navigate in each, browsers can open them without
// the worker.
func checkActions(value any, path string, lenient bool, faults *problem.Fields) {
	list, ok := value.([]any)
	if !ok {
		faults.Add(path, "must be a list of objects with action and title")
		return
	}
	for i, one := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		action, ok := one.(map[string]any)
		if !ok {
			faults.Add(at, "must be an object with action and title")
			continue
		}
		for _, need := range []string{"action", "title"} {
			if _, ok := action[need]; !ok {
				faults.Add(problem.Join(at, need), "is required")
			}
		}
		for _, name := range slices.Sorted(maps.Keys(action)) {
			known := slices.Contains([]string{"action", "title", "icon", "navigate"}, name)
			if lenient && !known {
				continue
			}
			if s, ok := action[name].(string); !ok || s == "" {
				faults.Add(problem.Join(at, name), "must be a string that is not empty")
			} else if !known {
				faults.Add(problem.Join(at, name), "is not a member of an action; there are action, title, icon and navigate")
			}
		}
	}
}

func oneOf(value any, names ...string) bool {
	s, ok := value.(string)
	return ok && slices.Contains(names, s)
}

// isCount tells whether a JSON number is whole, not negative and exact.
func isCount(value any) bool {
	f, ok := value.(float64)
	return ok && f >= 0 && f <= 1<<53 && f == float64(int64(f))
}
