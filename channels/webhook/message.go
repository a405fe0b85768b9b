package webhook

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// MaxBody is the largest body in bytes. Receivers expect far less; Standard
// Webhooks advises 20 kB.
const MaxBody = 256 << 10

// defaultType is the event type of a notification that has none.
const defaultType = "notification"

// body is what a receiver gets. It names no delivery, because all endpoints of
// a notification share these bytes; that id is in HeaderDelivery.
type body struct {
	Type         string          `json:"type"`
	Timestamp    string          `json:"timestamp"` // of the notification, not of the attempt
	ID           string          `json:"id"`
	Data         json.RawMessage `json:"data"`
	Notification *shown          `json:"notification,omitempty"`
}

// shown is what a person would see on the other channels.
type shown struct {
	Title string `json:"title,omitempty"`
	Body  string `json:"body,omitempty"`
	Image string `json:"image,omitempty"`
	URL   string `json:"url,omitempty"`
}

type payload struct{ json []byte }

// Size is the length of the body.
func (p *payload) Size() int { return len(p.json) }

// Preview is the body: it is the same for every delivery.
func (p *payload) Preview(string) json.RawMessage { return slices.Clone(p.json) }

// Prepare writes the body. The override may hold "data", an object that takes
// the place of the message's.
func (*Channel) Prepare(m channels.Message) (channels.Payload, error) {
	data, err := object("data", m.Data)
	if err != nil {
		return nil, err
	}
	if own, err := override(m.Override); err != nil {
		return nil, err
	} else if own != nil {
		data = own
	}
	b := body{Type: m.Type, Timestamp: m.CreatedAt.UTC().Format("2006-01-02T15:04:05.000Z"), ID: m.Notification, Data: data}
	if b.Type == "" {
		b.Type = defaultType
	}
	if s := (shown{Title: m.Title, Body: m.Body, Image: m.Image, URL: m.URL}); s != (shown{}) {
		b.Notification = &s
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false) // no browser parses this; <, > and & stay one byte
	if err := enc.Encode(b); err != nil {
		return nil, err
	}
	p := &payload{json: bytes.TrimSuffix(out.Bytes(), []byte("\n"))}
	if p.Size() > MaxBody {
		return nil, problem.New(problem.PayloadTooLarge,
			"The webhook body would have %d bytes; at most %d are sent. Send a reference to the data instead.", p.Size(), MaxBody)
	}
	return p, nil
}

// override gives the data that takes the place of the message's, or nil.
func override(raw json.RawMessage) (json.RawMessage, error) {
	const path = "overrides.webhook"
	if len(raw) == 0 {
		return nil, nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return nil, problem.AtField(path, "must be a JSON object")
	}
	var faults problem.Fields
	var data json.RawMessage
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if name != "data" {
			faults.Add(problem.Join(path, name), "cannot be overridden for webhooks; only data can")
			continue
		}
		var err error
		if data, err = object(path+".data", members[name]); err != nil {
			faults.Merge("", err)
		}
	}
	return data, faults.Err()
}

// object checks that raw is a JSON object without the reserved key; nothing
// becomes the empty object.
func object(path string, raw json.RawMessage) (json.RawMessage, error) {
	if len(raw) == 0 {
		return json.RawMessage("{}"), nil
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(raw, &members) != nil || members == nil {
		return nil, problem.AtField(path, "must be a JSON object")
	}
	if _, taken := members[channels.ReservedKey]; taken {
		return nil, problem.AtField(problem.Join(path, channels.ReservedKey), "is reserved; choose another name")
	}
	return raw, nil
}
