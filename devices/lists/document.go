package lists

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// documentRows are the members of a JSON array, which is the whole document, or a member
// of the objects that the document consists of, as in {"Endpoints": [...]}.
type documentRows struct {
	text    *bufio.Reader
	line    int
	convert converter
	wrapped bool // there are objects around the arrays
	depth   int  // of arrays and objects around the members
	inside  bool // of the array
}

// next finds the next member, and parts it from the others by its brackets and quotes:
// what is wrong within it keeps none of the others from being read.
func (r *documentRows) next() (Entry, error) {
	for {
		b, err := r.text.ReadByte()
		if err != nil {
			if errors.Is(err, io.EOF) && r.depth > 0 {
				return Entry{}, fmt.Errorf("the list ends in line %d, before its JSON does", r.line)
			}
			return Entry{}, broken(r.line, err)
		}
		switch {
		case b == '\n':
			r.line++
		case b == ' ' || b == '\t' || b == '\r' || b == ',':
		case r.inside && b == ']':
			r.inside = false
			r.depth--
		case r.inside:
			return r.member(b)
		case b == '[' && r.depth < 3:
			r.inside = true
			r.depth++
		case b == '{' && r.wrapped && r.depth == 0:
			r.depth++
		case b == '}' && r.depth == 1:
			r.depth--
		case b == '"' && r.depth == 1:
			if _, err := r.value(b); err != nil {
				return Entry{}, err
			}
		case r.depth == 1 && b != '{': // a colon, or a value that is no array
		default:
			return Entry{}, fmt.Errorf("line %d has something else than the array of devices that is expected", r.line)
		}
	}
}

func (r *documentRows) member(first byte) (Entry, error) {
	line := r.line
	row, err := r.value(first)
	if err != nil {
		return Entry{}, err
	}
	return entry(line, row, r.convert)
}

// value reads a value from its first byte on. One that is too long is passed over.
func (r *documentRows) value(first byte) ([]byte, error) {
	var (
		row             = []byte{first}
		line            = r.line
		depth           = 0
		quoted, escaped = first == '"', false
		long            = false
		plain           = first != '"' && first != '{' && first != '['
	)
	if first == '{' || first == '[' {
		depth = 1
	}
	for plain || quoted || depth > 0 {
		b, err := r.text.ReadByte()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("what begins in line %d has no end; nothing after it can be read", line)
			}
			return nil, broken(r.line, err)
		}
		if plain && (b == ',' || b == ']' || b == '}' || b == '\n') {
			_ = r.text.UnreadByte()
			break
		}
		switch {
		case escaped:
			escaped = false
		case quoted && b == '\\':
			escaped = true
		case b == '"' && !plain:
			quoted = !quoted
		case quoted || plain:
		case b == '{' || b == '[':
			depth++
		case b == '}' || b == ']':
			depth--
		}
		if b == '\n' {
			r.line++
		}
		if long = long || len(row) >= MaxRow; !long {
			row = append(row, b)
		}
	}
	if long {
		return nil, tooLong(line)
	}
	return row, nil
}
