package api

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func TestJobsAreShownWithoutTheirCursor(t *testing.T) {
	t.Parallel()
	w := setup(t)
	rec := w.do(t, get("/v1/jobs/"+theJob.Format(ids.Job), keyWith(tenants.Read)))
	got := jsonIn[map[string]any](t, rec, 200)
	require.Equal(t, map[string]any{"id": theJob.Format(ids.Job), "kind": "dead_letter_replay", "state": "running", "spec": map[string]any{"per_second": 100.},
		"total": 10., "done": 3., "skipped": 1., "failed": 0., "actor": "key_x", "created_at": "2026-03-04T05:06:07Z", "updated_at": "2026-03-04T05:06:07Z"}, got)
}

func TestJobsAreListed(t *testing.T) {
	t.Parallel()
	w := setup(t)
	list := jsonIn[List[Job]](t, w.do(t, get("/v1/jobs?state=running&kind=dead_letter_replay&limit=1", keyWith(tenants.Read))), 200)
	require.Equal(t, jobs.Query{State: jobs.Running, Kind: jobs.ReplayDeadLetters, Limit: 2}, w.jobs.query)
	require.Len(t, list.Data, 1)
	require.NotNil(t, list.NextCursor)
	jsonIn[List[Job]](t, w.do(t, get("/v1/jobs?cursor="+*list.NextCursor, keyWith(tenants.Read))), 200)
	require.Equal(t, theJob, w.jobs.query.After)

	p := problemIn(t, w.do(t, get("/v1/jobs?kind=cleaning&cursor=x", keyWith(tenants.Read))))
	require.Equal(t, problem.Invalid, p.Code)
	require.Len(t, p.Errors, 2)
}

func TestAnOperatorSeesTheJobsOfTheInstallation(t *testing.T) {
	t.Parallel()
	w := setup(t)
	require.Equal(t, 200, w.do(t, get("/v1/jobs", keyOperator)).Code)
	require.Equal(t, []string{"jobs of " + ids.ID(0).Format(ids.Tenant)}, w.did)
	require.Equal(t, problem.NotFound, problemIn(t, w.do(t, get("/v1/jobs/"+theJob.Format(ids.Job), keyOperator))).Code, "a tenant's job is not the installation's")
}

func TestCancelingAJobNeedsTheScopeOfItsKind(t *testing.T) {
	t.Parallel()
	w := setup(t)
	cancel := request{method: "POST", path: "/v1/jobs/" + theJob.Format(ids.Job) + "/cancel", key: keyWith(tenants.Send)}
	got := jsonIn[Job](t, w.do(t, cancel), 200)
	require.Equal(t, "canceled", got.State)
	require.Equal(t, json.RawMessage(`{"per_second":100}`), got.Spec)

	w.jobs.kind, w.did = 99, nil // one that has no scope of its own
	require.Equal(t, problem.Forbidden, problemIn(t, w.do(t, cancel)).Code)
	require.Equal(t, []string{"job"}, w.did)
	cancel.key = keyAdmin
	jsonIn[Job](t, w.do(t, cancel), 200)
}
