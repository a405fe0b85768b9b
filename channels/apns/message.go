package apns

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/sideshow/apns2"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Apple's limits in bytes ("Sending notification requests to APNs").
const (
	maxPayload     = 4096
	maxVoIPPayload = 5120
	maxCollapseID  = 64
)

// The priorities of APNs.
const (
	priorityNow   = apns2.PriorityHigh // 10
	priorityLater = apns2.PriorityLow  // 5: with regard to power
	priorityIdle  = 1                  // never wakes the device
)

// head begins every payload; the delivery's id and the payload's tail follow.
const head = `{"` + channels.ReservedKey + `":"`

// payload is what all deliveries of a notification share.
type payload struct {
	tail       []byte // from the quote behind the delivery's id on
	pushType   apns2.EPushType
	priority   int
	collapseID string
	topic      string // "" for the credential's first
}

var _ channels.Payload = (*payload)(nil)

// Size counts the bytes that Apple counts.
func (p *payload) Size() int { return len(head) + ids.DeliveryLen + len(p.tail) }

// Preview is the body of the request for a delivery.
func (p *payload) Preview(delivery string) json.RawMessage { return p.bytes(delivery) }

// bytes puts a delivery's id in place; an id has no character to escape.
func (p *payload) bytes(delivery string) []byte {
	return slices.Concat([]byte(head), []byte(delivery), p.tail)
}

// topicFor is the apns-topic header: a bundle id with what the push type appends.
func (p *payload) topicFor(standard string) string {
	topic, suffix := cmp.Or(p.topic, standard), topicSuffix(p.pushType)
	if strings.HasSuffix(topic, suffix) {
		return topic
	}
	return topic + suffix
}

