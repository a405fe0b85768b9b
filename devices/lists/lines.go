package lists

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// lines reads lines of at most MaxRow bytes.
type lines struct {
	text *bufio.Reader // its buffer holds more than a line
	line int           // the number of the last
}

// next returns a line without its end. One that is too long is passed over, and is a
// *RowError. The line is good until the next call.
func (l *lines) next() ([]byte, error) {
	b, err := l.text.ReadSlice('\n')
	l.line++
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = l.text.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, broken(l.line, err)
		}
		return nil, tooLong(l.line)
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(b) == 0) {
		return nil, broken(l.line, err)
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	if len(b) > MaxRow {
		return nil, tooLong(l.line)
	}
	return b, nil
}

func tooLong(line int) *RowError {
	return &RowError{Line: line, Reason: fmt.Sprintf("has a row of more than %d bytes", MaxRow)}
}

// broken is an error of the file: io.EOF as it is.
func broken(line int, err error) error {
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return io.EOF
	}
	return fmt.Errorf("line %d cannot be read: %w", line, err)
}

// checkText refuses what is not UTF-8.
func checkText(line int, b []byte) error {
	if !utf8.Valid(b) {
		return &RowError{Line: line, Reason: "is not valid UTF-8; " + anotherEncoding}
	}
	return nil
}

// converter turns a row into a device; its errors are *faults.
type converter func(row []byte) (Device, error)

// lineRows are devices of which each is a line.
type lineRows struct {
	lines   lines
	convert converter
}

func (r *lineRows) next() (Entry, error) {
	for {
		b, err := r.lines.next()
		if err != nil {
			return Entry{}, err
		}
		if len(bytes.TrimSpace(b)) == 0 {
			continue
		}
		return entry(r.lines.line, b, r.convert)
	}
}

func entry(line int, row []byte, convert converter) (Entry, error) {
	if err := checkText(line, row); err != nil {
		return Entry{}, err
	}
	d, err := convert(row)
	if err != nil {
		return Entry{}, at(line, err)
	}
	return Entry{Line: line, Device: d}, nil
}

// fault is what is wrong with a row.
type fault struct{ field, reason string }

func (f *fault) Error() string { return f.field + " " + f.reason }

func at(line int, err error) error {
	p := &RowError{Line: line, Reason: "cannot be read"}
	if f, ok := errors.AsType[*fault](err); ok {
		p.Field, p.Reason = f.field, f.reason
	}
	return p
}
