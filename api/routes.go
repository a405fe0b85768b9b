package api

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"slices"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
)

// route is one operation as data.
type route struct {
	method, path string
	access       access
	id           string // operationId: the name of the call in generated clients
	tag          string
	summary      string
	about        string // more, in sentences; may be empty
	status       int    // of a success
	handler      handler
	idempotent   bool         // takes an Idempotency-Key
	hasBody      bool         // set by mount
	bodyOptional bool         // every member is optional, so the body is too
	example      string       // of the body
	preview      reflect.Type // of the answer to a dry run; nil: there is none
}

// handler is made by withoutBody, withBody, readsBody, prerendered, previewed, careful, noContent or streams.
type handler struct {
	body     reflect.Type // of the request; nil: none
	answer   reflect.Type // of a rendered answer; nil: what huma sees
	careful  bool         // takes dry_run, which answers an Affected
	streams  []string     // media types of an answer that is written as it is read; nil: it is JSON
	register func(*Server, huma.Operation)
}

// none is the parameters of a route that has none.
type none struct{}

// output is an answer whose status may differ from the route's.
type output[T any] struct {
	Status int
	Body   T
}

// withoutBody makes a handler without a request body. P holds path, query and header
// parameters, T is the body of the answer.
func withoutBody[P, T any](h func(context.Context, *call, *P) (T, error)) handler {
	return handler{register: func(s *Server, op huma.Operation) {
		huma.Register(s.huma, op, func(ctx context.Context, in *P) (*output[T], error) {
			c := callFrom(ctx)
			v, err := h(ctx, c, in)
			return finish(ctx, s, c, op, v, err)
		})
	}}
}

// withBody makes a handler with a JSON body of type B.
func withBody[P, B, T any](h func(context.Context, *call, *P, *B) (T, error)) handler {
	return handler{body: reflect.TypeFor[B](), register: func(s *Server, op huma.Operation) {
		huma.Register(s.huma, op, func(ctx context.Context, in *P) (*output[T], error) {
			c := callFrom(ctx)
			var (
				body B
				v    T
			)
			err := decode(c.body, &body)
			if err == nil {
				v, err = h(ctx, c, in, &body)
			}
			return finish(ctx, s, c, op, v, err)
		})
	}}
}

// readsBody makes a handler that reads its body itself. B only documents it.
func readsBody[B, T any](h func(context.Context, *call) (T, error)) handler {
	return handler{body: reflect.TypeFor[B](), register: func(s *Server, op huma.Operation) {
		huma.Register(s.huma, op, func(ctx context.Context, _ *none) (*output[T], error) {
			c := callFrom(ctx)
			v, err := h(ctx, c)
			return finish(ctx, s, c, op, v, err)
		})
	}}
}

// prerendered makes a handler that reads its body itself and answers with what was
// rendered in the transaction that accepted. B and T only document it.
func prerendered[B, T any](h func(context.Context, *call) (*answer, error)) handler {
	return renders[none, B, T](func(ctx context.Context, c *call, _ *none) (*answer, error) { return h(ctx, c) })
}

// previewed is the same for a call that may be looked at before it is made.
func previewed[B, T any](h func(context.Context, *call) (*answer, error)) handler {
	return renders[DryRun, B, T](func(ctx context.Context, c *call, p *DryRun) (*answer, error) {
		c.dryRun = p.DryRun
		return h(ctx, c)
	})
}

// careful makes a handler, without a request body, of a call that can hurt many.
// What it answers when it is done is of type T; with dry_run it is an Affected.
func careful[P, T any](h func(context.Context, *call, *P) (*answer, error)) handler {
	r := renders[P, none, T](h)
	r.body, r.careful = nil, true
	return r
}

func renders[P, B, T any](h func(context.Context, *call, *P) (*answer, error)) handler {
	return handler{body: reflect.TypeFor[B](), answer: reflect.TypeFor[T](), register: func(s *Server, op huma.Operation) {
		huma.Register(s.huma, op, func(ctx context.Context, in *P) (*answer, error) {
			c := callFrom(ctx)
			a, err := h(ctx, c, in)
			if err != nil {
				return nil, s.problem(ctx, c, err)
			}
			return a, nil
		})
	}}
}

// noContent makes a handler that answers 204 without a body.
func noContent[P any](h func(context.Context, *call, *P) error) handler {
	return handler{register: func(s *Server, op huma.Operation) {
		huma.Register(s.huma, op, func(ctx context.Context, in *P) (*none, error) {
			c := callFrom(ctx)
			if err := h(ctx, c, in); err != nil {
				return nil, s.problem(ctx, c, err)
			}
			return &none{}, nil
		})
	}}
}

// stream writes an answer with its headers. It panics with http.ErrAbortHandler where it
// cannot end it.
type stream func(w http.ResponseWriter)

// streams makes a handler whose answer is of any length, in one of some media types by their
// names. It takes its turns among the reads by itself.
func streams[P any](types map[string]string, h func(context.Context, *call, *P) (stream, error)) handler {
	return handler{streams: slices.Sorted(maps.Values(types)), register: func(s *Server, op huma.Operation) {
		huma.Register(s.huma, op, func(ctx context.Context, in *P) (*huma.StreamResponse, error) {
			c := callFrom(ctx)
			write, err := h(ctx, c, in)
			if err != nil {
				return nil, s.problem(ctx, c, err)
			}
			return &huma.StreamResponse{Body: func(h huma.Context) { write(humagin.Unwrap(h).Writer) }}, nil
		})
	}}
}

func finish[T any](ctx context.Context, s *Server, c *call, op huma.Operation, v T, err error) (*output[T], error) {
	if err != nil {
		return nil, s.problem(ctx, c, err)
	}
	status := op.DefaultStatus
	if c.status != 0 {
		status = c.status
	}
	return &output[T]{Status: status, Body: v}, nil
}

// mount registers a route and documents it.
func (s *Server) mount(r route) {
	r.hasBody = r.handler.body != nil
	if r.status == 0 {
		r.status = http.StatusOK
	}
	op := huma.Operation{
		Method: r.method, Path: r.path, OperationID: r.id, Tags: []string{r.tag},
		Summary: r.summary, Description: r.about, DefaultStatus: r.status,
		Security: security(r.access), Parameters: headersOf(r), Responses: problemsOf(r),
		Middlewares:                  huma.Middlewares{s.guard(r)},
		RejectUnknownQueryParameters: true,
	}
	r.handler.register(s, op)
	s.document(r)
}
