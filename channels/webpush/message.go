package webpush

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"strings"

	webpushgo "github.com/SherClockHolmes/webpush-go"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// maxTopic is the length of a Topic header (RFC 8030 section 5.4).
const maxTopic = 32

// payload is a message with holes where a delivery's id goes. It is only read.
type payload struct {
	parts   [3][]byte // the id goes between them
	topic   string
	urgency webpushgo.Urgency
}

// Size is the length of the plaintext. The limit is MaxPlaintext, but Firefox
// for Android gets messages through a bridge that takes bodies up to about
// 2,700 octets.
func (p *payload) Size() int {
	return len(p.parts[0]) + len(p.parts[1]) + len(p.parts[2]) + 2*ids.DeliveryLen
}

// Preview is the plaintext that the service worker gets.
func (p *payload) Preview(delivery string) json.RawMessage { return p.plaintext(delivery) }

// plaintext is a fresh copy, since every subscription needs its own.
func (p *payload) plaintext(delivery string) []byte {
	return bytes.Join(p.parts[:], []byte(delivery))
}

// Prepare writes the message that the service worker reads:
//
//	{"web_push": 8030,
//	 "notification": {"title", "body", "navigate", "icon", "image", "tag", ...,
//	                  "data": {"carillon": "dlv_...", what the caller gave}},
//	 "mutable": true, "app_badge": 3, "carillon": "dlv_..."}
//
// This is the declarative form of the Push API: browsers that know it show the
// notification even if the worker fails, and let the worker change it first
// (mutable); the others hand it to the worker's push event. A message that the
// declarative form does not allow, because it has no title or URL, an action
// without a URL, or is silent, has the same members without web_push and
// mutable. The delivery's id is in data too, because click and close events
// see nothing else of the message.
//
// A silent message asks for no visible notification, but browsers take the
// permission away from a worker that shows nothing: notification.silent is set,
// and the worker shows one without sound.
func (*Channel) Prepare(m channels.Message) (channels.Payload, error) {
	own, err := parseOverride(m)
	if err != nil {
		return nil, err
	}
	data, err := parseData(m.Data)
	if err != nil {
		return nil, err
	}
	n := notification(m, own)
	if err := checkTogether(n); err != nil {
		return nil, err
	}
	p := &payload{topic: topicOf(m.CollapseKey), urgency: urgencyOf(m.Priority, shows(n))}
	if own.topic != "" {
		p.topic = own.topic
	}
	if own.urgency != "" {
		p.urgency = own.urgency
	}
	ours := tagged(n, m)
	if p.parts, err = assemble(n, data, m.Badge); err != nil {
		return nil, err
	}
	if ours && p.Size() > MaxPlaintext { // it was not the caller who asked for it
		delete(n, "tag")
		delete(n, "renotify")
		if p.parts, err = assemble(n, data, m.Badge); err != nil {
			return nil, err
		}
	}
	if p.Size() > MaxPlaintext {
		return nil, problem.New(problem.PayloadTooLarge,
			"The web push message would have %d bytes; push services take %d. Shorten the text or send a reference to the data.", p.Size(), MaxPlaintext)
	}
	return p, nil
}

// notification is what is shown: the message, and over it the override.
func notification(m channels.Message, own override) map[string]any {
	n := map[string]any{}
	for name, value := range map[string]string{
		"title": m.Title, "body": m.Body, "navigate": m.URL, "image": m.Image, "tag": m.CollapseKey,
	} {
		if value != "" {
			n[name] = value
		}
	}
	if m.Silent {
		n["silent"] = true
	}
	maps.Copy(n, own.notification)
	return n
}

// tagged gives a notification without a tag the id as one, so that it is seen once
// though it is sent twice; nor does the second make a sound.
func tagged(n map[string]any, m channels.Message) bool {
	if n["tag"] != nil || m.Notification == "" || !shows(n) {
		return false
	}
	n["tag"], n["renotify"] = m.Notification, false
	return true
}

