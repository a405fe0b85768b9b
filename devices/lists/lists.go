// Package lists reads and writes lists of devices: what another system has exported, or
// this one. A list is a stream of any length, of which no more than one row is in memory.
//
// Files: beginning.go tells what a file is, lines.go, csv.go and document.go part it into
// rows, device.go, json.go and presets.go turn a row into a device, writer.go writes.
package lists

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// MaxRow is how long a row may be, in bytes.
const MaxRow = 64 << 10

// Format is what a list looks like. docs/devices.md says what each column and member means.
type Format string

// The formats.
const (
	NDJSON    Format = "ndjson"    // a JSON object a line: a device, or a PushSubscription; or an array of them
	CSV       Format = "csv"       // with a line of column names
	Tokens    Format = "tokens"    // a token a line, as for gorush; or a JSON array of them
	OneSignal Format = "onesignal" // the CSV of "Export subscriptions"
	AeroGear  Format = "aerogear"  // the JSON of its export, or for its importer
	SNS       Format = "sns"       // the JSON of aws sns list-endpoints-by-platform-application
	Firebase  Format = "firebase"  // rows of the message delivery data in BigQuery, as CSV or JSON
)

// Formats lists them.
func Formats() []Format { return []Format{NDJSON, CSV, Tokens, OneSignal, AeroGear, SNS, Firebase} }

// Device is a member of POST /v1/devices/batch, and a line of a list in NDJSON.
type Device struct {
	ID             string            `json:"id,omitzero"` // of an export: where it goes on; no member of a batch
	User           string            `json:"user,omitzero"`
	App            string            `json:"app,omitzero"`
	Channel        string            `json:"channel,omitzero"`
	Token          string            `json:"token,omitzero"`
	FID            string            `json:"fid,omitzero"`
	Subscription   *Subscription     `json:"subscription,omitzero"`
	Environment    string            `json:"environment,omitzero"`
	Purpose        string            `json:"purpose,omitzero"`
	ActivityID     string            `json:"activity_id,omitzero"`
	ExpiresAt      time.Time         `json:"expires_at,omitzero"`
	InstallationID string            `json:"installation_id,omitzero"`
	OS             string            `json:"os,omitzero"`
	AppVersion     string            `json:"app_version,omitzero"`
	Locale         string            `json:"locale,omitzero"`
	TimeZone       string            `json:"time_zone,omitzero"`
	Tags           map[string]string `json:"tags,omitzero"`
	RegisteredAt   time.Time         `json:"registered_at,omitzero"`
	LastSeenAt     time.Time         `json:"last_seen_at,omitzero"`
}

// Subscription is a PushSubscription of a browser, with the key that it is bound to.
type Subscription struct {
	Endpoint       string   `json:"endpoint"`
	ExpirationTime *float64 `json:"expirationTime,omitzero"` // ms since 1970
	Keys           Keys     `json:"keys"`
	VAPIDKey       string   `json:"vapid_key,omitzero"`
}

// Keys are those of a subscription, in base64url.
type Keys struct {
	P256dh string `json:"p256dh"`
	Auth   string `json:"auth"`
}

// Entry is a device of a list.
type Entry struct {
	Line   int // where its row begins; the first is 1
	Device Device
}

// RowError is why a row gives no device. Those after it can be read.
type RowError struct {
	Line   int
	Field  string // of the device, or a column; "" is the row as a whole
	Reason string // never holds what the row says
}

func (p *RowError) Error() string {
	if p.Field == "" {
		return fmt.Sprintf("line %d %s", p.Line, p.Reason)
	}
	return fmt.Sprintf("line %d: %s %s", p.Line, p.Field, p.Reason)
}

// Options say how a list is read.
type Options struct {
	Format  Format
	Columns map[string]string // of CSV: the field that a column is, by the column's name; "" leaves it out
	// Default is what devices are that do not say otherwise: their app, channel and user.
	Default Device
	// Anonymous, unless empty, makes a user for each device whose user is not known: it is this, and a hash of
	// the address, so that the same list makes the same users.
	Anonymous string
}

// rows parts a list. next returns a device, a *RowError, io.EOF, or why nothing more can be
// read.
type rows interface {
	next() (Entry, error)
}

// Reader reads a list.
type Reader struct {
	rows rows
	o    Options
	end  error // nothing more can be read
}

// NewReader looks at the beginning of a list: what is none is refused, and so are columns
// that lead to no device. What is compressed with gzip is taken as well.
func NewReader(src io.Reader, o Options) (*Reader, error) {
	if !slices.Contains(Formats(), o.Format) {
		return nil, fmt.Errorf("the format %q is not known; use one of %v", o.Format, Formats())
	}
	text, err := begin(src)
	if err != nil {
		return nil, err
	}
	r := &Reader{o: o}
	r.rows, err = open(text, o)
	return r, err
}

func open(text *bufio.Reader, o Options) (rows, error) {
	first := firstByte(text)
	convert := members[o.Format]
	switch {
	case first == '[', o.Format == SNS && first == '{':
		if convert == nil {
			return nil, fmt.Errorf("the file is JSON, and not %s", o.Format)
		}
		return &documentRows{text: text, line: 1, convert: convert, wrapped: o.Format == SNS}, nil
	case o.Format == NDJSON, o.Format == AeroGear, o.Format == SNS, o.Format == Firebase && first == '{':
		if first != '{' {
			return nil, errors.New("the file is not JSON: it should begin with { or [")
		}
		return &lineRows{lines: lines{text: text}, convert: convert}, nil
	case o.Format == Tokens && o.Default.Channel == "":
		return nil, errors.New("the list does not say of which channel its tokens are; give one: fcm or apns")
	case o.Format == Tokens:
		return &lineRows{lines: lines{text: text}, convert: plainToken}, nil
	}
	return newCSVRows(text, o)
}

// Read reads the next device. The error is a *RowError where it is about one row and the
// next can be read, and io.EOF at the end.
func (r *Reader) Read() (Entry, error) {
	if r.end != nil {
		return Entry{}, r.end
	}
	e, err := r.rows.next()
	if err != nil {
		if _, row := errors.AsType[*RowError](err); !row {
			r.end = err
		}
		return Entry{}, err
	}
	r.complete(&e.Device)
	return e, nil
}

// Ignored are the columns of a CSV list that are no field of a device.
func (r *Reader) Ignored() []string {
	if c, ok := r.rows.(*csvRows); ok {
		return c.ignored
	}
	return nil
}

// firstByte is the first that is no white space, of those that are looked at.
func firstByte(text *bufio.Reader) byte {
	head, _ := text.Peek(beginning)
	if s := strings.TrimLeft(string(head), " \t\r\n"); s != "" {
		return s[0]
	}
	return 0
}
