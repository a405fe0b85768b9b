package delivery

import (
	"time"

	"github.com/carillonhq/carillon/problem"
)

// HealthStore tells whether the database does its work.
type HealthStore interface {
	LivenessStore
	// WriteBeat is when something was last written, and how much waits.
	WriteBeat() (last time.Time, waiting int)
	// TakesWrites is false from the first write that the database has failed until none
	// has for a while.
	TakesWrites() bool
}

// stillAfter is how long a loop may be silent before the node is not ready.
const stillAfter = 30 * time.Second

// Ready tells whether this node does its work: nil, or which loop stands still.
// An old backlog is no reason: other nodes would not be faster. Nor are sends that do
// not end, until they leave no worker for others.
func (e *Engine) Ready() error {
	if e.stopped.Load() {
		return errStopping()
	}
	now := e.now()
	if !e.health.Alive() {
		return problem.New(problem.Unavailable, "The database has not been reached for some seconds; see the log.")
	}
	if silent := now.Sub(e.ClaimBeat()); e.sends && silent > stillAfter {
		return problem.New(problem.Unavailable, "The claim loop stands still for %s.", silent.Truncate(time.Second))
	}
	if n := e.Overdue(); n > 0 && n >= e.dispatch.queue.slots(Regular) {
		return problem.New(problem.Unavailable, "%d sends do not end and keep all workers; see the log, and restart this server.", n)
	}
	if !e.health.TakesWrites() {
		return problem.New(problem.Unavailable, "The database takes no writes; see the log.")
	}
	if last, waiting := e.health.WriteBeat(); waiting > 0 && now.Sub(last) > stillAfter {
		return problem.New(problem.Unavailable, "Nothing has been written for %s, and writes wait.", now.Sub(last).Truncate(time.Second))
	}
	return nil
}

// ClaimBeat is when the claim loop last came round.
func (e *Engine) ClaimBeat() time.Time { return e.claimer.lastBeat() }
