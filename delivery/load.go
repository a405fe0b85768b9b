package delivery

import (
	"time"

	"github.com/carillonhq/carillon/ids"
)

// Load is what the workers of this node have to do in a lane.
type Load struct {
	Busy    int           // workers with a delivery of the lane
	Limit   int           // so many may be busy, with whatever lane, for one of this lane to begin
	Queued  int           // deliveries in this node's hands whose attempt has not begun
	Longest time.Duration // how long the oldest of these has been in its hands
}

// workload tells how busy the workers are.
type workload struct {
	*env
	dispatch *dispatcher
}

// Load tells, by lane, how busy the workers are. That all of them hang, each within its
// time-out, shows in nothing else: what waits behind them is leased, not due.
func (w *workload) Load() [LanesCount]Load {
	w.dispatch.mu.Lock()
	defer w.dispatch.mu.Unlock()
	return w.dispatch.queue.load(w.now())
}

// load looks at the first of every flow, which has waited longest. A claim is an id,
// which begins with the time.
func (q *fairQueue) load(now time.Time) (out [LanesCount]Load) {
	for l := range Lane(LanesCount) {
		out[l] = Load{Busy: q.sending[l], Limit: q.slots(l), Queued: q.queued[l]}
	}
	for _, f := range q.flows {
		for l, waiting := range f.queues {
			if len(waiting) > 0 {
				out[l].Longest = max(out[l].Longest, now.Sub(ids.ID(waiting[0].Claim).Time()))
			}
		}
	}
	return out
}
