package apns

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// maxEnding is how many connections one request tries that APNs ends before they
	// have served it. There may be maxConns old ones and their successors.
	maxEnding = 8
)

// errEnding says that APNs ends every connection at once.
var errEnding = fmt.Errorf("apns: the host ends every connection: %w", io.EOF)

// errClosed says that the sender was closed.
var errClosed = errors.New("apns: the sender is closed")

// gateway keeps the connections of one credential version to one APNs host.
//
// APNs allows a single stream on a connection until it has accepted a token on
// it, so the first request on a new connection goes alone and the others wait
// for it, never longer than their contexts. At most one connection is being
// opened or tried in this way at any time: a cold start with a thousand sends
// opens one, and more follow, up to maxConns, only while all are busy.
type gateway struct {
	dial     func(context.Context) (*http2.ClientConn, error)
	maxConns int

	mu          sync.Mutex
	connections []*connection
	queue       []*waiter // oldest first
	closed      bool
}

// connection is one of them, from the decision to open it on.
type connection struct {
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
	conn  *connection
	err   error
}

// acquire gives a place on a connection, dialling it if need be. It ends with
// the context, or when so many connections in a row were ending already. Every place
// must be given back by release.
func (g *gateway) acquire(ctx context.Context) (*connection, error) {
	for range maxEnding {
		c, err := g.admit(ctx)
		if err != nil {
			return nil, err
		}
		if err := g.connect(ctx, c); err != nil {
			return nil, err
		}
		open, err := c.reserve(ctx)
		if open {
			return c, nil
		}
		if err == nil {
			g.retire(c)
		}
		g.leave(c)
		if err != nil {
			return nil, err
		}
	}
	return nil, errEnding
}

// admit waits for a place in order of arrival.
func (g *gateway) admit(ctx context.Context) (*connection, error) {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return nil, errClosed
	}
	if len(g.queue) == 0 {
		if c := g.pick(); c != nil {
			g.mu.Unlock()
			return c, nil
		}
	}
	w := &waiter{ready: make(chan struct{})}
	g.queue = append(g.queue, w)
	g.mu.Unlock()
	select {
	case <-w.ready:
		return w.conn, w.err
	case <-ctx.Done():
	}
	g.mu.Lock()
	if i := slices.Index(g.queue, w); i >= 0 {
		g.queue = slices.Delete(g.queue, i, i+1)
	}
	g.mu.Unlock()
	if w.conn != nil {
		g.leave(w.conn) // it came too late; somebody else may use it
	}
	return nil, ctx.Err()
}

// pick takes a place on the least busy connection that has been tried, on a new
// one if all of those are busy, or alone on one that is still to be tried.
func (g *gateway) pick() *connection {
	var best, cold *connection
	for _, c := range g.connections {
		limit := int(c.limit.Load())
		switch {
		case limit == 0:
			cold = c
		case c.inflight < limit && (best == nil || c.inflight < best.inflight):
			best = c
		}
	}
	switch busy := best == nil || best.inflight >= growAt; {
	case busy && cold == nil && len(g.connections) < g.maxConns:
		best = &connection{}
		g.connections = append(g.connections, best)
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
		c := g.pick()
		if c == nil {
			return
		}
		g.queue[0].conn = c
		close(g.queue[0].ready)
		g.queue = g.queue[1:]
	}
}

// connect dials if there is no connection yet. A failure is shared with all
// who wait for the only one; if merely this context ended, the next one tries.
func (g *gateway) connect(ctx context.Context, c *connection) error {
	g.mu.Lock()
	conn := c.conn
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
		c.conn = conn
		g.mu.Unlock()
		return nil
	}
	g.connections = slices.DeleteFunc(g.connections, func(o *connection) bool { return o == c })
	if ctx.Err() == nil && len(g.connections) == 0 {
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
func (c *connection) reserve(ctx context.Context) (bool, error) {
	for wait := 100 * time.Microsecond; !c.conn.ReserveNewRequest(); wait = min(2*wait, 5*time.Millisecond) {
		if s := c.conn.State(); s.Closed || s.Closing {
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

// Do makes a connection fit egress.Exchange.
func (c *connection) Do(r *http.Request) (*http.Response, error) { return c.conn.RoundTrip(r) }

// Cut closes the connection, with all that is under way on it.
func (c *connection) Cut() { _ = c.conn.Close() }

// release gives a place back. status is the answer's, 0 for none: any answer
// but 401 and 403 means that APNs has accepted the token on this connection.
func (g *gateway) release(c *connection, status int) {
	limit := c.limit.Load()
	if status != http.StatusOK || limit < growAt { // else nothing new is to be learnt
		s := c.conn.State()
		switch {
		case s.Closed, s.Closing, limit == 0 && status == 0:
			g.retire(c)
		case limit > 0, status != http.StatusForbidden && status != http.StatusUnauthorized:
			c.limit.Store(int32(min(max(s.MaxConcurrentStreams, 1), maxStreams)))
		}
	}
	g.leave(c)
}

// leave ends a place without a lesson about the connection.
func (g *gateway) leave(c *connection) {
	g.mu.Lock()
	c.inflight--
	g.dispatch()
	last := c.retired && c.inflight == 0 && c.conn != nil
	g.mu.Unlock()
	if last {
		_ = c.conn.Close()
	}
}

// retire takes a connection out of use; it is closed when the requests on it
// have ended.
func (g *gateway) retire(c *connection) {
	g.mu.Lock()
	first := !c.retired
	c.retired = true
	g.connections = slices.DeleteFunc(g.connections, func(o *connection) bool { return o == c })
	g.dispatch()
	unused := first && c.inflight == 0 && c.conn != nil
	g.mu.Unlock()
	if unused {
		_ = c.conn.Close()
	}
}

// close refuses new requests and retires every connection.
func (g *gateway) close() {
	g.mu.Lock()
	g.closed = true
	g.fail(errClosed)
	connections := slices.Clone(g.connections)
	g.mu.Unlock()
	for _, c := range connections {
		g.retire(c)
	}
}
