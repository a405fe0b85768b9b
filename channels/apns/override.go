package apns

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/sideshow/apns2"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

const overridePath = "overrides.apns"

// Push types that apns2 does not name.
const (
	pushTypeControls apns2.EPushType = "controls"
	pushTypeWidgets  apns2.EPushType = "widgets"
)

// topicSuffix is what a push type appends to the bundle id in apns-topic.
func topicSuffix(t apns2.EPushType) string {
	switch t {
	case apns2.PushTypeVOIP:
		return ".voip"
	case apns2.PushTypeComplication:
		return ".complication"
	case apns2.PushTypeFileProvider:
		return ".pushkit.fileprovider"
	case apns2.PushTypeLocation:
		return ".location-query"
	case apns2.PushTypeLiveActivity:
		return ".push-type.liveactivity"
	case apns2.PushTypePushToTalk:
		return ".voip-ptt"
	case pushTypeControls:
		return ".push-type.controls"
	case pushTypeWidgets:
		return ".push-type.widgets"
	}
	return ""
}

// pushTypes are all of token authentication but mdm, whose topic is not a
// bundle id.
func pushTypes() []apns2.EPushType {
	return []apns2.EPushType{apns2.PushTypeAlert, apns2.PushTypeBackground, apns2.PushTypeVOIP, apns2.PushTypeComplication,
		apns2.PushTypeFileProvider, apns2.PushTypeLocation, apns2.PushTypeLiveActivity, apns2.PushTypePushToTalk,
		pushTypeControls, pushTypeWidgets}
}

// override is what a message may say for APNs alone.
type override struct {
	// aps is merged into aps as RFC 7396 merges, one level deep and alert one
	// more: a member replaces, null removes.
	aps        map[string]any
	topic      string // a bundle id of the credential
	pushType   apns2.EPushType
	priority   int // 0: not set
	collapseID string
	custom     map[string]json.RawMessage // beside aps; replaces members of data
}

// parseOverride reads Message.Override and records what it may not hold.
func parseOverride(m channels.Message, faults *problem.Fields) override {
	var o override
	raw := m.Override
	if len(raw) == 0 {
		return o
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		faults.Add(overridePath, "must be a JSON object")
		return o
	}
	list := closedLists{
		off:  m.Lenient(),
		live: string(members["push_type"]) == `"`+string(apns2.PushTypeLiveActivity)+`"`,
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		value, path := members[name], overridePath+"."+name
		ok, wants := true, ""
		switch name {
		case "aps":
			o.aps = list.parseAps(value, path, faults)
		case "topic":
			ok, wants = json.Unmarshal(value, &o.topic) == nil && isBundleID(o.topic), "must be a bundle id of the credential"
		case "push_type":
			ok = json.Unmarshal(value, &o.pushType) == nil && slices.Contains(pushTypes(), o.pushType)
			wants = "must be alert, background, voip, complication, fileprovider, location, liveactivity, pushtotalk, controls or widgets"
		case "priority":
			ok = json.Unmarshal(value, &o.priority) == nil && slices.Contains([]int{priorityNow, priorityLater, priorityIdle}, o.priority)
			wants = "must be 10, 5 or 1"
		case "collapse_id":
			ok, wants = json.Unmarshal(value, &o.collapseID) == nil && o.collapseID != "", "must be a string of 1 to 64 bytes"
			checkCollapseID(path, o.collapseID, faults)
		case "custom":
			ok, wants = json.Unmarshal(value, &o.custom) == nil && o.custom != nil, "must be a JSON object"
			for _, reserved := range []string{"aps", channels.ReservedKey} {
				if _, taken := o.custom[reserved]; taken {
					faults.Add(path+"."+reserved, "is reserved; choose another name")
				}
			}
		default:
			ok, wants = false, "cannot be overridden for APNs; aps, topic, push_type, priority, collapse_id and custom can, and what stands beside aps goes into custom"
		}
		if !ok {
			faults.Add(path, "%s", wants)
		}
	}
	return o
}

func (o override) mergeAps(aps map[string]any) {
	merge(aps, o.aps, "alert")
}

// merge writes the members of from into to; deep names one that is merged
// itself where both sides are objects.
func merge(to, from map[string]any, deep string) {
	for name, value := range from {
		was, isObject := to[name].(map[string]any)
		with, both := value.(map[string]any)
		switch {
		case value == nil:
			delete(to, name)
		case name == deep && isObject && both:
			merge(was, with, "")
		default:
			to[name] = value
		}
	}
}

