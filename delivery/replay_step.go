package delivery

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
)

const (
	replayStep     = 500              // letters in one step: each may change two rows
	replayHeadroom = 10 * time.Second // pause where too much waits to be sent already
)

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
	skipNewer      = "superseded"
	failUnreadable = "content_unreadable"
)

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
	room := x.backlog.room(j.Tenant)
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
		p := jobs.Progress{Done: c.Replayed, Skipped: c.Erased + c.NotDead + c.Newer, Failed: unreadable, End: page.End,
			Cursor: mustJSON(replayCursor{At: page.Next.At.UnixMilli(), Notification: page.Next.Notification, Target: page.Next.Target}),
			Result: mustJSON(replayResult{Skipped: added(result.Skipped, map[string]int{skipErased: c.Erased, skipNotDead: c.NotDead, skipNewer: c.Newer}),
				Failed: added(result.Failed, map[string]int{failUnreadable: unreadable})})}
		if c.Replayed > 0 {
			p.NotBefore = now.Add(time.Duration(c.Replayed) * time.Second / time.Duration(spec.PerSecond))
		}
		return p
	})
	if err == nil && replayed > 0 {
		x.backlog.add(j.Tenant, Unfinished{Due: replayed, Stored: replayed})
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
