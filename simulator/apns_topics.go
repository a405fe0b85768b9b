package simulator

import "strings"

// topicMark begins a production token that is bound to a topic; the number of its
// push type follows. Apple's tokens are all bound to one; random tokens here take
// every push type.
const topicMark = "70b1c"

// boundTypes are the push types whose tokens an app gets apart from those for
// alerts, numbered by their place.
func boundTypes() []string { return []string{"alert", "voip", "liveactivity", "widgets"} }

// NewTokenFor makes a random device token that production knows for the topic of a
// push type only: alert, voip, liveactivity or widgets.
func (a APNsAccess) NewTokenFor(pushType string) string {
	for i, name := range boundTypes() {
		if name == pushType {
			return randomDigits(topicMark + string(rune('0'+i)))
		}
	}
	panic("simulator: no token is bound to push type " + pushType)
}

// boundTo is the push type whose topic a token is bound to; "" is any.
func boundTo(token string) string {
	rest, bound := strings.CutPrefix(token, topicMark)
	if !bound || rest == "" {
		return ""
	}
	if i := int(rest[0]) - '0'; i >= 0 && i < len(boundTypes()) {
		return boundTypes()[i]
	}
	return ""
}

// fitsTopic tells whether a token may get what is sent to a topic.
func fitsTopic(token, topic string) bool {
	bound := boundTo(token)
	if bound == "" {
		return true
	}
	for _, other := range boundTypes() {
		if suffix, _ := topicSuffix(other); suffix != "" && strings.HasSuffix(topic, suffix) {
			return other == bound
		}
	}
	return bound == "alert"
}
