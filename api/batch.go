package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
)

// BatchRequest is many notifications to be sent.
type BatchRequest struct {
	Notifications []Content `json:"notifications" minItems:"1" maxItems:"500"`
}

// BatchResult has one entry for each notification of the request, in order.
type BatchResult struct {
	Results []BatchEntry `json:"results"`
}

// BatchEntry is an Accepted, or an error.
type BatchEntry struct {
	*Accepted
	Error *Problem `json:"error,omitempty" doc:"Why this one was refused; paths begin at its own members"`
}

// TransformSchema says that the members of Accepted are absent beside an error.
func (BatchEntry) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	s.Required = nil
	return s
}

var _ huma.SchemaTransformer = BatchEntry{}

func (s *Server) sendBatch(ctx context.Context, c *call) (*answer, error) {
	key, stored, err := s.repeated(ctx, c, batchRoute)
	if err != nil || stored != nil {
		return stored, err
	}
	var body struct {
		Notifications []jsontext.Value `json:"notifications"`
	}
	if err := decode(c.body, &body); err != nil {
		return nil, err
	}
	n := len(body.Notifications)
	if n == 0 || n > delivery.MaxBatch {
		return nil, problem.AtField("notifications", "has %d members; send 1 to %d", n, delivery.MaxBatch)
	}
	sub := delivery.Submission{Tenant: c.tenant, Requests: make([]delivery.Request, n), Refused: make([]error, n), Idempotency: key, Render: renderBatch}
	for i, raw := range body.Notifications {
		var one Content
		if sub.Refused[i] = decode(raw, &one); sub.Refused[i] == nil {
			sub.Requests[i], sub.Refused[i] = one.request()
		}
	}
	got, err := s.engine.Accept(ctx, sub)
	if err != nil {
		return nil, err
	}
	return rendered(got), nil
}

func renderBatch(receipts []delivery.Receipt) (int, []byte, error) {
	out := BatchResult{Results: make([]BatchEntry, len(receipts))}
	for i, r := range receipts {
		if r.Err != nil {
			out.Results[i].Error = newProblem(r.Err, "")
			continue
		}
		a := showReceipt(r)
		out.Results[i].Accepted = &a
	}
	return render(http.StatusAccepted, out)
}
