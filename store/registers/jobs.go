package registers

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// jobRegister keeps background jobs.
type jobRegister struct{ db *db.DB }

const jobColumns = `j.id,j.tenant_id,j.kind,j.state,j.spec,j.cursor,j.result,j.total,j.done,j.skipped,j.failed,
 j.error,j.retries,j.actor,j.created_at,j.started_at,j.updated_at,j.finished_at,j.lease_until,j.claim`

const selectJob = `SELECT ` + jobColumns + ` FROM jobs j WHERE j.id=?`

const insertJob = `INSERT INTO jobs (id,tenant_id,kind,state,spec,cursor,result,total,done,skipped,failed,
 error,retries,actor,created_at,started_at,updated_at,finished_at,lease_until,claim)
 VALUES (?,?,?,1,?,'','',?,0,0,0,'',0,?,?,0,?,0,?,0)`

// jobRow is where the columns of a job are scanned into.
type jobRow struct {
	j                                          jobs.Job
	spec, cursor, result                       string
	created, started, updated, finished, lease int64
}

func (r *jobRow) into() []any {
	j := &r.j
	return []any{&j.ID, &j.Tenant, &j.Kind, &j.State, &r.spec, &r.cursor, &r.result, &j.Total, &j.Done, &j.Skipped, &j.Failed,
		&j.Error, &j.Retries, &j.Actor, &r.created, &r.started, &r.updated, &r.finished, &r.lease, &j.Claim}
}

func (r *jobRow) job() jobs.Job {
	j := r.j
	j.Spec, j.Cursor, j.Result = rawOrNil(r.spec), rawOrNil(r.cursor), rawOrNil(r.result)
	j.CreatedAt, j.StartedAt, j.UpdatedAt = db.FromMillis(r.created), db.FromMillis(r.started), db.FromMillis(r.updated)
	j.FinishedAt, j.LeaseUntil = db.FromMillis(r.finished), db.FromMillis(r.lease)
	return j
}

func rawOrNil(s string) json.RawMessage {
	if s == "" {
		return nil
	}
	return json.RawMessage(s)
}

func scanJob(r *sql.Rows) (jobs.Job, error) {
	var row jobRow
	err := r.Scan(row.into()...)
	return row.job(), err
}

// CreateJob stores a job that is new, and who made it: part of the transaction
// that asks for it.
func CreateJob(t *db.Tx, j jobs.Job, subject string) error {
	if !json.Valid(j.Spec) {
		return fmt.Errorf("the spec of a job of kind %s is not JSON", j.Kind)
	}
	if err := t.Exec(insertJob, j.ID, j.Tenant, j.Kind, string(j.Spec), j.Total, j.Actor,
		db.Millis(j.CreatedAt), db.Millis(j.CreatedAt), db.Millis(j.LeaseUntil)); err != nil {
		return fmt.Errorf("store a job: %w", err)
	}
	return t.Audit(j.Tenant, j.Actor, "job.create "+j.Kind.String(), subject)
}

// job reads one inside of a transaction.
func job(t *db.Tx, id ids.ID) (j jobs.Job, found bool, err error) {
	var row jobRow
	found, err = t.One(selectJob, []any{id}, row.into()...)
	return row.job(), found, err
}

// Job implements jobs.Registry.
func (s *jobRegister) Job(ctx context.Context, tenant, id ids.ID) (jobs.Job, error) {
	var row jobRow
	err := s.db.Reads().QueryRowContext(ctx, selectJob+` AND j.tenant_id=?`, id, tenant).Scan(row.into()...)
	if db.IsNoRows(err) {
		return jobs.Job{}, errNoJob()
	}
	return row.job(), err
}

func errNoJob() error { return problem.New(problem.NotFound, "There is no such job.") }

