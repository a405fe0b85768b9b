package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

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

// Bounds of a batch. What is accepted in one transaction keeps others waiting.
const (
	batchID         = "sendNotifications"
	maxBatchTargets = 100_000 // users, devices and endpoints that a batch may name
	partTargets     = 1000    // that are accepted in one transaction
	listedTargets   = 1000    // a batch that names more is answered with numbers of deliveries, and no list
)

func (s *Server) sendBatch(ctx context.Context, c *call) (*answer, error) {
	key, stored, err := s.repeated(ctx, c, batchRoute)
	if err != nil || stored != nil && stored.Status != statusPart {
		return s.untilAgain(stored), err
	}
	b, err := readBatch(c)
	if err != nil {
		return nil, err
	}
	parts := b.parts()
	if len(parts) == 1 {
		got, err := s.engine.Accept(ctx, delivery.Submission{Tenant: c.tenant, Requests: b.requests, Refused: b.refused, Idempotency: key,
			Render: s.renderBatch(http.StatusAccepted, true)})
		if err != nil {
			return nil, err
		}
		return s.untilAgain(rendered(got)), nil
	}
	return s.sendParts(ctx, c, b, parts, key)
}

// batch is a batch that was read.
type batch struct {
	requests []delivery.Request
	refused  []error // at the same index: why one cannot be accepted
	targets  int     // that are named
}

func readBatch(c *call) (batch, error) {
	var body struct {
		Notifications []jsontext.Value `json:"notifications"`
	}
	if err := decode(c.body, &body); err != nil {
		return batch{}, err
	}
	n := len(body.Notifications)
	if n == 0 || n > delivery.MaxBatch {
		return batch{}, problem.AtField("notifications", "has %d members; send 1 to %d", n, delivery.MaxBatch)
	}
	b := batch{requests: make([]delivery.Request, n), refused: make([]error, n)}
	for i, raw := range body.Notifications {
		var one Content
		if b.refused[i] = decode(raw, &one); b.refused[i] == nil {
			b.requests[i], b.refused[i] = one.request()
		}
		b.targets += named(&b.requests[i])
	}
	if b.targets > maxBatchTargets {
		return b, problem.AtField("notifications", "name %d users, devices and endpoints, the limit is %d; send several batches", b.targets, maxBatchTargets)
	}
	return b, nil
}

func named(r *delivery.Request) int { return len(r.To.Users) + len(r.To.Devices) + len(r.To.Endpoints) }

// part is the members of a batch from one index up to another.
type part struct{ from, to int }

// parts cuts a batch into what is accepted in one transaction each. It goes by the
// request alone, so that a repeated one is cut in the same way.
func (b *batch) parts() (list []part) {
	targets := 0
	for i := range b.requests {
		n := named(&b.requests[i])
		if len(list) == 0 || targets+n > partTargets {
			list = append(list, part{from: i})
			targets = 0
		}
		targets += n
		list[len(list)-1].to = i + 1
	}
	return list
}

// statusPart is stored with the answer of a part, which is never sent as it is.
const statusPart = http.StatusPartialContent

// sendParts accepts one part after the other, so that others are accepted in between.
// Each has its own answer under the request's idempotency key: a request that was cut
// short goes on where it stopped when it is repeated. Without a key it must not be
// repeated as a whole, so that what failed is said of each member.
func (s *Server) sendParts(ctx context.Context, c *call, b batch, parts []part, key *delivery.Idempotency) (*answer, error) {
	whole := BatchResult{Results: make([]BatchEntry, 0, len(b.requests))}
	replayed := key != nil
	for i, p := range parts {
		sub := delivery.Submission{Tenant: c.tenant, Requests: b.requests[p.from:p.to], Refused: b.refused[p.from:p.to],
			Render: s.renderBatch(statusPart, b.targets <= listedTargets)}
		if key != nil {
			of := *key
			if i > 0 {
				of.Route = fmt.Sprintf("%s part %d", batchRoute, i+1)
			}
			sub.Idempotency = &of
		}
		got, err := s.acceptPart(ctx, c, sub)
		var done BatchResult
		if err == nil {
			err = json.Unmarshal(got.Body, &done)
			replayed = replayed && got.Replayed
		}
		switch {
		case err != nil && (key != nil || i == 0):
			return nil, err
		case err != nil:
			late := s.refusedEntry(s.problem(ctx, c, err))
			for range b.requests[p.from:] {
				whole.Results = append(whole.Results, late)
			}
			return s.wholeBatch(whole, false)
		}
		whole.Results = append(whole.Results, done.Results...)
	}
	return s.wholeBatch(whole, replayed)
}

// acceptPart finds the answer that a part has, or accepts it.
func (s *Server) acceptPart(ctx context.Context, c *call, sub delivery.Submission) (delivery.Answer, error) {
	if sub.Idempotency != nil {
		if a, found, err := s.reads.Stored(ctx, c.tenant, *sub.Idempotency); found || err != nil {
			return a, err
		}
	}
	return s.engine.Accept(ctx, sub)
}

func (s *Server) wholeBatch(whole BatchResult, replayed bool) (*answer, error) {
	status, body, err := render(http.StatusAccepted, whole)
	return s.untilAgain(rendered(delivery.Answer{Status: status, Body: body, Replayed: replayed})), err
}

// refusedEntry is an entry with an error, which says by itself when it may be sent again:
// an entry has no headers.
func (s *Server) refusedEntry(p *Problem) BatchEntry {
	if p.retryAfter > 0 {
		p.RetryAt = timestamp(s.now().Add(p.retryAfter))
	}
	return BatchEntry{Error: p}
}

// untilAgain says in the header of an answer how long it takes until all may be sent
// again that was refused for now. It goes by the body, so that an answer that was stored
// for an earlier request says what is left of that.
func (s *Server) untilAgain(a *answer) *answer {
	if a == nil || !bytes.Contains(a.Body, []byte(`"retry_at"`)) {
		return a
	}
	var said struct {
		Results []struct {
			Error struct {
				RetryAt time.Time `json:"retry_at"`
			} `json:"error"`
		} `json:"results"`
	}
	if json.Unmarshal(a.Body, &said) != nil {
		return a
	}
	var last time.Time
	for _, r := range said.Results {
		if r.Error.RetryAt.After(last) {
			last = r.Error.RetryAt
		}
	}
	if left := last.Sub(s.now()); left > 0 {
		a.RetryAfter = seconds(left)
	}
	return a
}

func (s *Server) renderBatch(status int, listed bool) func([]delivery.Receipt) (int, []byte, error) {
	return func(receipts []delivery.Receipt) (int, []byte, error) {
		out := BatchResult{Results: make([]BatchEntry, len(receipts))}
		for i, r := range receipts {
			if r.Err != nil {
				out.Results[i] = s.refusedEntry(newProblem(r.Err, ""))
				continue
			}
			a := showReceipt(r)
			if !listed {
				a.Deliveries, a.DeliveryCount, a.SkipCount, a.Skips = nil, len(a.Deliveries), len(a.Skips), nil
			}
			out.Results[i].Accepted = &a
		}
		return render(status, out)
	}
}
