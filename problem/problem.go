// Package problem is the one vocabulary of failures that a caller may see: a
// stable code, a sentence, and the fields at fault. The api package maps codes
// to HTTP statuses once; nothing else knows about HTTP.
//
// Whatever is not a *Error is internal: it is logged, and the caller is told
// only that something went wrong. So a sentence here must never hold a secret,
// a device token or a payload.
package problem

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code is stable: clients switch on it, so a code is never renamed or reused.
type Code string

// The codes, each with the HTTP status that api gives it.
const (
	Malformed           Code = "malformed"            // 400: not JSON, bad UTF-8, duplicate keys, too deep
	Unauthenticated     Code = "unauthenticated"      // 401: no key, unknown key, expired key
	Forbidden           Code = "forbidden"            // 403: the key lacks the scope that the call needs
	NotFound            Code = "not_found"            // 404: absent, or another tenant's
	MethodNotAllowed    Code = "method_not_allowed"   // 405
	NotAcceptable       Code = "not_acceptable"       // 406
	Conflict            Code = "conflict"             // 409: the present state forbids it
	TooLarge            Code = "too_large"            // 413: the request body is over the limit
	UnsupportedMedia    Code = "unsupported_media"    // 415: not application/json
	Invalid             Code = "invalid"              // 422: well-formed, but a field is wrong
	PayloadTooLarge     Code = "payload_too_large"    // 422: over what a provider takes
	IdempotencyMismatch Code = "idempotency_mismatch" // 422: the key was used with another body
	CredentialRefused   Code = "credential_refused"   // 422: this credential cannot work
	Throttled           Code = "throttled"            // 429: over a limit of this server
	Unavailable         Code = "unavailable"          // 503: full or stopping; try again
	Internal            Code = "internal"             // 500
)

// Field names one wrong member of the request: Path in the form
// "overrides.fcm.android.ttl" or "to.users[3]", Detail says what to do.
type Field struct {
	Path   string `json:"path" doc:"The member at fault, such as to.users[3]"`
	Detail string `json:"detail" doc:"What is wrong with it and how to mend it"`
}

// Error is a failure that the caller may see.
type Error struct {
	Code       Code
	Detail     string        // one sentence for people
	Fields     []Field       // empty where no field is at fault
	RetryAfter time.Duration // 0: trying again does not help, or not by waiting
}

func (e *Error) Error() string {
	if len(e.Fields) == 0 {
		return e.Detail
	}
	parts := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		parts[i] = f.Path + ": " + f.Detail
	}
	return e.Detail + " (" + strings.Join(parts, "; ") + ")"
}

// New makes an Error without fields.
func New(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// AtField makes an Invalid error for one field.
func AtField(path, format string, args ...any) *Error {
	return &Error{Code: Invalid, Detail: "The request has a field that cannot be accepted.",
		Fields: []Field{{Path: path, Detail: fmt.Sprintf(format, args...)}}}
}

// CodeOf tells the code of err: Internal unless an *Error is in its chain.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}

// maxFields bounds the faults that an error lists and maxPath a path in it, in
// bytes: both come from the caller, who must not make an answer of many times the
// size of the request.
const (
	maxFields = 100
	maxPath   = 256
)

// Fields collects what is wrong with a request, so that a caller sees every
// fault, up to maxFields, at once instead of one per try.
type Fields struct{ list []Field }

func (f *Fields) add(path, detail string) {
	if len(f.list) >= maxFields {
		return
	}
	if len(path) > maxPath {
		path = strings.ToValidUTF8(path[:maxPath], "") + "..."
	}
	f.list = append(f.list, Field{Path: path, Detail: detail})
}

// Add records a fault.
func (f *Fields) Add(path, format string, args ...any) {
	if len(f.list) < maxFields { // what is left out need not be written
		f.add(path, fmt.Sprintf(format, args...))
	}
}

// Merge takes over the fields of err with prefix before each path. An err
// without fields becomes one field named prefix.
func (f *Fields) Merge(prefix string, err error) {
	var e *Error
	switch {
	case err == nil:
	case !errors.As(err, &e):
		f.Add(prefix, "%s", err.Error())
	case len(e.Fields) == 0:
		f.Add(prefix, "%s", e.Detail)
	default:
		for _, x := range e.Fields {
			f.add(Join(prefix, x.Path), x.Detail)
		}
	}
}

// Err is nil when nothing was added.
func (f *Fields) Err() error {
	if len(f.list) == 0 {
		return nil
	}
	return &Error{Code: Invalid, Detail: "The request has fields that cannot be accepted.", Fields: f.list}
}

// Join puts two paths together.
func Join(prefix, path string) string {
	switch {
	case prefix == "":
		return path
	case path == "":
		return prefix
	case path[0] == '[':
		return prefix + path
	}
	return prefix + "." + path
}
