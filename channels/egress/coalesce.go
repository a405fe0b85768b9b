package egress

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

const (
	queueBytes   = 256 << 10              // more waiting than this blocks Write
	writeTimeout = 15 * time.Second       // one write to the network
	closeTimeout = 250 * time.Millisecond // for what is queued when Close is called
)

// Coalesce wraps a net.Conn so that many small writes become few. HTTP/2 writes
// each request's headers and body on their own, each one a TLS record and a
// system call; here Write only queues, and one goroutine writes whatever has
// piled up while it was busy. When idle it adds no delay beyond waking it.
//
// Write copies p, blocks while more than 256 KiB wait, and reports a failed
// write one call late; the connection is closed when a write fails, so a reader
// learns at once. A write to the network may take 15 s; write deadlines set by
// the caller do not count. Close sends what is queued, within 250 ms, and ends
// the goroutine.
func Coalesce(c net.Conn) net.Conn {
	q := &coalesced{Conn: c, done: make(chan struct{})}
	q.changed.L = &q.mu
	go q.flush()
	if t, ok := c.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return &coalescedTLS{coalesced: q, state: t.ConnectionState}
	}
	return q
}

// coalescedTLS lets HTTP/2 see the TLS state of what was wrapped.
type coalescedTLS struct {
	*coalesced
	state func() tls.ConnectionState
}

func (c *coalescedTLS) ConnectionState() tls.ConnectionState { return c.state() }

type coalesced struct {
	net.Conn
	done chan struct{} // closed when flush has ended

	mu      sync.Mutex
	changed sync.Cond // queue, err or closed
	queue   []byte
	err     error
	closed  bool
}

func (c *coalesced) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.queue) >= queueBytes && c.err == nil && !c.closed {
		c.changed.Wait()
	}
	switch {
	case c.err != nil:
		return 0, c.err
	case c.closed:
		return 0, net.ErrClosed
	}
	if len(c.queue) == 0 {
		c.changed.Broadcast()
	}
	c.queue = append(c.queue, p...)
	return len(p), nil
}

// flush writes what is queued until the connection fails or is closed and empty.
func (c *coalesced) flush() {
	defer close(c.done)
	var batch []byte
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.closed {
			c.changed.Wait()
		}
		if len(c.queue) == 0 {
			c.mu.Unlock()
			return
		}
		batch, c.queue = c.queue, batch[:0]
		c.changed.Broadcast() // there is room again
		if !c.closed {
			_ = c.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
		}
		c.mu.Unlock()
		if _, err := c.Conn.Write(batch); err != nil {
			c.fail(err)
			return
		}
	}
}

// fail ends the connection after a failed write.
func (c *coalesced) fail(err error) {
	c.mu.Lock()
	c.err = err
	c.queue = nil
	c.changed.Broadcast()
	c.mu.Unlock()
	cut(c.Conn)
}

// NetConn is the connection below TLS, for whoever wants to close it at once.
func (c *coalesced) NetConn() net.Conn { return below(c.Conn) }

// Close sends what is queued and closes the connection.
func (c *coalesced) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		_ = c.Conn.SetWriteDeadline(time.Now().Add(closeTimeout))
		c.changed.Broadcast()
	}
	c.mu.Unlock()
	<-c.done
	return c.Conn.Close()
}

// SetDeadline sets the read deadline; writes have their own.
func (c *coalesced) SetDeadline(t time.Time) error { return c.Conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writes have their own deadline.
func (c *coalesced) SetWriteDeadline(time.Time) error { return nil }
