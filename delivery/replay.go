package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
)

// Limits of a replay of many dead letters.
const (
	DefaultReplayRate = 100  // letters in a second
	MaxReplayRate     = 1000 // letters in a second
	MaxReplays        = 20   // unfinished ones of a tenant: jobs have their turns, whosever they are
	replayStep        = 500  // letters in one step: each may change two rows
	deadWindow        = 5000 // letters that one step looks at, whether the filter wants them or not
	countTime         = 2 * time.Second
	replayHeadroom    = 10 * time.Second // pause where too much waits to be sent already
)

// ReplayStore is what a replay of many dead letters needs.
type ReplayStore interface {
	WalkDead(ctx context.Context, tenant ids.ID, w DeadWalk) (DeadPage, error)
	// CreateReplay stores a job with its audit, and the answer with the idempotency
	// key, in one transaction. When the key is taken, nothing is stored and the
	// stored answer comes back, or problem.IdempotencyMismatch. A tenant with
	// MaxReplays unfinished ones is problem.Throttled.
	CreateReplay(ctx context.Context, j jobs.Job, i *Idempotency, a Answer, expires time.Time) (stored *Answer, err error)
	// ReplayDead is a step of a job: it replays the letters that are still as they
	// were found, due at once, and moves the job as progress says.
	ReplayDead(ctx context.Context, j jobs.Job, letters []Replayed, progress func(ReplayCounts) jobs.Progress) (jobs.Progress, error)
}

// ReplayOrder asks for the replay of all dead letters of a tenant that a filter
// selects.
type ReplayOrder struct {
	Tenant      ids.ID
	Filter      DeadFilter
	PerSecond   int // 1 to MaxReplayRate
	Actor       string
	Idempotency *Idempotency
	// Render makes the answer that is stored with the idempotency key.
	Render func(jobs.Job) (status int, body []byte, err error)
}

// Check finds what is wrong with an order.
func (o *ReplayOrder) Check() error {
	var faults problem.Fields
	o.Filter.check(&faults)
	if o.PerSecond < 1 || o.PerSecond > MaxReplayRate {
		faults.Add("per_second", "must be 1 to %d", MaxReplayRate)
	}
	return faults.Err()
}

// replaySpec is the spec of a job of kind jobs.ReplayDeadLetters.
type replaySpec struct {
	Filter    DeadFilter `json:"filter"`
	PerSecond int        `json:"per_second"`
}

// replayCursor is its cursor: the place of the letter that was looked at last.
type replayCursor struct {
	At           int64  `json:"at"` // Unix milliseconds
	Notification ids.ID `json:"notification"`
	Target       ids.ID `json:"target"`
}

// replayResult says why letters were not replayed.
type replayResult struct {
	Skipped map[string]int `json:"skipped,omitempty"`
	Failed  map[string]int `json:"failed,omitempty"`
}

// The reasons in a replayResult.
const (
	skipErased     = "content_erased"
	skipNotDead    = "not_dead"
	failUnreadable = "content_unreadable"
)

// replayer replays many dead letters, by a job.
type replayer struct {
	*env
	store    ReplayStore
	contents ContentStore
	tenants  *tenantCache
	backlog  *backlog
	hints    *hints
}

// create makes the job that replays what has died until now.
func (x *replayer) create(ctx context.Context, o ReplayOrder) (Answer, error) {
	if x.stopped.Load() {
		return Answer{}, errStopping()
	}
	if err := o.Check(); err != nil {
		return Answer{}, err
	}
	spec, err := json.Marshal(replaySpec{Filter: o.Filter, PerSecond: o.PerSecond})
	if err != nil {
		return Answer{}, fmt.Errorf("encode the spec of a job: %w", err)
	}
	id := x.ids.Next()
	now := x.now()
	j := jobs.Job{ID: id, Tenant: o.Tenant, Kind: jobs.ReplayDeadLetters, State: jobs.Queued, Spec: spec, Actor: o.Actor,
		CreatedAt: now, UpdatedAt: now, LeaseUntil: now}
	n, exact, err := x.countDead(ctx, o.Tenant, o.Filter, now)
	if err != nil {
		return Answer{}, err
	}
	if exact {
		j.Total = n
	}
	a := Answer{}
	if a.Status, a.Body, err = o.Render(j); err != nil {
		return Answer{}, fmt.Errorf("render the answer: %w", err)
	}
	stored, err := x.store.CreateReplay(ctx, j, o.Idempotency, a, now.Add(idempotencyAge))
	if err != nil {
		return Answer{}, err
	}
	if stored != nil {
		return *stored, nil
	}
	x.hints.wakeJobs()
	return a, nil
}

// count counts what create would replay now. exact is false when counting took too
// long: there are at least so many.
func (x *replayer) count(ctx context.Context, o ReplayOrder) (n int, exact bool, err error) {
	if err := o.Check(); err != nil {
		return 0, false, err
	}
	return x.countDead(ctx, o.Tenant, o.Filter, x.now())
}

