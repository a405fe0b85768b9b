package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
)

// TestCodes: these numbers and names are in databases and in clients.
func TestCodes(t *testing.T) {
	t.Parallel()
	require.Equal(t, []jobs.Kind{1, 2, 3, 4, 5, 6, 7, 9, 10}, jobs.Kinds())
	require.Equal(t, "dead_letter_replay", jobs.ReplayDeadLetters.String())
	require.EqualValues(t, 1, jobs.ReplayDeadLetters)
	require.True(t, jobs.ReplayDeadLetters.Cancelable())
	require.Equal(t, []jobs.State{1, 2, 3, 4, 5}, jobs.States())
	for i, name := range []string{"queued", "running", "done", "canceled", "failed"} {
		s, ok := jobs.ParseState(name)
		require.True(t, ok)
		require.EqualValues(t, i+1, s)
		require.Equal(t, name, s.String())
		require.Equal(t, i < 2, s.Unfinished())
	}
	for _, k := range jobs.Kinds() {
		back, ok := jobs.ParseKind(k.String())
		require.True(t, ok)
		require.Equal(t, k, back)
	}
	_, ok := jobs.ParseKind("")
	require.False(t, ok)
	require.Equal(t, "kind(99)", jobs.Kind(99).String())
	require.False(t, jobs.Kind(99).Cancelable())
}

// memory is a store of jobs that is good enough for one runner.
type memory struct {
	mu     sync.Mutex
	jobs   []*jobs.Job
	claims []jobs.ClaimOrder
	broken error
}

var _ jobs.Store = (*memory)(nil)

func (m *memory) ClaimJob(_ context.Context, o jobs.ClaimOrder) (jobs.Job, time.Time, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims = append(m.claims, o)
	if m.broken != nil {
		return jobs.Job{}, time.Time{}, m.broken
	}
	var best *jobs.Job
	for _, j := range m.jobs {
		if j.State.Unfinished() && (best == nil || j.LeaseUntil.Before(best.LeaseUntil)) {
			best = j
		}
	}
	switch {
	case best == nil:
		return jobs.Job{}, time.Time{}, nil
	case best.LeaseUntil.After(o.Now):
		return jobs.Job{}, best.LeaseUntil, nil
	}
	best.State, best.Claim, best.LeaseUntil = jobs.Running, o.Claim, o.Lease
	if best.StartedAt.IsZero() {
		best.StartedAt = o.Now
	}
	return *best, time.Time{}, nil
}

func (m *memory) change(j jobs.Job, f func(*jobs.Job)) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, x := range m.jobs {
		if x.ID == j.ID && x.Claim == j.Claim && x.State == jobs.Running {
			x.Claim = 0
			f(x)
			return true
		}
	}
	return false
}

func (m *memory) ReturnJob(_ context.Context, j jobs.Job) (bool, error) {
	return m.change(j, func(x *jobs.Job) { x.LeaseUntil, x.Error, x.Retries = j.LeaseUntil, j.Error, j.Retries }), nil
}

func (m *memory) FailJob(_ context.Context, j jobs.Job, reason string) (bool, error) {
	return m.change(j, func(x *jobs.Job) { x.State, x.Error = jobs.Failed, reason }), nil
}

func (m *memory) advance(j jobs.Job, p jobs.Progress) (jobs.Progress, error) {
	if !m.change(j, func(x *jobs.Job) {
		x.Done, x.Cursor, x.LeaseUntil, x.Retries, x.Error = x.Done+p.Done, p.Cursor, p.NotBefore, 0, ""
		if x.LeaseUntil.IsZero() {
			x.LeaseUntil = time.Now()
		}
		if p.End {
			x.State = jobs.Done
		}
	}) {
		return jobs.Progress{}, jobs.ErrLost
	}
	return p, nil
}

func (m *memory) add(list ...*jobs.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, j := range list {
		j.ID, j.Kind, j.State, j.LeaseUntil = ids.ID(len(m.jobs)+1), jobs.ReplayDeadLetters, jobs.Queued, time.Now()
		m.jobs = append(m.jobs, j)
	}
}

func (m *memory) get(i int) jobs.Job {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *m.jobs[i]
}

// runs starts a runner in a bubble where time passes only when everybody waits.
func runs(t *testing.T, step func(m *memory, j jobs.Job) (jobs.Progress, error), test func(m *memory, r *jobs.Runner)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		m := &memory{}
		r := jobs.NewRunner(jobs.Options{Store: m})
		r.Handle(jobs.ReplayDeadLetters, func(_ context.Context, j jobs.Job) (jobs.Progress, error) { return step(m, j) })
		r.Start()
		defer r.Stop()
		test(m, r)
	})
}

