package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/problem"
)

// maxDepth is how deep arrays and objects of a body may be nested.
const maxDepth = 32

// decode reads a request body: the only decoder of this package. It refuses
// duplicate and unknown members, names in another case, wrong types, numbers
// out of range, invalid UTF-8, anything after the value, and nesting deeper
// than maxDepth. null is the same as leaving a member out. The error is a
// *problem.Error that names the member, and never holds a value of the body.
func decode(body []byte, into any) error {
	switch {
	case len(bytes.TrimSpace(body)) == 0:
		return problem.New(problem.Malformed, "The request has no body; send a JSON object.")
	case !utf8.Valid(body):
		return problem.New(problem.Malformed, "The body is not valid UTF-8 at byte %d.", invalidUTF8(body))
	case tooDeep(body):
		return problem.New(problem.Malformed, "The body nests arrays and objects more than %d deep.", maxDepth)
	}
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	if err == nil {
		return nil
	}
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return syntaxProblem(syntax)
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		return semanticProblem(semantic)
	}
	return problem.New(problem.Malformed, "The body cannot be read.")
}

func syntaxProblem(e *jsontext.SyntacticError) error {
	if errors.Is(e.Err, jsontext.ErrDuplicateName) {
		return &problem.Error{Code: problem.Malformed, Detail: "The body has a member twice.",
			Fields: []problem.Field{{Path: pathOf(e.JSONPointer), Detail: "appears more than once in its object; keep one"}}}
	}
	if errors.Is(e.Err, io.ErrUnexpectedEOF) {
		return problem.New(problem.Malformed, "The body ends before its JSON does, at byte %d.", e.ByteOffset)
	}
	what := "something does not belong there"
	switch text := e.Err.Error(); { // which has a piece of the body in it
	case strings.HasPrefix(text, "invalid surrogate pair"):
		what = "it has half of a surrogate pair there"
	case strings.HasPrefix(text, "invalid escape sequence"):
		what = "it has an escape there that JSON does not know"
	}
	return problem.New(problem.Malformed, "The body is not valid JSON at byte %d: %s.", e.ByteOffset, what)
}

func semanticProblem(e *json.SemanticError) error {
	path := pathOf(e.JSONPointer)
	var wanted *problem.Error
	switch {
	case errors.As(e.Err, &wanted):
		var f problem.Fields
		f.Merge(path, wanted)
		return f.Err()
	case errors.Is(e.Err, json.ErrUnknownName):
		return problem.AtField(path, "is not known here; remove it or check its spelling")
	case path == "":
		return problem.New(problem.Invalid, "The body must be %s.", describe(e.GoType))
	case errors.Is(e.Err, strconv.ErrRange):
		return problem.AtField(path, "is out of range for %s", describe(e.GoType))
	}
	return problem.AtField(path, "must be %s", describe(e.GoType))
}

// describe names a type as its reader knows it.
func describe(t reflect.Type) string {
	if t == nil {
		return "of another type"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "a time in RFC 3339, such as 2026-01-31T12:00:00Z"
	case t == reflect.TypeFor[channels.Kind]():
		return "fcm, apns, webpush or webhook"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a string"
	case reflect.Slice, reflect.Array:
		return "an array"
	default:
		return "an object"
	}
}

// pathOf turns /to/users/3 into to.users[3].
func pathOf(p jsontext.Pointer) string {
	var out strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.ParseUint(token, 10, 32); err == nil {
			fmt.Fprintf(&out, "[%s]", token)
			continue
		}
		if out.Len() > 0 {
			out.WriteByte('.')
		}
		out.WriteString(token)
	}
	return out.String()
}

// tooDeep counts brackets outside of strings. What is not JSON is found later.
func tooDeep(body []byte) bool {
	depth, quoted := 0, false
	for i := 0; i < len(body); i++ {
		switch b := body[i]; {
		case quoted:
			switch b {
			case '\\':
				i++
			case '"':
				quoted = false
			}
		case b == '"':
			quoted = true
		case b == '{' || b == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case b == '}' || b == ']':
			depth--
		}
	}
	return false
}

func invalidUTF8(body []byte) int {
	for i := 0; i < len(body); {
		r, n := utf8.DecodeRune(body[i:])
		if r == utf8.RuneError && n <= 1 {
			return i
		}
		i += n
	}
	return len(body)
}

// encode writes an answer. Maps are sorted, absent lists are [], and HTML is
// not escaped: nothing of this is ever read as HTML (nosniff). What was stored
// is shown whatever it is: invalid UTF-8 becomes U+FFFD.
func encode(w io.Writer, v any) error {
	if err := json.MarshalWrite(w, v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true), jsontext.AllowDuplicateNames(true)); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n") // terminals
	return err
}

// encodeForHuma is encode for a caller that panics on errors: a client that has
// gone away is none.
func encodeForHuma(w io.Writer, v any) error {
	err := encode(w, v)
	var semantic *json.SemanticError
	var syntax *jsontext.SyntacticError
	if errors.As(err, &semantic) || errors.As(err, &syntax) {
		return err
	}
	return nil
}

// timestamp shows a time in UTC, to the millisecond. A time that JSON
// cannot hold is shown as the zero one: a row must never make its whole list
// unreadable.
func timestamp(t time.Time) time.Time {
	if t = t.UTC().Truncate(time.Millisecond); t.Year() < 1 || t.Year() > 9999 {
		return time.Time{}
	}
	return t
}