func (x *replayer) countDead(ctx context.Context, tenant ids.ID, f DeadFilter, now time.Time) (n int, exact bool, err error) {
	walk := DeadWalk{Filter: f, Before: now, Look: deadWindow, Want: deadWindow}
	for over := time.Now().Add(countTime); ; { // not the engine's clock: it bounds work
		page, err := x.store.WalkDead(ctx, tenant, walk)
		if err != nil {
			return 0, false, err
		}
		n += len(page.Letters)
		if page.End || time.Now().After(over) {
			return n, page.End, nil
		}
		walk.After = page.Next
	}
}

// step is the jobs.Step of jobs.ReplayDeadLetters. Its pace is kept by the
// job's row: however often a node dies, no more than per_second leave in a second.
func (x *replayer) step(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	var (
		spec   replaySpec
		place  replayCursor
		result replayResult
	)
	if err := errors.Join(readJSON(j.Spec, &spec), readJSON(j.Cursor, &place), readJSON(j.Result, &result)); err != nil || spec.PerSecond < 1 {
		return jobs.Progress{}, jobs.Permanent(problem.New(problem.Invalid, "The job cannot be read; make a new one."))
	}
	now := x.now()
	room := x.backlog.room()
	if room <= 0 {
		return x.store.ReplayDead(ctx, j, nil, func(ReplayCounts) jobs.Progress {
			return jobs.Progress{NotBefore: now.Add(replayHeadroom)}
		})
	}
	walk := DeadWalk{Filter: spec.Filter, Before: j.CreatedAt, Look: deadWindow, Want: min(spec.PerSecond, replayStep, room)}
	if place != (replayCursor{}) {
		walk.After = Cursor{At: time.UnixMilli(place.At), Notification: place.Notification, Target: place.Target}
	}
	page, err := x.store.WalkDead(ctx, j.Tenant, walk)
	if err != nil {
		return jobs.Progress{}, err
	}
	letters, erased, unreadable, err := x.revive(ctx, j.Tenant, page.Letters, now)
	if err != nil {
		return jobs.Progress{}, err
	}
	replayed := 0
	p, err := x.store.ReplayDead(ctx, j, letters, func(c ReplayCounts) jobs.Progress {
		c.Erased += erased
		replayed = c.Replayed
		p := jobs.Progress{Done: c.Replayed, Skipped: c.Erased + c.NotDead, Failed: unreadable, End: page.End,
			Cursor: mustJSON(replayCursor{At: page.Next.At.UnixMilli(), Notification: page.Next.Notification, Target: page.Next.Target}),
			Result: mustJSON(replayResult{Skipped: added(result.Skipped, map[string]int{skipErased: c.Erased, skipNotDead: c.NotDead}),
				Failed: added(result.Failed, map[string]int{failUnreadable: unreadable})})}
		if c.Replayed > 0 {
			p.NotBefore = now.Add(time.Duration(c.Replayed) * time.Second / time.Duration(spec.PerSecond))
		}
		return p
	})
	if err == nil && replayed > 0 {
		x.backlog.add(replayed)
		x.hints.due()
	}
	return p, err
}

// revive finds the new deadline of each letter: that of its content, from now on.
func (x *replayer) revive(ctx context.Context, tenant ids.ID, found []DeadLetter, now time.Time) (letters []Replayed, erased, unreadable int, err error) {
	if len(found) == 0 {
		return nil, 0, 0, nil
	}
	s, err := x.tenants.get(ctx, tenant)
	if problem.CodeOf(err) == problem.NotFound {
		err = jobs.Permanent(problem.New(problem.NotFound, "The tenant does not exist any more."))
	}
	if err != nil {
		return nil, 0, 0, err
	}
	type content struct {
		request Request
		fault   *int // which count it belongs to; nil: it is there
	}
	known := map[ids.ID]content{}
	letters = make([]Replayed, 0, len(found))
	for _, d := range found {
		c, there := known[d.Notification]
		if !there {
			body, err := x.contents.Content(ctx, tenant, d.Notification)
			switch {
			case problem.CodeOf(err) == problem.NotFound:
				c.fault = &erased
			case err != nil:
				return nil, 0, 0, err
			case json.Unmarshal(body, &c.request) != nil:
				c.fault = &unreadable
			}
			known[d.Notification] = c
		}
		if c.fault != nil {
			*c.fault++
			continue
		}
		letters = append(letters, Replayed{DeadLetter: d, ExpiresAt: now.Add(life(ttlOf(d.Channel, c.request.TTL, s.settings)))})
	}
	return letters, erased, unreadable, nil
}

// readJSON reads what may be absent.
func readJSON(raw json.RawMessage, into any) error {
	if raw == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

// mustJSON writes what cannot fail: numbers, texts and maps of them.
func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

// added puts counts together; what is 0 stays out.
func added(was, more map[string]int) map[string]int {
	out := map[string]int{}
	for _, m := range []map[string]int{was, more} {
		for reason, n := range m {
			if n > 0 {
				out[reason] += n
			}
		}
	}
	return out
}
