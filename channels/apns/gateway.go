package apns

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

const (
	// maxStreams is how many requests share a connection. APNs allows 1,000;
	// the rest is room for streams whose answer is read but which are not
	// forgotten yet.
	maxStreams = 900
	// growAt is how busy every connection must be before another one is opened.
	growAt = 200
)

// errClosed says that the sender was closed.
var errClosed = errors.New("apns: the sender is closed")

// gateway keeps the connections of one credential version to one APNs host.
//
// APNs allows a single stream on a connection until it has accepted a token on
// it, so the first request on a new connection goes alone and the others wait
// for it, never longer than their contexts. At most one connection is being
// opened or tried in this way at any time: a cold start with a thousand sends
// opens one, and more follow, up to conns, only while all are busy.
type gateway struct {
	dial  func(context.Context) (*http2.ClientConn, error)
	conns int

	mu     sync.Mutex
	lines  []*line
	queue  []*waiter // oldest first
	closed bool
}

// line is one connection, from the decision to open it on.
type line struct {
	conn     *http2.ClientConn // guarded by gateway.mu; nil until dialled
	inflight int               // guarded by gateway.mu
	retired  bool              // guarded by gateway.mu; closed when nothing is in flight
	// limit is how many requests may share the connection: 0 until a token was
	// accepted on it, which lets one at a time through.
	limit atomic.Int32
}

// waiter is a request without a place. ready is closed when one of the other
// two is set.
type waiter struct {
	ready chan struct{}
	line  *line
	err   error
}

// acquire gives a place on a connection, dialling it if need be. It ends with
// the context. Every place must be given back by release.
func (g *gateway) acquire(ctx context.Context) (*line, error) {
	for {
		l, err := g.admit(ctx)
		if err != nil {
			return nil, err
		}
		if err := g.connect(ctx, l); err != nil {
			return nil, err
		}
		open, err := l.reserve(ctx)
		if open {
			return l, nil
		}
		if err == nil {
			g.retire(l)
		}
		g.leave(l)
		if err != nil {
			return nil, err
		}
	}
}

// admit waits for a place in order of arrival.
func (g *gateway) admit(ctx context.Context) (*line, error) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil, errClosed
	}
	if len(g.queue) == 0 {
		if l := g.pick(); l != nil {
			g.mu.Unlock()
			return l, nil
		}
	}
	w := &waiter{ready: make(chan struct{})}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	select {
	case <-w.ready:
		return w.line, w.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	if i := slices.Index(g.queue, w); i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
	g.mu.Unlock()
	if w.line != nil {
		g.leave(w.line) // it came too late; somebody else may use it
	}
	return nil, ctx.Err()
}

// pick takes a place on the least busy connection that has been tried, on a new
// one if all of those are busy, or alone on one that is still to be tried.
func (g *gateway) pick() *line {
	var best, cold *line
	for _, l := range g.lines {
		limit := int(l.limit.Load())
		switch {
		case limit == 0:
			cold = l
		case l.inflight < limit && (best == nil || l.inflight < best.inflight):
			best = l
		}
	}
	switch busy := best == nil || best.inflight >= growAt; {
	case busy && cold == nil && len(g.lines) < g.conns:
		best = &line{}
		g.lines = append(g.lines, best)
	case busy && cold != nil && cold.inflight == 0:
		best = cold
	case best == nil:
		return nil
	}
	best.inflight++
	return best
}

// dispatch hands free places to those who wait.
func (g *gateway) dispatch() {
	for len(g.queue) > 0 {
		l := g.pick()
		if l == nil {
			return
		}
		g.queue[0].line = l
		close(g.queue[0].ready)
		g.queue = g.queue[1:]
	}
}

// connect dials if the line has no connection yet. A failure is shared with all
// who wait for the only line; if merely this context ended, the next one tries.
func (g *gateway) connect(ctx context.Context, l *line) error {
	g.mu.Lock()
	conn := l.conn
	g.mu.Unlock()
	if conn != nil {
		return nil
	}
	conn, err := g.dial(ctx)
	g.mu.Lock()
	if err == nil && g.closed {
		err = errClosed
	}
	if err == nil {
		l.conn = conn
		g.mu.Unlock()
		return nil
	}
	g.lines = slices.DeleteFunc(g.lines, func(o *line) bool { return o == l })
	if ctx.Err() == nil && len(g.lines) == 0 {
		g.fail(err)
	}
	g.dispatch()
	g.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
	return err
}

func (g *gateway) fail(err error) {
	for _, w := range g.queue {
		w.err = err
		close(w.ready)
	}
	g.queue = nil
}

// reserve takes a stream. False without an error: the connection is ending. A
// full one is asked again, because a stream ends a moment after its answer.
func (l *line) reserve(ctx context.Context) (bool, error) {
	for wait := 100 * time.Microsecond; !l.conn.ReserveNewRequest(); wait = min(2*wait, 5*time.Millisecond) {
		if s := l.conn.State(); s.Closed || s.Closing {
			return false, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return true, nil
}

// Do makes a line fit egress.Exchange.
func (l *line) Do(r *http.Request) (*http.Response, error) { return l.conn.RoundTrip(r) }

// release gives a place back. status is the answer's, 0 for none: any answer
// but 401 and 403 means that APNs has accepted the token on this connection.
func (g *gateway) release(l *line, status int) {
	limit := l.limit.Load()
	if status != http.StatusOK || limit < growAt { // else nothing new is to be learnt
		s := l.conn.State()
		switch {
		case s.Closed, s.Closing, limit == 0 && status == 0:
			g.retire(l)
		case limit > 0, status != http.StatusForbidden && status != http.StatusUnauthorized:
			l.limit.Store(int32(min(max(s.MaxConcurrentStreams, 1), maxStreams)))
		}
	}
	g.leave(l)
}

// leave ends a place without a lesson about the connection.
func (g *gateway) leave(l *line) {
	g.mu.Lock()
	l.inflight--
	g.dispatch()
	last := l.retired && l.inflight == 0 && l.conn != nil
	g.mu.Unlock()
	if last {
		_ = l.conn.Close()
	}
}

// retire takes a connection out of use; it is closed when the requests on it
// have ended.
func (g *gateway) retire(l *line) {
	g.mu.Lock()
	first := !l.retired
	l.retired = true
	g.lines = slices.DeleteFunc(g.lines, func(o *line) bool { return o == l })
	g.dispatch()
	unused := first && l.inflight == 0 && l.conn != nil
	g.mu.Unlock()
	if unused {
		_ = l.conn.Close()
	}
}

// close refuses new requests and retires every connection.
func (g *gateway) close() {
	g.mu.Lock()
	g.closed = true
	g.fail(errClosed)
	lines := slices.Clone(g.lines)
	g.mu.Unlock()
	for _, l := range lines {
		g.retire(l)
	}
}
