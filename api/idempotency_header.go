package api

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
)

const (
	idempotencyHeader = "Idempotency-Key"
	maxIdempotencyKey = 255
)

// idempotencyKey reads the header, as a structured-field string
// (draft-ietf-httpapi-idempotency-key-header) or bare. "" where none was sent.
func idempotencyKey(header http.Header) (string, error) {
	values := header[idempotencyHeader]
	if len(values) == 0 {
		return "", nil
	}
	key, ok := unquote(values[0])
	if !ok || len(values) > 1 || key == "" || len(key) > maxIdempotencyKey {
		return "", problem.AtField(idempotencyHeader, "must be one value of 1 to %d printable ASCII characters, quoted or bare", maxIdempotencyKey)
	}
	return key, nil
}

// unquote reads a structured-field string (RFC 8941 section 3.3.3) or a bare value.
func unquote(s string) (string, bool) {
	s = strings.Trim(s, " \t")
	for _, b := range []byte(s) {
		if b < 0x20 || b > 0x7e {
			return "", false
		}
	}
	if !strings.HasPrefix(s, `"`) {
		return s, true
	}
	var out strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return out.String(), i == len(s)-1
		case '\\':
			if i++; i == len(s) || (s[i] != '"' && s[i] != '\\') {
				return "", false
			}
		}
		out.WriteByte(s[i])
	}
	return "", false
}

// repeated looks up whether the request was answered before: after
// authentication, before anything of the body is read as JSON. The first result
// is nil where the caller sent no key.
func (s *Server) repeated(ctx context.Context, c *call, route string) (*delivery.Idempotency, *answer, error) {
	if c.idemKey == "" || c.dryRun { // a dry run repeats nothing
		return nil, nil, nil
	}
	i := delivery.Idempotency{Principal: c.key, Route: route, Key: c.idemKey, BodyHash: sha256.Sum256(c.body)}
	stored, found, err := s.reads.Stored(ctx, c.tenant, i)
	if err != nil || !found {
		return &i, nil, err
	}
	return &i, rendered(stored), nil
}

// answer is a body that was rendered before.
type answer struct {
	Status      int
	ContentType string `header:"Content-Type"`
	Replayed    string `header:"Idempotency-Replayed"`
	RetryAfter  string `header:"Retry-After"` // of a batch
	Body        []byte
}

func rendered(a delivery.Answer) *answer {
	out := &answer{Status: a.Status, ContentType: jsonType, Body: a.Body}
	if a.Replayed {
		out.Replayed = "true"
	}
	return out
}
