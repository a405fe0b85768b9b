package lists

import (
	"bytes"
	"errors"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// line is a line of NDJSON: a device, or what PushSubscription.toJSON() gives with what is
// known beside it.
type line struct {
	Device
	Endpoint       string   `json:"endpoint"`
	ExpirationTime *float64 `json:"expirationTime"`
	Keys           *Keys    `json:"keys"`
	VAPIDKey       string   `json:"vapid_key"`
}

func deviceLine(row []byte) (Device, error) {
	var in line
	if err := unmarshal(row, &in, json.RejectUnknownMembers(true)); err != nil {
		return Device{}, err
	}
	d := in.Device
	switch {
	case in.Endpoint == "" && (in.Keys != nil || in.ExpirationTime != nil || in.VAPIDKey != ""):
		return d, &fault{"endpoint", "is missing beside keys, expirationTime or vapid_key"}
	case in.Endpoint != "" && d.Subscription != nil:
		return d, &fault{"endpoint", "is given twice: leave it out, or subscription"}
	case in.Endpoint != "":
		s := d.subscription()
		s.Endpoint, s.ExpirationTime, s.VAPIDKey = in.Endpoint, in.ExpirationTime, in.VAPIDKey
		if in.Keys != nil {
			s.Keys = *in.Keys
		}
	}
	if len(d.Tags) == 0 {
		d.Tags = nil
	}
	return d, nil
}

// unmarshal says what is wrong without a piece of the row.
func unmarshal(row []byte, into any, o ...json.Options) error {
	row = bytes.TrimSpace(row)
	err := json.Unmarshal(row, into, o...)
	if err == nil {
		return nil
	}
	semantic, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return &fault{"", "has a member twice"}
		}
		return &fault{"", "is not valid JSON"}
	}
	path := pathOf(semantic.JSONPointer)
	switch {
	case errors.Is(err, json.ErrUnknownName):
		return &fault{path, "is not known here; leave it out or check its spelling"}
	case path == "":
		return &fault{"", "is not a JSON object"}
	case strings.HasSuffix(path, "_at"):
		return &fault{path, "is not a time; use the form 2026-01-31T12:00:00Z"}
	}
	return &fault{path, "is of another type than it should be"}
}

func pathOf(p jsontext.Pointer) string {
	const most = 100 // the names are the file's
	var names []string
	for name := range p.Tokens() {
		names = append(names, name)
	}
	path := strings.Join(names, ".")
	if len(path) > most {
		path = strings.ToValidUTF8(path[:most], "") + "..."
	}
	return path
}
