package fcm

import (
	"bytes"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"firebase.google.com/go/v4/messaging"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

const (
	maxPayload  = 4096                // bytes, to a token ("ErrorCode": INVALID_ARGUMENT)
	maxBody     = 16 << 10            // of everything, counted by Google or not
	maxTTL      = 28 * 24 * time.Hour // AndroidConfig.ttl
	maxCollapse = 64                  // apns-collapse-id, in bytes
	apnsNow     = "10"
	apnsLater   = "5" // all that a message without notification may have on iOS
)

// payload is what all deliveries of a notification share: the request's body in
// pieces, between which go the address, the times to live and the delivery's id.
type payload struct {
	afterAddress, afterTTL, afterExpiry, afterWebTTL, afterDelivery string
	size                                                            int
}

var _ channels.Payload = (*payload)(nil)

// Prepare writes the message for FCM:
//
//	notification   title, body, image; absent from a silent message
//	data           data, every value a string (others become their JSON text),
//	               with url under "url" unless data has one, and the delivery's id
//	android        priority (high where something is shown, else normal), collapse_key, ttl;
//	               notification.tag (without a collapse key the notification's id, so that
//	               it is seen once though it is sent twice), sound and notification_count
//	               where shown
//	apns           for iOS behind FCM: priority 10, or 5 where nothing is shown,
//	               with aps.badge, aps.sound, aps.content-available; collapse id, expiration
//	webpush        Urgency, TTL, Topic-free; fcm_options.link where url is https
//
// The override is then merged in as RFC 7396 merges.
func (*Channel) Prepare(m channels.Message) (channels.Payload, error) {
	var faults problem.Fields
	data := dataOf(m, &faults)
	own := parseOverride(m, &faults)
	if m.Image != "" && !isHTTPS(m.Image) {
		faults.Add("image", "must be an absolute https URL")
	}
	if err := faults.Err(); err != nil {
		return nil, err
	}
	p, err := assemble(m, data, own)
	if err == nil && p.tooLong() && m.CollapseKey == "" && m.Notification != "" {
		m.Notification = "" // its name as the tag, which the caller did not ask for
		p, err = assemble(m, data, own)
	}
	if err != nil {
		return nil, err
	}
	if n := p.bytes(); n > maxBody {
		return nil, problem.New(problem.PayloadTooLarge, "The message for FCM would have %d bytes in all; at most %d are sent. Shorten the override.", n, maxBody)
	}
	if p.size > maxPayload {
		return nil, problem.New(problem.PayloadTooLarge,
			"The FCM payload would have %d bytes; Google takes at most %d. Shorten the text or send a reference to the data.", p.size, maxPayload)
	}
	return p, nil
}

func assemble(m channels.Message, data map[string]string, own map[string]any) (*payload, error) {
	sections, err := sectionsOf(render(m, data, shownBy(m, own)), own)
	if err != nil {
		return nil, err
	}
	return sections.payload(), nil
}

func (p *payload) tooLong() bool { return p.bytes() > maxBody || p.size > maxPayload }

// shown says where a message shows something: everywhere, or by the override's
// part for one platform alone.
type shown struct {
	all, android, ios, web bool
	live                   bool // on iOS a Live Activity and nothing else
}

func shownBy(m channels.Message, own map[string]any) shown {
	has := func(path ...string) bool {
		part := own
		for _, name := range path[:len(path)-1] {
			part, _ = part[name].(map[string]any)
		}
		return part[path[len(path)-1]] != nil
	}
	_, shows := own["notification"].(map[string]any)
	all := shows || !m.Silent && m.Title+m.Body != ""
	aps := []string{"apns", "payload", "aps"}
	return shown{
		all:     all,
		live:    has("apns", liveActivity),
		android: all || has("android", "notification"),
		ios:     all || has(append(aps, "alert")...) || has(append(aps, "badge")...) || has(append(aps, "sound")...),
		web:     all || has("webpush", "notification"),
	}
}

// render builds the message with the types of Google's SDK, without what
// differs between deliveries.
func render(m channels.Message, data map[string]string, s shown) *messaging.Message {
	urgent := func(here bool) bool { return m.Priority == channels.High || m.Priority == "" && here }
	msg := &messaging.Message{
		Data:    data,
		Android: &messaging.AndroidConfig{Priority: "normal", CollapseKey: m.CollapseKey},
		APNS: &messaging.APNSConfig{
			Headers: map[string]string{"apns-priority": apnsLater, "apns-push-type": "background"},
			Payload: &messaging.APNSPayload{Aps: &messaging.Aps{ContentAvailable: !s.all}},
		},
		Webpush: &messaging.WebpushConfig{Headers: map[string]string{"Urgency": urgency(m.Priority, urgent(s.web))}},
	}
	if urgent(s.android) {
		msg.Android.Priority = "high"
	}
	switch {
	case s.live: // FCM chooses the push type; content-available is for apps
		delete(msg.APNS.Headers, "apns-push-type")
		msg.APNS.Payload.Aps.ContentAvailable = false
		if urgent(true) {
			msg.APNS.Headers["apns-priority"] = apnsNow
		}
	case s.ios:
		msg.APNS.Headers["apns-push-type"] = "alert"
		if urgent(true) {
			msg.APNS.Headers["apns-priority"] = apnsNow
		}
	}
	switch id := m.ReplaceID(); {
	case m.CollapseKey != "" && len(id) <= maxCollapse, m.CollapseKey == "" && id != "" && s.ios && !s.live:
		msg.APNS.Headers["apns-collapse-id"] = id
	}
	if s.android {
		msg.Android.Notification = &messaging.AndroidNotification{Tag: m.ReplaceID()}
	}
	if isHTTPS(m.URL) {
		msg.Webpush.FCMOptions = &messaging.WebpushFCMOptions{Link: m.URL}
	}
	if !s.all {
		return msg
	}
	if !m.Silent {
		msg.Notification = &messaging.Notification{Title: m.Title, Body: m.Body, ImageURL: m.Image}
	}
	msg.Android.Notification.Sound, msg.Android.Notification.NotificationCount = m.Sound, m.Badge
	if s.live {
		return msg
	}
	msg.APNS.Payload.Aps.Badge, msg.APNS.Payload.Aps.Sound = m.Badge, m.Sound
	msg.APNS.Payload.Aps.MutableContent = m.Image != ""
	return msg
}

func urgency(p channels.Priority, urgent bool) string {
	switch {
	case urgent:
		return "high"
	case p == channels.Low:
		return "low"
	}
	return "normal"
}

func isHTTPS(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Scheme == "https" && u.Host != ""
}

// dataOf makes every value a string, which is all that FCM carries.
func dataOf(m channels.Message, faults *problem.Fields) map[string]string {
	data := map[string]string{}
	if len(m.Data) > 0 {
		var members map[string]json.RawMessage
		if json.Unmarshal(m.Data, &members) != nil {
			faults.Add("data", "must be a JSON object")
		}
		for name, value := range members {
			if reserved(name) {
				faults.Add(problem.Join("data", name), "is reserved by FCM or Carillon; choose a name other than from, message_type, %s, gcm… and google…", channels.ReservedKey)
			}
			data[name] = text(value)
		}
	}
	if _, taken := data["url"]; m.URL != "" && !taken {
		data["url"] = m.URL
	}
	return data
}

// reserved joins what the REST reference and the page "ErrorCode" reserve.
func reserved(name string) bool {
	return name == "from" || name == "message_type" || name == channels.ReservedKey ||
		strings.HasPrefix(name, "gcm") || strings.HasPrefix(name, "google")
}

func text(value json.RawMessage) string {
	var s string
	if value[0] == '"' && json.Unmarshal(value, &s) == nil {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, value) != nil {
		return string(value)
	}
	return b.String()
}

// tree is v as JSON reads it, with numbers kept as written.
func tree(v any) (map[string]any, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var m map[string]any
	err = d.Decode(&m)
	return m, err
}

// sections are the JSON objects of a message between which something is put in,
// "{}" where there is nothing.
type sections struct {
	notification, data                 string
	android, androidNotification       string
	apnsHeaders, apnsPayload, apnsRest string
	web, webHeaders, webNotify         string
	rest                               string // what else the message has
}

// sectionsOf encodes a message. Merging an override needs the message as a tree;
// without one, which is the common case, its parts are encoded as they are.
func sectionsOf(msg *messaging.Message, own map[string]any) (sections, error) {
	e := &encoder{}
	if len(own) == 0 {
		return sections{
			notification: e.object(msg.Notification), data: e.object(msg.Data),
			android: e.object(msg.Android), androidNotification: e.object(msg.Android.Notification),
			apnsHeaders: e.object(msg.APNS.Headers), apnsPayload: e.object(msg.APNS.Payload), apnsRest: empty,
			web: e.object(messaging.WebpushConfig{FCMOptions: msg.Webpush.FCMOptions}), webHeaders: e.object(msg.Webpush.Headers),
			webNotify: empty, rest: empty,
		}, e.err
	}
	doc, err := tree(msg)
	if err != nil {
		return sections{}, err
	}
	merge(doc, own)
	android, apns, web := take(doc, "android"), take(doc, "apns"), take(doc, "webpush")
	s := sections{
		notification: e.object(take(doc, "notification")), data: e.object(take(doc, "data")),
		android: e.object(android), androidNotification: e.object(android["notification"]),
		apnsHeaders: e.object(take(apns, "headers")), apnsPayload: e.object(take(apns, "payload")),
		webHeaders: e.object(take(web, "headers")), webNotify: e.object(web["notification"]),
	}
	s.apnsRest, s.web, s.rest = e.object(apns), e.object(web), e.object(doc)
	return s, e.err
}

// payload puts the sections together around what differs between attempts.
func (s sections) payload() *payload {
	member := func(name, object string) string {
		if object == empty {
			return ""
		}
		return `,"` + name + `":` + object
	}
	return &payload{
		size:          s.size(),
		afterAddress:  `","android":{"ttl":"`,
		afterTTL:      `s"` + closing(s.android) + `,"apns":{"headers":{"apns-expiration":"`,
		afterExpiry:   `"` + closing(s.apnsHeaders) + member("payload", s.apnsPayload) + closing(s.apnsRest) + `,"webpush":{"headers":{"TTL":"`,
		afterWebTTL:   `"` + closing(s.webHeaders) + closing(s.web) + `,"data":{"` + channels.ReservedKey + `":"`,
		afterDelivery: `"` + closing(s.data) + member("notification", s.notification) + closing(s.rest) + `}`,
	}
}

// size adds up what Google counts against its limit, on the safe side: the JSON
// text of notification and data (with the delivery's id) and of the largest of
// the parts that only one platform gets.
func (s sections) size() int {
	bytesOf := func(object string) int {
		if object == empty {
			return 0
		}
		return len(object)
	}
	return len(`{"`+channels.ReservedKey+`":""}`) + ids.DeliveryLen + bytesOf(s.notification) + bytesOf(s.data) +
		max(bytesOf(s.androidNotification), bytesOf(s.apnsPayload), bytesOf(s.webNotify))
}

// closing is the rest of an object that has a member already: ,"a":1} or only }.
func closing(object string) string {
	if object == empty {
		return "}"
	}
	return "," + object[1:]
}

const empty = "{}"

func take(from map[string]any, name string) map[string]any {
	m, _ := from[name].(map[string]any)
	delete(from, name)
	return m
}

// encoder keeps the first error.
type encoder struct{ err error }

func (e *encoder) text(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // three bytes for one, for the sake of browsers
	if err := enc.Encode(v); err != nil && e.err == nil {
		e.err = err
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// object is the text of an object, "{}" for nil.
func (e *encoder) object(v any) string {
	if text := e.text(v); text != "null" {
		return text
	}
	return empty
}

// bytes is the length of the body, without address and times.
func (p *payload) bytes() int {
	return len(p.afterAddress) + len(p.afterTTL) + len(p.afterExpiry) + len(p.afterWebTTL) + len(p.afterDelivery) + ids.DeliveryLen
}

// Size is what counts against Google's 4,096 bytes; see count.
func (p *payload) Size() int { return p.size }

// body is the request's body for one attempt. Addresses and ids have no
// character to escape; CheckTarget saw to that.
func (p *payload) body(t channels.Target, l channels.Life, now time.Time) []byte {
	kind := "token"
	if t.Kind == channels.FCMFid {
		kind = "fid"
	}
	left := min(l.Remaining(now), maxTTL)
	ttl := strconv.FormatInt(int64(left/time.Second), 10)
	expiry := "0" // APNs: try once
	if left > 0 {
		expiry = strconv.FormatInt(now.Add(left).Unix(), 10)
	}
	return slices.Concat([]byte(`{"message":{"`), []byte(kind), []byte(`":"`), []byte(t.Address),
		[]byte(p.afterAddress), []byte(ttl), []byte(p.afterTTL), []byte(expiry), []byte(p.afterExpiry),
		[]byte(ttl), []byte(p.afterWebTTL), []byte(l.Delivery), []byte(p.afterDelivery))
}

// Preview is the body without the address and the times to live.
func (p *payload) Preview(delivery string) json.RawMessage {
	b := p.body(channels.Target{}, channels.Life{Delivery: delivery}, time.Time{})
	b, err := withoutAttempt(b)
	if err != nil {
		return nil
	}
	return b
}

// withoutAttempt takes out of a body what differs between targets and attempts.
func withoutAttempt(body []byte) ([]byte, error) {
	doc, err := tree(json.RawMessage(body))
	if err != nil {
		return nil, err
	}
	message, _ := doc["message"].(map[string]any)
	for _, path := range [][]string{{"token"}, {"fid"}, {"android", "ttl"}, {"apns", "headers", "apns-expiration"}, {"webpush", "headers", "TTL"}} {
		m := message
		for _, name := range path[:len(path)-1] {
			m, _ = m[name].(map[string]any)
		}
		delete(m, path[len(path)-1])
	}
	e := &encoder{}
	return []byte(e.text(doc)), e.err
}
