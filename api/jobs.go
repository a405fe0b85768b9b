package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// Job is background work: what it is to do, and how far it is.
type Job struct {
	ID         string          `json:"id" example:"job_0d1kq3w8r000c"`
	Kind       string          `json:"kind" example:"dead_letter_replay"`
	State      string          `json:"state" enum:"queued,running,done,canceled,failed"`
	Spec       json.RawMessage `json:"spec" doc:"What it is to do, as it was asked for"`
	Total      int             `json:"total,omitzero" doc:"Items counted ahead; absent: unknown"`
	Done       int             `json:"done" doc:"Items done"`
	Skipped    int             `json:"skipped" doc:"Items that did not need it or could not have it; result says why"`
	Failed     int             `json:"failed" doc:"Items that went wrong"`
	Result     json.RawMessage `json:"result,omitempty" doc:"What came of it, as far as it is"`
	Error      string          `json:"error,omitempty" doc:"Why it failed; while it runs: why its newest step has to be tried again"`
	Actor      string          `json:"actor" doc:"The key that asked for it" example:"key_0d1kq3w8r000c"`
	CreatedAt  time.Time       `json:"created_at"`
	StartedAt  time.Time       `json:"started_at,omitzero"`
	UpdatedAt  time.Time       `json:"updated_at"`
	FinishedAt time.Time       `json:"finished_at,omitzero"`
}

type jobPath struct {
	ID string `path:"id" doc:"The job's id" example:"job_0d1kq3w8r000c"`
}

// JobFilter is what a list of jobs selects by.
type JobFilter struct {
	Paging
	State string `query:"state" enum:"queued,running,done,canceled,failed"`
	Kind  string `query:"kind" maxLength:"64" doc:"Such as dead_letter_replay"`
}

// cancelScope is what a key needs to cancel a job of a kind: what it needs to
// make one.
func cancelScope(k jobs.Kind) tenants.Scope {
	switch k {
	case jobs.ReplayDeadLetters, jobs.BringForward:
		return tenants.Send
	case jobs.RestoreDevices, jobs.RetireDevices:
		return tenants.Devices
	default:
		return tenants.Admin
	}
}

func (s *Server) jobRoutes() []route {
	const tag = "Jobs"
	return []route{
		{method: http.MethodGet, path: "/v1/jobs", access: orInstallation(tenants.Read), id: "listJobs", tag: tag,
			summary: "List background jobs, newest first", handler: withoutBody(s.listJobs)},
		{method: http.MethodGet, path: "/v1/jobs/{id}", access: orInstallation(tenants.Read), id: "getJob", tag: tag,
			summary: "Read a job and how far it is", handler: withoutBody(s.getJob)},
		{method: http.MethodPost, path: "/v1/jobs/{id}/cancel", access: orInstallation(tenants.Send), id: "cancelJob", tag: tag,
			summary: "Cancel a job", handler: withoutBody(s.cancelJob),
			about: "It stops before its next step; what it has done stays done. Needs the scope that making such a job needs, send for a replay. " +
				"May be repeated. 409 when the job has ended otherwise, or is of a kind that must not stop half way."},
	}
}

func (s *Server) listJobs(ctx context.Context, c *call, p *JobFilter) (List[Job], error) {
	const list = "jobs"
	after, err := p.after(list)
	var faults problem.Fields
	faults.Merge("", err)
	q := jobs.Query{After: after.Notification, Limit: p.more()}
	q.State, _ = jobs.ParseState(p.State)
	known := false
	if q.Kind, known = jobs.ParseKind(p.Kind); !known && p.Kind != "" {
		faults.Add("kind", "is not a kind of job")
	}
	if err := faults.Err(); err != nil {
		return List[Job]{}, err
	}
	rows, err := s.jobs.Jobs(ctx, c.tenant, q)
	return page(p.Paging, list, rows, placeOfJob, showJob), err
}

func (s *Server) getJob(ctx context.Context, c *call, p *jobPath) (Job, error) {
	id, err := pathID(ids.Job, p.ID, "job")
	if err != nil {
		return Job{}, err
	}
	j, err := s.jobs.Job(ctx, c.tenant, id)
	return showJob(j), err
}

func (s *Server) cancelJob(ctx context.Context, c *call, p *jobPath) (Job, error) {
	id, err := pathID(ids.Job, p.ID, "job")
	if err != nil {
		return Job{}, err
	}
	j, err := s.jobs.Job(ctx, c.tenant, id)
	if err != nil {
		return Job{}, err
	}
	if scope := cancelScope(j.Kind); !c.may(scope) {
		return Job{}, problem.New(problem.Forbidden, "This key lacks the scope %q, which canceling such a job needs.", scope)
	}
	j, err = s.jobs.CancelJob(ctx, c.tenant, id, c.actor)
	return showJob(j), err
}

func placeOfJob(j jobs.Job) delivery.Cursor { return byID(j.ID) }

func showJob(j jobs.Job) Job {
	return Job{ID: j.ID.Format(ids.Job), Kind: j.Kind.String(), State: j.State.String(), Spec: j.Spec, Total: j.Total, Done: j.Done,
		Skipped: j.Skipped, Failed: j.Failed, Result: j.Result, Error: j.Error, Actor: j.Actor, CreatedAt: timestamp(j.CreatedAt),
		StartedAt: timestamp(j.StartedAt), UpdatedAt: timestamp(j.UpdatedAt), FinishedAt: timestamp(j.FinishedAt)}
}