// Prepare writes the payload.
//
//	{"carillon":"dlv_…","aps":{"alert":{"title":…,"body":…},"badge":…,"sound":…},"url":…,"image":…,<data>}
//
// The members of data stand at the top level, where apps look for them. An
// image sets mutable-content, so that the app's notification service extension
// can load it. The apns-collapse-id of an alert is the collapse key, or without one
// the notification's id: sent twice it is seen once. Without a sound the notification makes none; "default" is the
// system's. A message with nothing to show, silent or data only, becomes a
// background push with content-available and priority 5, as Apple demands;
// a silent one leaves its title, body, image, badge and sound out. Otherwise
// high is priority 10, which is also the default, normal 5 and low 1.
func (*Channel) Prepare(m channels.Message) (channels.Payload, error) {
	var faults problem.Fields
	o := parseOverride(m, &faults)
	aps := apsOf(m, &faults)
	o.mergeAps(aps)
	members := membersOf(m, &faults)
	maps.Copy(members, o.custom)
	p := &payload{
		pushType:   o.pushType,
		collapseID: cmp.Or(o.collapseID, m.CollapseKey),
		topic:      o.topic,
	}
	if o.collapseID == "" {
		checkCollapseID("collapse_key", m.CollapseKey, &faults)
	}
	p.chooseType(m, o, aps, &faults)
	if p.collapseID == "" && p.pushType == apns2.PushTypeAlert {
		p.collapseID = m.ReplaceID()
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	if err := p.write(aps, members); err != nil {
		return nil, err
	}
	limit := maxPayload
	if p.pushType == apns2.PushTypeVOIP {
		limit = maxVoIPPayload
	}
	if p.Size() > limit {
		return nil, problem.New(problem.PayloadTooLarge,
			"The APNs payload would have %d bytes; Apple takes at most %d. Shorten the text or send a reference to the data.", p.Size(), limit)
	}
	return p, nil
}

// apsOf is Apple's own part of the payload, before the override.
func apsOf(m channels.Message, faults *problem.Fields) map[string]any {
	aps := map[string]any{}
	if m.Silent {
		aps["content-available"] = 1
		return aps
	}
	alert := map[string]any{}
	if m.Title != "" {
		alert["title"] = m.Title
	}
	if m.Body != "" {
		alert["body"] = m.Body
	}
	if len(alert) > 0 {
		aps["alert"] = alert
	}
	if m.Badge != nil {
		if *m.Badge < 0 {
			faults.Add("badge", "must not be negative; 0 removes the badge")
		}
		aps["badge"] = *m.Badge
	}
	if m.Sound != "" {
		aps["sound"] = m.Sound
	}
	if m.Image != "" {
		aps["mutable-content"] = 1
	}
	return aps
}

// membersOf is what stands beside aps, before the override.
func membersOf(m channels.Message, faults *problem.Fields) map[string]json.RawMessage {
	members := map[string]json.RawMessage{}
	if len(m.Data) > 0 {
		if json.Unmarshal(m.Data, &members) != nil {
			faults.Add("data", "must be a JSON object")
		}
		if members == nil { // the data were null
			members = map[string]json.RawMessage{}
		}
	}
	for _, name := range []string{"aps", channels.ReservedKey} {
		if _, taken := members[name]; taken {
			faults.Add("data."+name, "is reserved; choose another name")
		}
	}
	own := map[string]string{"url": m.URL}
	if !m.Silent {
		own["image"] = m.Image
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if own[name] == "" {
			continue
		}
		if _, taken := members[name]; taken {
			faults.Add("data."+name, "clashes with %s, which has the same place in an APNs payload", name)
		}
		members[name] = encode(own[name])
	}
	return members
}

// chooseType chooses push type and priority and makes them agree with aps.
func (p *payload) chooseType(m channels.Message, o override, aps map[string]any, faults *problem.Fields) {
	visible := aps["alert"] != nil || aps["badge"] != nil || aps["sound"] != nil
	if p.pushType == "" {
		p.pushType = apns2.PushTypeAlert
		if !visible {
			p.pushType = apns2.PushTypeBackground
			aps["content-available"] = 1
		}
	}
	switch {
	case o.priority != 0:
		p.priority = o.priority
	case p.pushType == apns2.PushTypeBackground:
		p.priority = priorityLater
	case m.Priority == channels.Normal, m.Priority == channels.Low && p.pushType == apns2.PushTypeLiveActivity:
		p.priority = priorityLater
	case m.Priority == channels.Low:
		p.priority = priorityIdle
	default:
		p.priority = priorityNow
	}
	p.checkType(m, aps, visible, faults)
}

// checkType refuses an aps that the push type does not allow.
func (p *payload) checkType(m channels.Message, aps map[string]any, visible bool, faults *problem.Fields) {
	switch p.pushType {
	case apns2.PushTypeAlert:
		if !visible {
			faults.Add(overridePath+".push_type", "alert needs an alert, a badge or a sound to show")
		}
	case apns2.PushTypeBackground:
		if visible || !isOne(aps["content-available"]) {
			faults.Add(overridePath+".push_type", "background needs content-available 1 and no alert, badge or sound")
		}
		if p.priority != priorityLater {
			faults.Add(overridePath+".priority", "must be 5 for a background push")
		}
	case apns2.PushTypeLiveActivity:
		for _, name := range []string{"event", "timestamp", "content-state"} {
			if aps[name] == nil {
				faults.Add(overridePath+".aps."+name, "is required for a live activity")
			}
		}
		if p.priority == priorityIdle {
			faults.Add(overridePath+".priority", "must be 5 or 10 for a live activity")
		}
	case pushTypeWidgets:
		if m.Accepted { // maybe by a version that did not know of it
			aps["content-changed"] = true
		}
		if aps["content-changed"] != true {
			faults.Add(overridePath+".aps.content-changed", "must be true for a widget push: it is what makes the widget load its content")
		}
	}
	if aps["content-changed"] != nil && p.pushType != pushTypeWidgets {
		faults.Add(overridePath+".aps.content-changed", "is for widgets only; set push_type to widgets")
	}
}

// write builds the tail. <, > and & stay one byte each: no browser reads this.
func (p *payload) write(aps map[string]any, members map[string]json.RawMessage) error {
	var out bytes.Buffer
	out.WriteString(`","aps":`)
	out.Write(encode(aps))
	for _, name := range slices.Sorted(maps.Keys(members)) {
		out.WriteByte(',')
		out.Write(encode(name))
		out.WriteByte(':')
		if err := json.Compact(&out, members[name]); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	p.tail = out.Bytes()
	return nil
}

// encode writes JSON without escaping for HTML. Its values come from JSON or are
// strings and integers, so it cannot fail.
func encode(v any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// checkCollapseID keeps to Apple's limit and to what a header may hold.
func checkCollapseID(path, s string, faults *problem.Fields) {
	switch {
	case len(s) > maxCollapseID:
		faults.Add(path, "must have at most %d bytes for APNs", maxCollapseID)
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		faults.Add(path, "must not hold control characters")
	}
}
