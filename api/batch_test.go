package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
)

// wideBatch is a batch of n notifications to so many users each.
func wideBatch(n, users int) string {
	list := make([]string, users)
	for i := range list {
		list[i] = fmt.Sprintf(`"u%d"`, i)
	}
	one := `{"to":{"users":[` + strings.Join(list, ",") + `]},"title":"a"}`
	return `{"notifications":[` + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + `]}`
}

// acceptedParts answers a server's submissions, and keeps their answers as the store does.
type acceptedParts struct {
	stored map[string]delivery.Answer
	sizes  []int
	fail   func(part int) error
}

func (p *acceptedParts) serve(w *world) {
	p.stored = map[string]delivery.Answer{}
	w.reads.stored = func(i delivery.Idempotency) (delivery.Answer, bool, error) {
		a, found := p.stored[i.Route+i.Key]
		a.Replayed = true
		return a, found, nil
	}
	w.engine.accept = func(s delivery.Submission) (delivery.Answer, error) {
		if p.fail != nil {
			if err := p.fail(len(p.sizes)); err != nil {
				return delivery.Answer{}, err
			}
		}
		a, err := acceptAll(s, epoch)
		p.sizes = append(p.sizes, len(s.Requests))
		if s.Idempotency != nil {
			p.stored[s.Idempotency.Route+s.Idempotency.Key] = a
		}
		return a, err
	}
}

func batchOf(body, key string) request {
	r := request{method: "POST", path: "/v1/notifications/batch", key: keyAdmin, body: body}
	if key != "" {
		r.header = map[string]string{"Idempotency-Key": key}
	}
	return r
}

func TestABigBatchIsAcceptedInParts(t *testing.T) {
	t.Parallel()
	w := setup(t, func(o *Options) { o.MaxBody = 1 << 20 })
	var p acceptedParts
	p.serve(w)
	rec := w.do(t, batchOf(wideBatch(5, 400), ""))
	got := jsonIn[BatchResult](t, rec, 202)
	require.Equal(t, []int{2, 2, 1}, p.sizes, "at most 1,000 targets in a transaction")
	require.Len(t, got.Results, 5)
	for _, r := range got.Results {
		require.Equal(t, []int{1, 2}, []int{r.DeliveryCount, r.SkipCount})
	}
	require.NotContains(t, rec.Body.String(), `"deliveries"`, "an answer does not grow with what the request leads to")

	p.sizes = nil
	got = jsonIn[BatchResult](t, w.do(t, batchOf(wideBatch(500, 1), "")), 202)
	require.Equal(t, []int{500}, p.sizes, "many small ones are stored together")
	require.Len(t, got.Results[499].Deliveries, 1)

	q := problemIn(t, w.do(t, batchOf(wideBatch(101, 1000), "")))
	require.Equal(t, "notifications", q.Errors[0].Path)
	require.Contains(t, q.Errors[0].Detail, "send several batches")
}

func TestABatchThatWasCutShortGoesOn(t *testing.T) {
	t.Parallel()
	w := setup(t, func(o *Options) { o.MaxBody = 1 << 20 })
	p := acceptedParts{fail: func(part int) error {
		if part == 2 {
			return &problem.Error{Code: problem.Unavailable, RetryAfter: time.Second, Detail: "later"}
		}
		return nil
	}}
	p.serve(w)
	req := batchOf(wideBatch(4, 1000), "k")
	require.Equal(t, problem.Unavailable, problemIn(t, w.do(t, req)).Code, "it may be repeated")
	require.Equal(t, []int{1, 1}, p.sizes)

	p.fail = nil
	rec := w.do(t, req)
	require.Len(t, jsonIn[BatchResult](t, rec, 202).Results, 4)
	require.Equal(t, []int{1, 1, 1, 1}, p.sizes, "what was accepted is not accepted again")
	require.Empty(t, rec.Header().Get("Idempotency-Replayed"), "some of it is new")

	again := w.do(t, req)
	require.Equal(t, "true", again.Header().Get("Idempotency-Replayed"))
	require.JSONEq(t, rec.Body.String(), again.Body.String())
	require.Len(t, p.sizes, 4)
}

// Without a key it must not be repeated as a whole, so it is not refused as a whole.
func TestABatchWithoutAKeyTellsWhatFailed(t *testing.T) {
	t.Parallel()
	w := setup(t, func(o *Options) { o.MaxBody = 1 << 20 })
	p := acceptedParts{fail: func(part int) error {
		if part == 1 {
			return &problem.Error{Code: problem.Throttled, RetryAfter: 7 * time.Second, Detail: "too much"}
		}
		return nil
	}}
	p.serve(w)
	var got struct {
		Results []struct {
			ID    string
			Error *Problem
		}
	}
	rec := w.do(t, batchOf(wideBatch(3, 1000), ""))
	require.Equal(t, 202, rec.Code)
	require.NoError(t, json.Unmarshal(rec.Body.Bytes(), &got))
	require.Len(t, got.Results, 3)
	require.NotEmpty(t, got.Results[0].ID)
	for _, r := range got.Results[1:] {
		require.Empty(t, r.ID)
		require.Equal(t, problem.Throttled, r.Error.Code)
		require.True(t, r.Error.RetryAt.Equal(epoch.Add(7*time.Second)), r.Error.RetryAt)
	}
	require.Equal(t, "7", rec.Header().Get("Retry-After"))

	p.fail = func(int) error {
		return &problem.Error{Code: problem.Throttled, RetryAfter: time.Second, Detail: "later"}
	}
	require.Equal(t, problem.Throttled, problemIn(t, w.do(t, batchOf(wideBatch(3, 1000), ""))).Code, "nothing was accepted")
}

// TestABatchTellsWhenToComeAgain by the entry that takes longest, also when it is answered
// from what was stored.
func TestABatchTellsWhenToComeAgain(t *testing.T) {
	t.Parallel()
	w := setup(t)
	var p acceptedParts
	p.serve(w)
	accept := w.engine.accept
	refused := map[int]error{
		1: &problem.Error{Code: problem.Throttled, RetryAfter: 3 * time.Second, Detail: "slow down"},
		2: &problem.Error{Code: problem.Throttled, RetryAfter: 9 * time.Second, Detail: "slow down"},
		3: problem.AtField("to", "is missing"),
	}
	w.engine.accept = func(s delivery.Submission) (delivery.Answer, error) {
		render := s.Render
		s.Render = func(list []delivery.Receipt) (int, []byte, error) {
			for i, err := range refused {
				list[i] = delivery.Receipt{Err: err}
			}
			return render(list)
		}
		return accept(s)
	}
	req := batchOf(wideBatch(4, 1), "k")
	rec := w.do(t, req)
	require.Equal(t, "9", rec.Header().Get("Retry-After"))
	require.Zero(t, jsonIn[BatchResult](t, rec, 202).Results[3].Error.RetryAt, "it never may")

	p.stored[batchRoute+"k"] = delivery.Answer{Status: 202, Body: rec.Body.Bytes()}
	w.now = w.now.Add(5 * time.Second)
	again := w.do(t, req)
	require.Equal(t, "true", again.Header().Get("Idempotency-Replayed"))
	require.Equal(t, "4", again.Header().Get("Retry-After"), "what is left of it")
	w.now = w.now.Add(5 * time.Second)
	require.Empty(t, w.do(t, req).Header().Values("Retry-After"))

	clear(refused)
	require.Empty(t, w.do(t, batchOf(wideBatch(4, 1), "")).Header().Values("Retry-After"))
}
