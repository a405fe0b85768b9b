package lists

import (
	"bufio"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
)

// Writer writes a list that a Reader of the same format takes back. Flush ends it.
type Writer struct {
	out    *bufio.Writer
	csv    *csv.Writer // nil: NDJSON
	fields []field
	row    []string
}

// NewWriter begins a list in NDJSON or CSV.
func NewWriter(to io.Writer, f Format) (*Writer, error) {
	w := &Writer{out: bufio.NewWriter(to)}
	switch f {
	case NDJSON:
		return w, nil
	case CSV:
		w.csv = csv.NewWriter(w.out)
		w.fields = fields()
		for _, f := range w.fields {
			w.row = append(w.row, f.name)
		}
		return w, w.csv.Write(append(w.row, expirationTime, tagsField))
	}
	return nil, fmt.Errorf("a list is written as ndjson or csv, not as %q", f)
}

// Write adds a device.
func (w *Writer) Write(d Device) error {
	if w.csv == nil {
		b, err := json.Marshal(d, json.Deterministic(true))
		if err != nil {
			return fmt.Errorf("write a device: %w", err)
		}
		_, err = w.out.Write(append(b, '\n'))
		return err
	}
	w.row = w.row[:0]
	of := d // who asks for a subscription makes one
	for _, f := range w.fields {
		text := ""
		if f.text != nil {
			text = *f.text(&of)
		} else if at := *f.at(&of); !at.IsZero() {
			text = at.UTC().Format(time.RFC3339Nano)
		}
		w.row = append(w.row, text)
	}
	expires, tags := "", ""
	if s := d.Subscription; s != nil && s.ExpirationTime != nil {
		expires = strconv.FormatFloat(*s.ExpirationTime, 'g', -1, 64)
	}
	if len(d.Tags) > 0 {
		b, err := json.Marshal(d.Tags, json.Deterministic(true))
		if err != nil {
			return fmt.Errorf("write a device: %w", err)
		}
		tags = string(b)
	}
	return w.csv.Write(append(w.row, expires, tags))
}

// Flush writes what is buffered.
func (w *Writer) Flush() error {
	if w.csv != nil {
		w.csv.Flush()
		if err := w.csv.Error(); err != nil {
			return err
		}
	}
	return w.out.Flush()
}
