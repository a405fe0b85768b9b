package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// Options make a Runner. Zero values have the defaults named beside them.
type Options struct {
	Store Store
	IDs   *ids.Generator
	Log   *slog.Logger
	Who   func(context.Context, ids.ID) slog.Value // how the log names a tenant; nil: by its id
	Now   func() time.Time
	Poll  time.Duration // most time between two looks for work; 1 s
	Lease time.Duration // of one step; 30 s
}

// maxPause is the longest wait after a step that failed; the first is a second.
const maxPause = time.Minute

// Runner takes the steps of jobs, one at a time; other nodes take others. Jobs
// have their turns: after each step the one that has waited longest goes on.
type Runner struct {
	o     Options
	mu    sync.Mutex // guards steps until Start
	steps map[Kind]Step
	kinds []Kind
	wake  chan struct{}
	ctx   context.Context
	stop  context.CancelFunc
	loop  sync.WaitGroup
}

// NewRunner makes a runner that does nothing yet: give it steps, then Start it.
func NewRunner(o Options) *Runner {
	if o.Poll == 0 {
		o.Poll = time.Second
	}
	if o.Lease == 0 {
		o.Lease = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Who == nil {
		o.Who = func(_ context.Context, t ids.ID) slog.Value { return slog.StringValue(t.Format(ids.Tenant)) }
	}
	if o.IDs == nil {
		o.IDs = ids.NewGenerator(0, o.Now)
	}
	r := &Runner{o: o, steps: map[Kind]Step{}, wake: make(chan struct{}, 1)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	return r
}

// Handle says what takes the steps of a kind. Only jobs of kinds that have been
// named are claimed, so that an older node leaves alone what it does not know.
func (r *Runner) Handle(k Kind, s Step) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.steps[k] != nil {
		panic("jobs: two steps for " + k.String())
	}
	r.steps[k] = s
	r.kinds = append(r.kinds, k)
	slices.Sort(r.kinds)
}

// Start begins to take steps.
func (r *Runner) Start() { r.loop.Go(r.run) }

// Stop waits for the step in hand, which commits or not, and takes no other.
func (r *Runner) Stop() {
	r.stop()
	r.loop.Wait()
}

// Wake says that there is a new job. A hint that is lost is made up for by the
// poll.
func (r *Runner) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *Runner) run() {
	for r.ctx.Err() == nil {
		wait := r.round()
		if wait <= 0 {
			continue
		}
		t := time.NewTimer(wait)
		select {
		case <-r.ctx.Done():
		case <-r.wake:
		case <-t.C:
		}
		t.Stop()
	}
}

// round takes one step, and tells how long there is nothing to do.
func (r *Runner) round() time.Duration {
	now := r.o.Now()
	r.mu.Lock()
	kinds := r.kinds
	r.mu.Unlock()
	if len(kinds) == 0 {
		return r.o.Poll
	}
	j, next, err := r.o.Store.ClaimJob(r.ctx, ClaimOrder{Kinds: kinds, Now: now, Lease: now.Add(r.o.Lease), Claim: int64(r.o.IDs.Next())})
	switch {
	case err != nil:
		if r.ctx.Err() == nil && problem.CodeOf(err) != problem.Unavailable { // the store says that
			r.o.Log.Error("look for jobs", "error", err)
		}
		return r.o.Poll
	case j.ID == 0 && next.IsZero():
		return r.o.Poll
	case j.ID == 0:
		return min(max(next.Sub(now), time.Millisecond), r.o.Poll)
	}
	if !r.take(j) {
		return r.o.Poll
	}
	return 0
}

// take takes a step of a job that was claimed; false: the database has to be left
// in peace for a while.
func (r *Runner) take(j Job) bool {
	log := r.o.Log.With("job", j.ID.Format(ids.Job), "kind", j.Kind.String(), "tenant", r.o.Who(r.ctx, j.Tenant))
	if j.Cursor == nil && j.Retries == 0 {
		begins := log
		if j.Total > 0 {
			begins = log.With("total", j.Total)
		}
		begins.Info("a job begins")
	}
	p, err := r.step(j)
	var fatal *permanent
	switch {
	case err == nil:
		if p.End {
			log.Info("a job is done", "done", j.Done+p.Done, "skipped", j.Skipped+p.Skipped, "failed", j.Failed+p.Failed,
				"duration", r.o.Now().Sub(j.StartedAt).Round(time.Millisecond).String())
		}
		return true
	case errors.Is(err, ErrLost):
		log.Info("a step of a job was given up: it was canceled, or another node has it")
		return true
	case errors.As(err, &fatal):
		log.Error("a job has failed", "error", err)
		_, err = r.o.Store.FailJob(r.ctx, j, fatal.Error())
	case r.ctx.Err() != nil:
		j.LeaseUntil = r.o.Now() // we stop: that is not the job's fault
		_, err = r.o.Store.ReturnJob(r.ctx, j)
	default:
		pause := min(time.Second<<min(j.Retries, 10), maxPause)
		log.Error("a step of a job is tried again", "error", err, "after", pause.String())
		j.LeaseUntil, j.Error, j.Retries = r.o.Now().Add(pause), reasonOf(err), j.Retries+1
		_, err = r.o.Store.ReturnJob(r.ctx, j)
	}
	if err != nil {
		log.Error("write the state of a job", "error", err)
	}
	return err == nil
}

// reasonOf is what people see of an error that passes: its sentence, if it is
// one for them.
func reasonOf(err error) string {
	if p, ok := errors.AsType[*problem.Error](err); ok {
		return p.Detail
	}
	return "A step went wrong and is tried again; the server's log has the reason."
}

// step keeps a panic from ending the server, and a step from outliving its lease.
func (r *Runner) step(j Job) (p Progress, err error) {
	ctx, cancel := context.WithTimeout(r.ctx, r.o.Lease)
	defer cancel()
	defer func() {
		if x := recover(); x != nil {
			err = fmt.Errorf("panic: %v\n%s", x, debug.Stack())
		}
	}()
	return r.steps[j.Kind](ctx, j)
}
