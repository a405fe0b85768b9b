package api

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func replayOf(body string) request {
	return request{method: "POST", path: "/v1/dead-letters/replay", key: keyWith(tenants.Send), body: body}
}

func TestReplaysOfManyBecomeOrders(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := replayOf(`{"filter":{"reason":"exhausted","channel":"webhook","app":"shop","user":"u1","endpoint":"` + theEndpoint.Format(ids.Endpoint) +
		`","notification":"` + theNotification.Format(ids.Notification) + `","type":"order.shipped","since":"2026-01-01T00:00:00Z","until":"2026-02-01T00:00:00+01:00"},"per_second":7}`)
	r.header = map[string]string{idempotencyHeader: "once"}
	j := jsonIn[Job](t, w.do(t, r), 202)
	require.Equal(t, theJob.Format(ids.Job), j.ID)
	require.Equal(t, "queued", j.State)
	o := w.engine.order
	require.Equal(t, delivery.DeadFilter{Reason: delivery.Exhausted, Channel: channels.Webhook, App: "shop", User: "u1", Endpoint: theEndpoint, Notification: theNotification,
		Type: "order.shipped", Since: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Until: o.Filter.Until}, o.Filter)
	require.True(t, o.Filter.Until.Equal(time.Date(2026, 1, 31, 23, 0, 0, 0, time.UTC)))
	require.Equal(t, 7, o.PerSecond)
	require.Equal(t, tenantA, o.Tenant)
	require.NotEmpty(t, o.Actor)
	require.Equal(t, "once", o.Idempotency.Key)
	require.Equal(t, replayRoute, o.Idempotency.Route)
	require.Equal(t, []string{"stored", "replay all"}, w.did)

	jsonIn[Job](t, w.do(t, replayOf(`{"filter":{"reason":"expired"}}`)), 202)
	require.Equal(t, delivery.DefaultReplayRate, w.engine.order.PerSecond)
	require.Nil(t, w.engine.order.Idempotency)
}

func TestARepeatedReplayIsAnsweredAsBefore(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.reads.stored = func(delivery.Idempotency) (delivery.Answer, bool, error) {
		return delivery.Answer{Status: 202, Body: []byte(`{"id":"job_before"}`), Replayed: true}, true, nil
	}
	r := replayOf(`{"filter":{"reason":"exhausted"}}`)
	r.header = map[string]string{idempotencyHeader: "once"}
	rec := w.do(t, r)
	require.Equal(t, 202, rec.Code)
	require.JSONEq(t, `{"id":"job_before"}`, rec.Body.String())
	require.Equal(t, "true", rec.Header().Get("Idempotency-Replayed"))
	require.Equal(t, []string{"stored"}, w.did)
}

func TestADryRunOfAReplaySaysWhetherItCountedAll(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := replayOf(`{"filter":{"reason":"exhausted"},"dry_run":true}`)
	require.Equal(t, ReplayPreview{DryRun: true, Matching: 7, LowerBound: true}, jsonIn[ReplayPreview](t, w.do(t, r), 200))
	w.engine.exact = true
	require.Equal(t, ReplayPreview{DryRun: true, Matching: 7}, jsonIn[ReplayPreview](t, w.do(t, r), 200))
	require.Equal(t, []string{"count dead", "count dead"}, w.did)
}

func TestFaultsOfAReplayAreAllNamed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	long := strings.Repeat("x", 256)
	for body, want := range map[string][]string{
		`{}`:                               {"filter"},
		`{"filter":{},"per_second":0}`:     {"filter", "per_second"},
		`{"filter":{"reason":"gone"}}`:     {"filter.reason"},
		`{"filter":{"reason":"canceled"}}`: {"filter.reason"},
		`{"filter":{"reason":"x","channel":"x","endpoint":"dev_x","notification":"x","app":"` + long + `","user":"` + long + `","type":"` + long + `"}}`: {
			"filter.reason", "filter.channel", "filter.endpoint", "filter.notification", "filter.app", "filter.user", "filter.type"},
		`{"filter":{"since":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"},"per_second":1001}`: {"filter.until", "per_second"},
		`{"filter":{"state":"dead"}}`:      {"filter.state"},
		`{"filter":{"since":"yesterday"}}`: {"filter.since"},
	} {
		p := problemIn(t, w.do(t, replayOf(body)))
		require.Equal(t, problem.Invalid, p.Code)
		var got []string
		for _, x := range p.Errors {
			got = append(got, x.Path)
		}
		require.Equal(t, want, got, body)
	}
	require.Empty(t, w.did)
}