// checkTogether refuses what makes showNotification fail in the browser.
func checkTogether(n map[string]any) error {
	const path = "overrides.webpush.notification."
	var faults problem.Fields
	if tag, _ := n["tag"].(string); n["renotify"] == true && tag == "" {
		faults.Add(path+"renotify", "needs a tag; give one here or set collapse_key")
	}
	if _, vibrates := n["vibrate"]; vibrates && n["silent"] == true {
		faults.Add(path+"vibrate", "cannot go with a silent notification")
	}
	return faults.Err()
}

// declarative tells whether a browser may show it without the worker.
func declarative(n map[string]any) bool {
	if n["title"] == nil || n["navigate"] == nil || n["silent"] == true {
		return false
	}
	actions, _ := n["actions"].([]any)
	for _, a := range actions {
		if action, _ := a.(map[string]any); action["navigate"] == nil {
			return false
		}
	}
	return true
}

// assemble writes the JSON in three parts with the delivery's id between them.
func assemble(n map[string]any, data json.RawMessage, badge *int) (parts [3][]byte, err error) {
	shown, err := encode(n)
	if err != nil {
		return parts, err
	}
	var b bytes.Buffer
	if b.WriteByte('{'); declarative(n) {
		b.WriteString(`"web_push":8030,"mutable":true,`)
	}
	if badge != nil {
		count, err := encode(*badge)
		if err != nil {
			return parts, err
		}
		b.WriteString(`"app_badge":`)
		b.Write(count)
		b.WriteByte(',')
	}
	b.WriteString(`"notification":`)
	b.Write(openObject(shown))
	b.WriteString(`"data":{"` + channels.ReservedKey + `":"`)
	parts[0] = b.Bytes()
	parts[1] = append([]byte(`"`), closeObject(data)...)
	parts[1] = append(parts[1], `},"`+channels.ReservedKey+`":"`...)
	parts[2] = []byte(`"}`)
	return parts, nil
}

// openObject is an encoded object ready for one more member.
func openObject(object []byte) []byte {
	if len(object) == len("{}") {
		return object[:1]
	}
	return append(object[:len(object)-1], ',')
}

// closeObject is an encoded object as the rest of another.
func closeObject(object []byte) []byte {
	if len(object) == len("{}") {
		return object[1:]
	}
	return append([]byte{','}, object[1:]...)
}

// parseData gives the caller's object in compact form.
func parseData(raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 {
		return json.RawMessage("{}"), nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return nil, problem.AtField("data", "must be a JSON object")
	}
	if _, taken := members[channels.ReservedKey]; taken {
		return nil, problem.AtField("data."+channels.ReservedKey, "is reserved; choose another name")
	}
	return encode(raw)
}

// encode writes compact JSON. Nothing is escaped for HTML: no browser parses it
// as such, and every byte counts.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// shows tells whether a notification has something to read.
func shows(n map[string]any) bool {
	return (n["title"] != nil || n["body"] != nil) && n["silent"] != true
}

// urgencyOf is the Urgency header (RFC 8030 section 5.3) for a priority. A
// browser on battery may keep what is below high for later, so data alone do not
// wake it.
func urgencyOf(p channels.Priority, shown bool) webpushgo.Urgency {
	switch {
	case p == channels.High, p == "" && shown:
		return webpushgo.UrgencyHigh
	case p == channels.Low:
		return webpushgo.UrgencyLow
	}
	return webpushgo.UrgencyNormal
}

// topicOf derives the Topic header from a collapse key: the key itself where it
// is a topic of less than 32 characters, else 32 characters of its SHA-256.
// Equal keys make equal topics and different keys different ones, because no key
// stands for itself with the length of a hash.
func topicOf(key string) string {
	if key == "" || isTopic(key) && len(key) < maxTopic {
		return key
	}
	sum := sha256.Sum256([]byte(key))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:maxTopic]
}

// isTopic tells whether every push service takes s as a Topic. RFC 8030 asks
// for at most 32 characters of base64url; Apple decodes them, which no text
// whose length is 1 more than a multiple of 4 allows, and answers
// BadWebPushTopic.
func isTopic(s string) bool {
	return s != "" && len(s) <= maxTopic && len(s)%4 != 1 &&
		strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") == ""
}