func TestJobsHaveTheirTurns(t *testing.T) {
	t.Parallel()
	var order []ids.ID
	runs(t, func(m *memory, j jobs.Job) (jobs.Progress, error) {
		order = append(order, j.ID)
		time.Sleep(time.Millisecond) // in the bubble: work takes time
		return m.advance(j, jobs.Progress{Done: 1, Cursor: json.RawMessage("1"), End: j.Done == 2})
	}, func(m *memory, r *jobs.Runner) {
		m.add(&jobs.Job{})
		time.Sleep(time.Microsecond)
		m.add(&jobs.Job{})
		r.Wake()
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, []ids.ID{1, 2, 1, 2, 1, 2}, order)
		require.Equal(t, jobs.Done, m.get(0).State)
		require.Equal(t, 3, m.get(1).Done)
	})
}

func TestAPauseIsKept(t *testing.T) {
	t.Parallel()
	var at []time.Duration
	runs(t, func(m *memory, j jobs.Job) (jobs.Progress, error) {
		at = append(at, time.Since(j.StartedAt))
		return m.advance(j, jobs.Progress{Done: 1, NotBefore: time.Now().Add(250 * time.Millisecond), End: len(at) == 4})
	}, func(m *memory, r *jobs.Runner) {
		m.add(&jobs.Job{})
		r.Wake()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, []time.Duration{0, 250 * time.Millisecond, 500 * time.Millisecond, 750 * time.Millisecond}, at)
	})
}

func TestWhatPassesIsTriedAgainWithPauses(t *testing.T) {
	t.Parallel()
	var at []time.Duration
	runs(t, func(m *memory, j jobs.Job) (jobs.Progress, error) {
		at = append(at, time.Since(j.StartedAt))
		switch len(at) {
		case 1:
			return jobs.Progress{}, errors.New("secret of the database")
		case 2:
			panic("a step went wrong")
		case 3, 4, 5, 6, 7, 8, 9:
			return jobs.Progress{}, problem.New(problem.Unavailable, "The database cannot be written at the moment.")
		}
		return m.advance(j, jobs.Progress{Done: 1, End: true})
	}, func(m *memory, r *jobs.Runner) {
		m.add(&jobs.Job{})
		r.Wake()
		synctest.Wait()
		require.Equal(t, jobs.Running, m.get(0).State)
		require.Equal(t, "A step went wrong and is tried again; the server's log has the reason.", m.get(0).Error)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		require.Equal(t, "The database cannot be written at the moment.", m.get(0).Error)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.Equal(t, jobs.Done, m.get(0).State)
		require.Empty(t, m.get(0).Error)
		for i, want := range []int{0, 1, 3, 7, 15, 31, 63, 123, 183, 243} {
			require.Equal(t, time.Duration(want)*time.Second, at[i])
		}
	})
}

func TestWhatNoRetryMendsFails(t *testing.T) {
	t.Parallel()
	steps := 0
	runs(t, func(*memory, jobs.Job) (jobs.Progress, error) {
		steps++
		return jobs.Progress{}, jobs.Permanent(errors.New("the spec names no tenant"))
	}, func(m *memory, r *jobs.Runner) {
		m.add(&jobs.Job{})
		r.Wake()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, steps)
		require.Equal(t, jobs.Failed, m.get(0).State)
		require.Equal(t, "the spec names no tenant", m.get(0).Error)
	})
}

func TestAStepThatLostItsJobLeavesItAlone(t *testing.T) {
	t.Parallel()
	steps := 0
	runs(t, func(m *memory, j jobs.Job) (jobs.Progress, error) {
		steps++
		m.change(j, func(x *jobs.Job) { x.State = jobs.Canceled })
		return m.advance(j, jobs.Progress{Done: 1})
	}, func(m *memory, r *jobs.Runner) {
		m.add(&jobs.Job{})
		r.Wake()
		time.Sleep(time.Minute)
		synctest.Wait()
		require.Equal(t, 1, steps)
		require.Equal(t, jobs.Canceled, m.get(0).State)
		require.Zero(t, m.get(0).Done)
	})
}

func TestADatabaseThatFailsIsLeftInPeace(t *testing.T) {
	t.Parallel()
	runs(t, func(*memory, jobs.Job) (jobs.Progress, error) { return jobs.Progress{}, nil }, func(m *memory, _ *jobs.Runner) {
		m.mu.Lock()
		m.broken = errors.New("no database")
		m.mu.Unlock()
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		require.InDelta(t, 11, len(m.claims), 1, "once a second")
	})
}

// TestStopWaitsForTheStep: it may still commit, and is given a context that ends.
func TestStopWaitsForTheStep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(*testing.T) {
		m := &memory{}
		r := jobs.NewRunner(jobs.Options{Store: m})
		stopped := false
		r.Handle(jobs.ReplayDeadLetters, func(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
			<-ctx.Done()
			stopped = true
			return jobs.Progress{}, ctx.Err()
		})
		m.add(&jobs.Job{})
		r.Start()
		synctest.Wait()
		require.Equal(t, jobs.Running, m.get(0).State)
		r.Stop()
		require.True(t, stopped)
		require.Empty(t, m.get(0).Error, "stopping is not the job's fault")
		require.False(t, m.get(0).LeaseUntil.After(time.Now()), "and another node may go on at once")
	})
}
