package db

import (
	"context"
	"sync/atomic"
	"time"
)

// serverClock tells the database's time without asking for it each time. It goes
// on by the machine's monotonic clock, so that nothing becomes due, or expires,
// because somebody sets the machine's time.
type serverClock struct {
	machine func() time.Time
	newest  atomic.Pointer[reading]
}

// reading is one moment by both clocks.
type reading struct {
	here, there time.Time
	trip        time.Duration // how long the question took that told so
}

func (c *serverClock) now() time.Time {
	r := c.newest.Load()
	if r == nil {
		return c.machine()
	}
	return r.there.Add(c.machine().Sub(r.here))
}

// staleClock is how long a quick answer is worth more than a slow, newer one.
const staleClock = 30 * time.Second

// set asks for the time. The answer is off by at most half of what the question took.
func (c *serverClock) set(ctx context.Context, q Queryer) error {
	var micros int64
	sent := c.machine()
	if err := q.QueryRowContext(ctx, "SELECT (extract(epoch FROM clock_timestamp())*1000000)::bigint").Scan(&micros); err != nil {
		return err
	}
	c.heard(sent, c.machine(), time.UnixMicro(micros))
	return nil
}

func (c *serverClock) heard(sent, came, says time.Time) {
	x := &reading{there: says, trip: came.Sub(sent)}
	x.here = sent.Add(x.trip / 2)
	if best := c.newest.Load(); best != nil && came.Sub(best.here) <= staleClock && x.trip > 2*best.trip+time.Millisecond {
		return
	}
	c.newest.Store(x)
}
