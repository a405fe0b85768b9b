package delivery

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// overdueAfter is how much longer than its time-out a send may take before it is said
// that it does not end. Channels end theirs within a second or two.
const overdueAfter = 10 * time.Second

// overdueSends looks for sends that do not end although their time is over, which no
// channel should let happen. Each keeps a worker until the process ends.
type overdueSends struct {
	*env
	inflight *inflightSet
	metrics  *metrics
	within   time.Duration // of a send
	every    time.Duration
	count    atomic.Int64 // at the last look
}

// Overdue is how many sends of this node do not end: a few seconds old.
func (x *overdueSends) Overdue() int { return int(x.count.Load()) }

func (x *overdueSends) run() {
	for x.wait(nil, x.every) {
		x.look()
	}
}

// look counts them, and logs each once.
func (x *overdueSends) look() {
	now := x.now()
	all, fresh := x.inflight.overdue(now.Add(-x.within - overdueAfter))
	x.count.Store(int64(all))
	x.metrics.overdue.Set(float64(all))
	for _, it := range fresh {
		x.log.Error("a send does not end, and keeps a worker until this server ends: a fault of the program",
			slog.Attr{Key: "tenant", Value: x.who(it.Tenant)}, slog.String("delivery", it.String()),
			slog.String("channel", it.Channel.String()), slog.Time("since", it.sendBegan()))
	}
}
