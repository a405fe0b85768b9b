package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
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

// DeadFilter selects dead letters. Zero members select everything.
type DeadFilter struct {
	Reason       Reason
	Channel      channels.Kind
	App          string
	User         string
	Endpoint     ids.ID
	Notification ids.ID
	Type         string    // of the notification, in full
	Since, Until time.Time // when they died: Since and later, before Until
}

// filterJSON is a DeadFilter in the spec of a job, as people read it.
type filterJSON struct {
	Reason       string    `json:"reason,omitempty"`
	Channel      string    `json:"channel,omitempty"`
	App          string    `json:"app,omitempty"`
	User         string    `json:"user,omitempty"`
	Endpoint     string    `json:"endpoint,omitempty"`
	Notification string    `json:"notification,omitempty"`
	Type         string    `json:"type,omitempty"`
	Since        time.Time `json:"since,omitzero"`
	Until        time.Time `json:"until,omitzero"`
}

// MarshalJSON writes names and ids as people know them.
func (f DeadFilter) MarshalJSON() ([]byte, error) {
	out := filterJSON{Reason: f.Reason.String(), App: f.App, User: f.User, Type: f.Type, Since: f.Since, Until: f.Until}
	if f.Channel != 0 {
		out.Channel = f.Channel.String()
	}
	if f.Endpoint != 0 {
		out.Endpoint = f.Endpoint.Format(ids.Endpoint)
	}
	if f.Notification != 0 {
		out.Notification = f.Notification.Format(ids.Notification)
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote. What it does not know is an error:
// a filter that is understood in part selects too much.
func (f *DeadFilter) UnmarshalJSON(b []byte) error {
	var in filterJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	out := DeadFilter{App: in.App, User: in.User, Type: in.Type, Since: in.Since, Until: in.Until}
	var known, fine bool
	if out.Reason, known = ParseReason(in.Reason); !known && in.Reason != "" {
		return fmt.Errorf("unknown reason %q", in.Reason)
	}
	if out.Channel, fine = channels.ParseKind(in.Channel); !fine && in.Channel != "" {
		return fmt.Errorf("unknown channel %q", in.Channel)
	}
	for _, x := range []struct {
		prefix, text string
		into         *ids.ID
	}{{ids.Endpoint, in.Endpoint, &out.Endpoint}, {ids.Notification, in.Notification, &out.Notification}} {
		if x.text == "" {
			continue
		}
		id, err := ids.Parse(x.prefix, x.text)
		if err != nil {
			return err
		}
		*x.into = id
	}
	*f = out
	return nil
}

// check finds what is wrong with a filter.
func (f DeadFilter) check(faults *problem.Fields) {
	if f == (DeadFilter{}) {
		faults.Add("filter", "must have at least one member; to select all that died until now, give until")
	}
	if f.Reason != NoReason && !f.Reason.ofDead() {
		faults.Add("filter.reason", "is not a reason of a dead letter; use rejected, exhausted, expired, ambiguous, crashed, mapping or stale")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && !f.Since.Before(f.Until) {
		faults.Add("filter.until", "must be after since")
	}
}

// ofDead tells whether dead letters have this reason.
func (r Reason) ofDead() bool { return r >= Rejected || r == Expired }

// DeadLetter is a dead letter that a walk has found.
type DeadLetter struct {
	Notification, Target ids.ID
	Channel              channels.Kind
	DiedAt               time.Time
}

// Cursor is its place: the earliest death first.
func (d DeadLetter) Cursor() Cursor {
	return Cursor{At: d.DiedAt, Notification: d.Notification, Target: d.Target}
}

// DeadWalk asks for dead letters in the order in which they died.
type DeadWalk struct {
	Filter DeadFilter
	After  Cursor    // zero: from the start
	Before time.Time // died before
	Look   int       // how many to look at, at most
	Want   int       // how many to find, at most
}

// DeadPage is what a walk has found.
type DeadPage struct {
	Letters []DeadLetter
	Next    Cursor // where to go on; After where there was nothing to look at
	End     bool   // there are no more
}

// Replayed is a dead letter that a step replays, with its new deadline.
type Replayed struct {
	DeadLetter
	ExpiresAt time.Time
}

// ReplayCounts is what became of the letters of a step.
type ReplayCounts struct {
	Replayed int
	NotDead  int // replayed by somebody else meanwhile, or purged
	Erased   int // their content is gone
}

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

// ReplayAll makes the job that replays what has died until now. What dies later,
// a second time as well, is not in it.
func (e *Engine) ReplayAll(ctx context.Context, o ReplayOrder) (Answer, error) {
	if e.stopping.Load() {
		return Answer{}, problem.New(problem.Unavailable, "The server is stopping.")
	}
	if err := o.Check(); err != nil {
		return Answer{}, err
	}
	spec, err := json.Marshal(replaySpec{Filter: o.Filter, PerSecond: o.PerSecond})
	if err != nil {
		return Answer{}, fmt.Errorf("encode the spec of a job: %w", err)
	}
	id := e.o.IDs.Next()
	now := e.o.Now()
	j := jobs.Job{ID: id, Tenant: o.Tenant, Kind: jobs.ReplayDeadLetters, State: jobs.Queued, Spec: spec, Actor: o.Actor,
		CreatedAt: now, UpdatedAt: now, LeaseUntil: now}
	n, exact, err := e.countDead(ctx, o.Tenant, o.Filter, now)
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
	stored, err := e.o.Store.CreateReplay(ctx, j, o.Idempotency, a, now.Add(idempotencyAge))
	if err != nil {
		return Answer{}, err
	}
	if stored != nil {
		return *stored, nil
	}
	if e.o.Jobs != nil {
		e.o.Jobs.Wake()
	}
	return a, nil
}

// CountDead counts what ReplayAll would replay now. exact is false when counting
// took too long: there are at least so many.
func (e *Engine) CountDead(ctx context.Context, o ReplayOrder) (n int, exact bool, err error) {
	if err := o.Check(); err != nil {
		return 0, false, err
	}
	return e.countDead(ctx, o.Tenant, o.Filter, e.o.Now())
}

func (e *Engine) countDead(ctx context.Context, tenant ids.ID, f DeadFilter, now time.Time) (n int, exact bool, err error) {
	walk := DeadWalk{Filter: f, Before: now, Look: deadWindow, Want: deadWindow}
	for over := time.Now().Add(countTime); ; { // not the engine's clock: it bounds work
		page, err := e.o.Store.WalkDead(ctx, tenant, walk)
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

// replayStep is the jobs.Step of jobs.ReplayDeadLetters. Its pace is kept by the
// job's row: however often a node dies, no more than per_second leave in a second.
func (e *Engine) replayStep(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	var (
		spec   replaySpec
		place  replayCursor
		result replayResult
	)
	if err := errors.Join(readJSON(j.Spec, &spec), readJSON(j.Cursor, &place), readJSON(j.Result, &result)); err != nil || spec.PerSecond < 1 {
		return jobs.Progress{}, jobs.Permanent(problem.New(problem.Invalid, "The job cannot be read; make a new one."))
	}
	now := e.o.Now()
	room := e.o.MaxBacklog - int(e.backlog.Load())
	if room <= 0 {
		return e.o.Store.ReplayDead(ctx, j, nil, func(ReplayCounts) jobs.Progress {
			return jobs.Progress{NotBefore: now.Add(replayHeadroom)}
		})
	}
	walk := DeadWalk{Filter: spec.Filter, Before: j.CreatedAt, Look: deadWindow, Want: min(spec.PerSecond, replayStep, room)}
	if place != (replayCursor{}) {
		walk.After = Cursor{At: time.UnixMilli(place.At), Notification: place.Notification, Target: place.Target}
	}
	page, err := e.o.Store.WalkDead(ctx, j.Tenant, walk)
	if err != nil {
		return jobs.Progress{}, err
	}
	letters, erased, unreadable, err := e.revive(ctx, j.Tenant, page.Letters, now)
	if err != nil {
		return jobs.Progress{}, err
	}
	replayed := 0
	p, err := e.o.Store.ReplayDead(ctx, j, letters, func(c ReplayCounts) jobs.Progress {
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
		e.backlog.Add(int64(replayed))
		e.due()
	}
	return p, err
}

// revive finds the new deadline of each letter: that of its content, from now on.
func (e *Engine) revive(ctx context.Context, tenant ids.ID, found []DeadLetter, now time.Time) (letters []Replayed, erased, unreadable int, err error) {
	if len(found) == 0 {
		return nil, 0, 0, nil
	}
	pic, err := e.directory.of(ctx, tenant)
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
			body, err := e.o.Store.Content(ctx, tenant, d.Notification)
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
		letters = append(letters, Replayed{DeadLetter: d, ExpiresAt: now.Add(life(ttlOf(d.Channel, c.request.TTL, pic.settings)))})
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