// Jobs implements jobs.Registry.
func (s *jobRegister) Jobs(ctx context.Context, tenant ids.ID, q jobs.Query) ([]jobs.Job, error) {
	where, args := []string{"j.tenant_id=?"}, []any{tenant}
	and := func(condition string, arg any) { where, args = append(where, condition), append(args, arg) }
	if q.After != 0 {
		and("j.id<?", q.After)
	}
	if q.State != 0 {
		and("j.state=?", q.State)
	}
	if q.Kind != 0 {
		and("j.kind=?", q.Kind)
	}
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT `+jobColumns+` FROM jobs j WHERE `+strings.Join(where, " AND ")+
		` ORDER BY j.id DESC LIMIT ?`, append(args, q.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("read jobs: %w", err)
	}
	return db.Collect(rows, scanJob)
}

// CancelJob implements jobs.Registry.
func (s *jobRegister) CancelJob(ctx context.Context, tenant, id ids.ID, actor string) (jobs.Job, error) {
	var out jobs.Job
	now := s.db.Now()
	err := s.db.Change(ctx, func(t *db.Tx) error {
		j, found, err := job(t, id)
		switch {
		case err != nil:
			return err
		case !found || j.Tenant != tenant:
			return errNoJob()
		case j.State.Unfinished() && !j.Kind.Cancelable():
			return problem.New(problem.Conflict, "A job of kind %s cannot be canceled: it must not stop half way.", j.Kind)
		}
		n, err := t.Affect(`UPDATE jobs SET state=4, claim=0, lease_until=0, updated_at=?, finished_at=? WHERE id=? AND state<3`, db.Millis(now), db.Millis(now), id)
		if err == nil && n == 1 {
			err = t.Audit(tenant, actor, "job.cancel "+j.Kind.String(), id.Format(ids.Job))
		}
		if err != nil {
			return err
		}
		if out, _, err = job(t, id); err == nil && out.State != jobs.Canceled {
			err = problem.New(problem.Conflict, "This job is %s already.", out.State)
		}
		return err
	})
	return out, err
}

// claimable is how many jobs a claim looks at: with many nodes the first may be
// gone already.
const claimable = 8

// ClaimJob implements jobs.Store.
func (s *jobRegister) ClaimJob(ctx context.Context, o jobs.ClaimOrder) (j jobs.Job, next time.Time, err error) {
	args := make([]any, 0, len(o.Kinds)+1)
	for _, k := range o.Kinds {
		args = append(args, k)
	}
	rows, err := s.db.Reads().QueryContext(ctx, `SELECT `+jobColumns+` FROM jobs j WHERE j.state<3 AND j.kind IN (?`+strings.Repeat(",?", len(o.Kinds)-1)+
		`) ORDER BY j.lease_until, j.id LIMIT ?`, append(args, claimable)...)
	if err != nil {
		return j, next, fmt.Errorf("look for jobs: %w", err)
	}
	list, err := db.Collect(rows, scanJob)
	if err != nil || len(list) == 0 {
		return j, next, err
	}
	if next = list[0].LeaseUntil; next.After(o.Now) {
		return j, next, nil
	}
	found := false
	err = s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		found = false
		for i := 0; i < len(list) && !list[i].LeaseUntil.After(o.Now); i++ {
			n, err := t.Affect(`UPDATE jobs SET state=2, claim=?, lease_until=?, started_at=CASE WHEN started_at=0 THEN ? ELSE started_at END, updated_at=?
 WHERE id=? AND state<3 AND lease_until<=?`, o.Claim, db.Millis(o.Lease), db.Millis(o.Now), db.Millis(o.Now), list[i].ID, db.Millis(o.Now))
			if err != nil {
				return err
			}
			if n == 1 { // what it has become since it was found is read behind the lock
				j, found, err = job(t, list[i].ID)
				return err
			}
		}
		return nil
	})
	if err != nil || !found {
		return jobs.Job{}, time.Time{}, err
	}
	return j, time.Time{}, nil
}

// ReturnJob implements jobs.Store.
func (s *jobRegister) ReturnJob(ctx context.Context, j jobs.Job) (bool, error) {
	return s.setJob(ctx, `UPDATE jobs SET claim=0, lease_until=?, retries=?, error=?, updated_at=? WHERE id=? AND claim=? AND state=2`,
		db.Millis(j.LeaseUntil), j.Retries, j.Error, db.Millis(s.db.Now()), j.ID, j.Claim)
}

// FailJob implements jobs.Store.
func (s *jobRegister) FailJob(ctx context.Context, j jobs.Job, reason string) (bool, error) {
	now := db.Millis(s.db.Now())
	return s.setJob(ctx, `UPDATE jobs SET state=5, claim=0, lease_until=0, error=?, updated_at=?, finished_at=? WHERE id=? AND claim=? AND state=2`,
		reason, now, now, j.ID, j.Claim)
}

func (s *jobRegister) setJob(ctx context.Context, query string, args ...any) (bool, error) {
	held := false
	err := s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		n, err := t.Affect(query, args...)
		held = n == 1
		return err
	})
	return held, err
}

// Step runs a step of a job, of about so many rows, and moves the job in the same transaction. jobs.ErrLost:
// the claim does not hold any more, and nothing was done.
//
// The row of the job is written first: on a database with many writers it then
// stays locked until the step has committed, so that a cancellation comes before
// the step or after it.
func (s *jobRegister) Step(ctx context.Context, j jobs.Job, rows int, run func(*db.Tx) (jobs.Progress, error)) (jobs.Progress, error) {
	var p jobs.Progress
	err := s.db.Write(context.WithoutCancel(ctx), db.Op{Weight: rows, Alone: true, Run: func(t *db.Tx) error {
		now := db.Millis(s.db.Now())
		n, err := t.Affect("UPDATE jobs SET updated_at=? WHERE id=? AND claim=? AND state=2", now, j.ID, j.Claim)
		switch {
		case err != nil:
			return err
		case n == 0:
			return jobs.ErrLost
		}
		if p, err = run(t); err != nil {
			return err
		}
		return advance(t, j, p, now)
	}})
	return p, err
}

// advance writes what a step has done, and gives the job back: whoever comes
// first takes the next step, behind the jobs that have waited longer.

func advance(t *db.Tx, j jobs.Job, p jobs.Progress, now int64) error {
	state, finished := jobs.Running, int64(0)
	if p.End {
		state, finished = jobs.Done, now
	}
	next, total := db.Millis(p.NotBefore), j.Total
	if next == 0 {
		next = now
	}
	if p.Total != 0 {
		total = p.Total
	}
	text := func(was, is json.RawMessage) string {
		if is != nil {
			return string(is)
		}
		return string(was)
	}
	n, err := t.Affect(`UPDATE jobs SET state=?, claim=0, lease_until=?, cursor=?, result=?, total=?, done=done+?, skipped=skipped+?, failed=failed+?,
 error='', retries=0, finished_at=? WHERE id=? AND claim=? AND state=2`,
		state, next, text(j.Cursor, p.Cursor), text(j.Result, p.Result), total, p.Done, p.Skipped, p.Failed, finished, j.ID, j.Claim)
	if err == nil && n == 0 {
		err = jobs.ErrLost
	}
	return err
}

// JobCount is how many jobs there are of a kind in a state.
type JobCount struct {
	Kind  jobs.Kind
	State jobs.State
	Jobs  int
}

// JobCounts counts the jobs of all tenants that have not been purged yet.
func (s *jobRegister) JobCounts(ctx context.Context) ([]JobCount, error) {
	rows, err := s.db.Lists().QueryContext(ctx, `SELECT kind,state,count(*) FROM jobs GROUP BY kind,state`)
	if err != nil {
		return nil, fmt.Errorf("count jobs: %w", err)
	}
	return db.Collect(rows, func(r *sql.Rows) (c JobCount, err error) {
		err = r.Scan(&c.Kind, &c.State, &c.Jobs)
		return c, err
	})
}

// LapseJobs ends the leases of all jobs: the process that had them is no more.
func LapseJobs(t *db.Tx, now int64) error {
	return t.Exec(`UPDATE jobs SET lease_until=?, claim=0 WHERE state<3 AND claim<>0`, now)
}
