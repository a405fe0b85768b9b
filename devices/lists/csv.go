package lists

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// csvRows are the rows of a CSV list (RFC 4180), whose quotes may reach over lines. What
// encoding/csv does is not enough: for a quote that is never closed it would read the rest
// of the file into memory, and it changes line breaks within quotes.
type csvRows struct {
	text    *bufio.Reader
	line    int // of the row that is next
	comma   byte
	header  []string
	setters []setter                                         // one for each column; nil: it is left out
	preset  func(column func(string) string) (Device, error) // nil: by the setters
	ignored []string
}

func newCSVRows(text *bufio.Reader, o Options) (*csvRows, error) {
	r := &csvRows{text: text, line: 1, preset: presets[o.Format]}
	head, _ := text.Peek(beginning)
	head, _, _ = bytes.Cut(head, []byte("\n"))
	r.comma = ','
	for _, c := range []byte(";\t") {
		if bytes.Count(head, []byte{c}) > bytes.Count(head, []byte{r.comma}) {
			r.comma = c
		}
	}
	header, _, err := r.record()
	if err != nil {
		return nil, fmt.Errorf("the line of column names cannot be read: %w", err)
	}
	for _, name := range header {
		r.header = append(r.header, strings.TrimSpace(name))
	}
	if r.preset != nil {
		err = r.need(needed[o.Format])
	} else {
		err = r.assign(o.Columns)
	}
	return r, err
}

func (r *csvRows) need(columns []string) error {
	for _, name := range columns {
		if !slices.Contains(r.header, name) {
			return fmt.Errorf("the list has no column %s; its columns are %s", name, r.columns())
		}
	}
	return nil
}

func (r *csvRows) columns() string {
	const most = 40
	names := r.header[:min(len(r.header), most)]
	for i := range names {
		names[i] = fmt.Sprintf("%.60q", names[i])
	}
	return strings.Join(names, ", ")
}

// assign finds the field of each column.
func (r *csvRows) assign(columns map[string]string) error {
	if err := r.need(slices.Sorted(maps.Keys(columns))); err != nil {
		return err
	}
	of := map[string]string{} // the column of a field
	for _, column := range r.header {
		name, named := columns[column]
		if !named {
			name = column
		}
		set := setterOf(name)
		switch {
		case set == nil && named && name != "":
			return fmt.Errorf("there is no field %q for the column %q; fields are %s", name, column, fieldNames())
		case set == nil:
			if !named {
				r.ignored = append(r.ignored, column)
			}
		case of[name] != "":
			return fmt.Errorf("the columns %q and %q are both %s; leave one out: give it no field", of[name], column, name)
		default:
			of[name] = column
		}
		r.setters = append(r.setters, set)
	}
	if !slices.ContainsFunc(addresses(), func(name string) bool { return of[name] != "" }) {
		return fmt.Errorf("the list has no column %s; its columns are %s: say which is which, as column=field",
			strings.Join(addresses(), ", "), r.columns())
	}
	return nil
}

func fieldNames() string {
	var names []string
	for _, f := range fields() {
		names = append(names, f.name)
	}
	return strings.Join(append(names, expirationTime, tagsField, oneTag+"NAME"), ", ")
}

func (r *csvRows) next() (Entry, error) {
	for {
		record, line, err := r.record()
		switch {
		case err != nil:
			return Entry{}, err
		case len(record) == 1 && record[0] == "":
			continue // an empty line
		case len(record) != len(r.header):
			return Entry{}, &RowError{Line: line, Reason: fmt.Sprintf("has %d fields, and the line of column names has %d", len(record), len(r.header))}
		}
		d, err := r.device(record)
		if err != nil {
			return Entry{}, at(line, err)
		}
		return Entry{Line: line, Device: d}, nil
	}
}

func (r *csvRows) device(record []string) (d Device, err error) {
	if r.preset != nil {
		return r.preset(func(name string) string {
			if i := slices.Index(r.header, name); i >= 0 {
				return record[i]
			}
			return ""
		})
	}
	for i, set := range r.setters {
		if set == nil || record[i] == "" {
			continue
		}
		if err := set(&d, record[i]); err != nil {
			return d, err
		}
	}
	return d, nil
}

// record reads a row. One that cannot be parted into fields costs its first line: those
// after it are looked at by themselves.
func (r *csvRows) record() (fields []string, line int, err error) {
	b, err := r.text.Peek(MaxRow + 2)
	line = r.line
	if len(b) == 0 || (err != nil && !errors.Is(err, io.EOF)) {
		return nil, line, broken(line, err)
	}
	fields, used, err := part(b, r.comma, errors.Is(err, io.EOF))
	if err == nil {
		err = checkText(line, b[:used])
	} else {
		err = at(line, err)
		used = bytes.IndexByte(b, '\n') + 1
	}
	if used == 0 {
		r.line++
		if broken := r.skipLine(); broken != nil {
			return nil, line, broken
		}
		return nil, line, err
	}
	r.line += bytes.Count(b[:used], []byte("\n"))
	_, _ = r.text.Discard(used)
	return fields, line, err
}

// skipLine passes over the rest of a line.
func (r *csvRows) skipLine() error {
	for {
		_, err := r.text.ReadSlice('\n')
		if err == nil || errors.Is(err, io.EOF) {
			return nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// part parts the first row of b into fields, and tells how long it is.
func part(b []byte, comma byte, end bool) (fields []string, used int, err error) {
	ends := string([]byte{comma, '\n'})
	for i := 0; ; {
		var value string
		if i < len(b) && b[i] == '"' {
			if value, i, err = quotedField(b, i+1, comma, end); err != nil {
				return nil, 0, err
			}
		} else {
			n := bytes.IndexAny(b[i:], ends)
			if n < 0 {
				n = len(b) - i
			}
			value = string(b[i : i+n])
			i += n
			if i == len(b) || b[i] == '\n' {
				value = strings.TrimSuffix(value, "\r")
			}
			if strings.Contains(value, `"`) {
				return nil, 0, &fault{"", `has a quote within a field that does not begin with one; write "a ""b"" c" for a "b" c`}
			}
		}
		fields = append(fields, value)
		switch {
		case i == len(b) && !end:
			return nil, 0, &fault{"", fmt.Sprintf("has a row of more than %d bytes", MaxRow)}
		case i == len(b):
			return fields, i, nil
		case b[i] == '\n':
			return fields, i + 1, nil
		}
		i++ // the comma
	}
}

// quotedField reads from behind a quote to behind its closing one, and a carriage return
// before the end of the row.
func quotedField(b []byte, i int, comma byte, end bool) (value string, next int, err error) {
	var text []byte
	for {
		n := bytes.IndexByte(b[i:], '"')
		if n < 0 {
			if end {
				return "", 0, &fault{"", "has a quote that is never closed"}
			}
			return "", 0, &fault{"", fmt.Sprintf("has a row of more than %d bytes: is a quote never closed?", MaxRow)}
		}
		text = append(text, b[i:i+n]...)
		i += n + 1
		if i >= len(b) || b[i] != '"' {
			break
		}
		text = append(text, '"')
		i++
	}
	rest := b[i:]
	if len(rest) > 0 && rest[0] == '\r' && (len(rest) == 1 || rest[1] == '\n') {
		i++
		rest = rest[1:]
	}
	if len(rest) > 0 && rest[0] != '\n' && rest[0] != comma {
		return "", 0, &fault{"", "has something between a closing quote and the end of its field"}
	}
	return string(text), i, nil
}