// closedLists are Apple's members as far as we know them.
type closedLists struct {
	off  bool // what is not on them passes
	live bool // a Live Activity, whose alert has more forms
}

func (l closedLists) parseAps(raw json.RawMessage, path string, faults *problem.Fields) map[string]any {
	aps := object(raw)
	if aps == nil {
		faults.Add(path, "must be a JSON object")
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(aps)) {
		value := aps[name]
		if value == nil && (l.off || known(name)) {
			continue // removes
		}
		if wants := apsFault(name, value); wants != "" && !(l.off && l.mayBeNew(name, value)) {
			faults.Add(path+"."+name, "%s", wants)
		}
		switch members, _ := value.(map[string]any); name {
		case "alert":
			l.parseAlert(members, path+".alert", faults)
		case "sound":
			l.check(members, []string{"critical", "name", "volume"}, path+".sound", faults)
		}
	}
	return aps
}

// mayBeNew: a member, or a word of a list of words, that Apple added since.
func (closedLists) mayBeNew(name string, value any) bool {
	_, word := value.(string)
	return !known(name) || word && name == "interruption-level"
}

// parseAlert: the alert of a Live Activity may have a sound, and a title and
// body that are objects ("Starting and updating Live Activities with ActivityKit
// push notifications").
func (l closedLists) parseAlert(members map[string]any, path string, faults *problem.Fields) {
	keys := alertKeys()
	if l.live {
		keys = append(keys, "sound")
		for _, text := range []string{"title", "body"} {
			inner, _ := members[text].(map[string]any)
			l.check(inner, []string{"loc-key", "loc-args"}, path+"."+text, faults)
		}
	}
	l.check(members, keys, path, faults)
}

func (l closedLists) check(members map[string]any, known []string, path string, faults *problem.Fields) {
	for _, m := range slices.Sorted(maps.Keys(members)) {
		if !l.off && !slices.Contains(known, m) {
			faults.Add(path+"."+m, "is not a member that Apple documents; %s are", strings.Join(known, ", "))
		}
	}
}

func alertKeys() []string {
	return []string{"title", "subtitle", "body", "launch-image", "title-loc-key", "title-loc-args",
		"subtitle-loc-key", "subtitle-loc-args", "loc-key", "loc-args", "action", "summary-arg", "summary-arg-count"}
}

func known(name string) bool { return apsFault(name, nil) != unknownAps }

const unknownAps = "is not a member of aps that Apple documents; put your own beside aps, in custom"

// apsFault says what a member of aps must be, where it is not ("Generating a
// remote notification"); "" where it is.
func apsFault(name string, v any) string {
	_, isString := v.(string)
	_, isObject := v.(map[string]any)
	number, isNumber := v.(json.Number)
	ok, wants := false, ""
	switch name {
	case "alert", "sound":
		ok, wants = isString || isObject, "must be a string or an object"
	case "thread-id", "category", "target-content-id", "filter-criteria", "event", "attributes-type", "input-push-channel":
		ok, wants = isString, "must be a string"
	case "content-state", "attributes":
		ok, wants = isObject, "must be an object"
	case "badge", "timestamp", "stale-date", "dismissal-date":
		n, err := number.Int64()
		ok, wants = isNumber && err == nil && n >= 0, "must be a whole number that is not negative"
	case "content-available", "mutable-content", "input-push-token":
		ok, wants = isOne(v) || number == "0", "must be 1 or 0"
	case "content-changed":
		ok, wants = v == true, "must be true"
	case "relevance-score":
		ok, wants = isNumber, "must be a number"
	case "interruption-level":
		ok, wants = slices.Contains([]any{"passive", "active", "time-sensitive", "critical"}, v), "must be passive, active, time-sensitive or critical"
	case "url-args":
		_, ok = v.([]any)
		wants = "must be a list"
	default:
		return unknownAps
	}
	if ok {
		return ""
	}
	return wants
}

func isOne(v any) bool { return v == 1 || v == json.Number("1") }

// object reads a JSON object and keeps its numbers as they are written.
func object(raw []byte) map[string]any {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var m map[string]any
	if dec.Decode(&m) != nil {
		return nil
	}
	return m
}
