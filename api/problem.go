package api

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gin-gonic/gin"

	"github.com/carillonhq/carillon/problem"
)

const problemType = "application/problem+json"

// Problem is the body of every answer that is not a success (RFC 9457). Clients
// switch on code; title, detail and the sentences in errors are for people and
// may change.
type Problem struct {
	Type      string          `json:"type" enum:"about:blank" doc:"Always about:blank; see code"`
	Title     string          `json:"title" doc:"The phrase that belongs to the status"`
	Status    int             `json:"status" doc:"The HTTP status"`
	Code      problem.Code    `json:"code" doc:"What went wrong; never renamed"`
	Detail    string          `json:"detail" doc:"One sentence for people"`
	Errors    []problem.Field `json:"errors,omitempty" doc:"The members of the request that are at fault"`
	RequestID string          `json:"request_id,omitempty" doc:"Equal to the X-Request-Id header; quote it when you ask for help"`
	RetryAt   time.Time       `json:"retry_at,omitzero" doc:"Of an entry of a batch: send it again then, not before. Elsewhere Retry-After says so"`

	retryAfter time.Duration
}

var (
	_ huma.StatusError       = (*Problem)(nil)
	_ huma.HeadersError      = (*Problem)(nil)
	_ huma.ContentTypeFilter = (*Problem)(nil)
)

// Error is the sentence.
func (p *Problem) Error() string { return p.Detail }

// GetStatus is the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is what the body is sent as.
func (p *Problem) ContentType(string) string { return problemType }

// GetHeaders are the headers that belong to the status.
func (p *Problem) GetHeaders() http.Header {
	h := http.Header{}
	if p.retryAfter > 0 {
		h.Set("Retry-After", seconds(p.retryAfter))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="carillon"`)
	}
	return h
}

// seconds rounds up, so that nobody comes back too early.
func seconds(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}

// statusOf is the one place that maps codes to HTTP.
func statusOf(code problem.Code) int {
	switch code {
	case problem.Malformed:
		return http.StatusBadRequest
	case problem.Unauthenticated:
		return http.StatusUnauthorized
	case problem.Forbidden:
		return http.StatusForbidden
	case problem.NotFound:
		return http.StatusNotFound
	case problem.MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case problem.NotAcceptable:
		return http.StatusNotAcceptable
	case problem.Conflict:
		return http.StatusConflict
	case problem.TooLarge:
		return http.StatusRequestEntityTooLarge
	case problem.UnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case problem.Invalid, problem.PayloadTooLarge, problem.IdempotencyMismatch, problem.CredentialRefused:
		return http.StatusUnprocessableEntity
	case problem.Throttled:
		return http.StatusTooManyRequests
	case problem.Unavailable:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}

// codes lists what an operation may answer, for the OpenAPI document.
func codes() []problem.Code {
	return []problem.Code{problem.Malformed, problem.Unauthenticated, problem.Forbidden, problem.NotFound,
		problem.MethodNotAllowed, problem.NotAcceptable, problem.Conflict, problem.TooLarge, problem.UnsupportedMedia,
		problem.Invalid, problem.PayloadTooLarge, problem.IdempotencyMismatch, problem.CredentialRefused,
		problem.Throttled, problem.Unavailable, problem.Internal}
}

// newProblem shows an error to a caller. What is not a *problem.Error is
// internal, and nothing of it is shown.
func newProblem(err error, requestID string) *Problem {
	var e *problem.Error
	if !errors.As(err, &e) {
		e = problem.New(problem.Internal, "Something went wrong in the server. Its log has more under this request id.")
	}
	status := statusOf(e.Code)
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: e.Code,
		Detail: e.Detail, Errors: e.Fields, RequestID: requestID, retryAfter: e.RetryAfter}
}

// problem turns what a handler returns into the answer, and logs what the
// caller may not see.
func (s *Server) problem(ctx context.Context, c *call, err error) *Problem {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		err = &problem.Error{Code: problem.Unavailable, Detail: "The request ended before its answer was ready.", RetryAfter: time.Second}
	}
	p := newProblem(err, c.requestID)
	if p.Code == problem.Internal {
		s.log.ErrorContext(ctx, "request failed", "request_id", c.requestID, "error", err)
	}
	return p
}

// refuse answers outside of huma: from middleware and for unknown routes.
func (s *Server) refuse(g *gin.Context, c *call, err error) {
	if !c.bodyRead {
		ignoreBody(g.Writer, g.Request)
	}
	p := s.problem(g.Request.Context(), c, err)
	header := g.Writer.Header()
	maps.Copy(header, p.GetHeaders())
	header.Set("Content-Type", problemType)
	g.Status(p.Status)
	if err := encode(g.Writer, p); err != nil {
		s.log.DebugContext(g.Request.Context(), "answer not written", "request_id", c.requestID, "error", err)
	}
	g.Abort()
}

// asProblem replaces huma's own errors (wrong parameters) by ours, so that there
// is one kind. It is a huma.Transformer: replacing the global huma.NewError
// would change other users of huma in the same program.
func asProblem(ctx huma.Context, _ string, v any) (any, error) {
	m, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	e := &problem.Error{Code: problem.Internal, Detail: "Something went wrong in the server. Its log has more under this request id."}
	if m.Status < http.StatusInternalServerError {
		e = &problem.Error{Code: problem.Invalid, Detail: "The request has parameters that cannot be accepted."}
		for _, x := range m.Errors {
			_, name, _ := strings.Cut(x.Location, ".") // "query.limit"
			e.Fields = append(e.Fields, problem.Field{Path: name, Detail: x.Message})
		}
	}
	return newProblem(e, callFrom(ctx.Context()).requestID), nil
}
