package egress

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
)

// assumedStreams is how many streams a host is taken to allow before its
// SETTINGS frame says so; it is also what x/net assumes.
const assumedStreams = 100

// recheck bounds how long a waiting request overlooks a slot that became free
// without a body being closed (a cancelled stream that the host acknowledged).
const recheck = 50 * time.Millisecond

// pool bounds the number of HTTP/2 connections per host, which the pool of x/net
// does not: that one dials whenever every connection is full. (Its
// StrictMaxConcurrentStreams can deadlock, golang/go#70809.) A second
// connection is opened when the first has half of its streams in use.
type pool struct {
	max     int
	dial    func(ctx context.Context, addr string) (*http2.ClientConn, error)
	waiting atomic.Int64 // requests without a slot, over all hosts

	mu    sync.Mutex
	hosts map[string]*host
	life  context.Context // ends the dials under way at closeAll
	end   context.CancelFunc
}

type host struct {
	conns   []*http2.ClientConn
	dialing *dial           // nil: none under way
	queue   []chan struct{} // requests without a slot, oldest first
}

// dial is one dial that any number of requests wait for.
type dial struct {
	done  chan struct{} // closed when what follows is set
	conn  *http2.ClientConn
	err   error
	stale bool // closeAll came in between; look again
}

func newPool(most int, d func(context.Context, string) (*http2.ClientConn, error)) *pool {
	p := &pool{max: most, dial: d, hosts: map[string]*host{}}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

var _ http2.ClientConnPool = (*pool)(nil)

// GetClientConn finds a connection with a free stream and reserves it.
func (p *pool) GetClientConn(req *http.Request, addr string) (*http2.ClientConn, error) {
	ctx := req.Context()
	for {
		cc, d, slot := p.pick(req.URL.Host, addr)
		if cc != nil {
			return cc, nil
		}
		var err error
		if slot == nil {
			cc, err = d.wait(ctx)
		} else {
			err = p.waitSlot(ctx, req.URL.Host, slot)
		}
		if cc != nil || err != nil {
			return cc, err
		}
	}
}

// pick returns a connection, or else what to wait for: the only dial under way,
// or a slot on connections that are all full.
func (p *pool) pick(name, addr string) (*http2.ClientConn, *dial, chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[name]
	if h == nil {
		h = &host{}
		p.hosts[name] = h
	}
	best, busy := h.leastBusy()
	if busy && len(h.conns) < p.max && h.dialing == nil {
		h.dialing = &dial{done: make(chan struct{})}
		go p.connect(p.life, h, h.dialing, addr)
	}
	if best != nil && best.ReserveNewRequest() {
		return best, nil, nil
	}
	if len(h.conns) == 0 {
		return nil, h.dialing, nil
	}
	slot := make(chan struct{})
	h.queue = append(h.queue, slot)
	p.waiting.Add(1)
	return nil, nil, slot
}

// leastBusy forgets dead connections and finds the one with the most room. busy
// tells that even this one has half of its streams in use.
func (h *host) leastBusy() (best *http2.ClientConn, busy bool) {
	least := 2.0
	h.conns = slices.DeleteFunc(h.conns, func(cc *http2.ClientConn) bool {
		s := cc.State()
		if s.Closed || s.Closing {
			go endConn(cc)
			return true
		}
		limit := float64(s.MaxConcurrentStreams)
		if limit == 0 {
			limit = assumedStreams
		}
		if load := float64(s.StreamsActive+s.StreamsReserved+s.StreamsPending) / limit; load < least {
			best, least = cc, load
		}
		return false
	})
	return best, least >= 0.5
}

func (p *pool) connect(life context.Context, h *host, d *dial, addr string) {
	cc, err := p.dial(life, addr)
	p.mu.Lock()
	d.stale = life.Err() != nil
	switch {
	case d.stale: // closed below
	case err != nil:
		d.err = err
	default:
		d.conn = cc
		h.conns = append(h.conns, cc)
	}
	if h.dialing == d {
		h.dialing = nil
	}
	p.wake(h, len(h.queue))
	p.mu.Unlock()
	close(d.done)
	if d.stale && cc != nil {
		_ = cc.Close()
	}
}

// wait returns a reserved connection, an error, or neither: then look again.
func (d *dial) wait(ctx context.Context) (*http2.ClientConn, error) {
	select {
	case <-d.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case d.stale:
		return nil, nil
	case d.err != nil:
		return nil, d.err
	case d.conn.ReserveNewRequest():
		return d.conn, nil
	}
	// One that others have filled is looked at again. One that ends already is an
	// error, or a host that does nothing else would be dialled again and again.
	if s := d.conn.State(); s.Closed || s.Closing {
		return nil, fmt.Errorf("egress: the host closed a new connection: %w", io.EOF)
	}
	return nil, nil
}

func (p *pool) waitSlot(ctx context.Context, name string, slot chan struct{}) error {
	defer p.waiting.Add(-1)
	timer := time.NewTimer(recheck)
	defer timer.Stop()
	select {
	case <-slot:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[name]
	if i := slices.Index(h.queue, slot); i >= 0 {
		h.queue = slices.Delete(h.queue, i, i+1)
	} else if ctx.Err() != nil {
		p.wake(h, 1) // the slot was given to us; pass it on
	}
	return ctx.Err()
}

// wake lets the n oldest waiting requests look again.
func (p *pool) wake(h *host, n int) {
	n = min(n, len(h.queue))
	for _, slot := range h.queue[:n] {
		close(slot)
	}
	h.queue = slices.Delete(h.queue, 0, n)
}

// released notes that a stream has ended.
func (p *pool) released(name string) {
	if p.waiting.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.hosts[name]; h != nil {
		p.wake(h, 1)
	}
}

// MarkDead forgets a connection that takes no more requests. HTTP/2 calls it for GOAWAY
// as well, and does not always close what was forgotten then.
func (p *pool) MarkDead(cc *http2.ClientConn) {
	go endConn(cc)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		if i := slices.Index(h.conns, cc); i >= 0 {
			h.conns = slices.Delete(h.conns, i, i+1)
			p.wake(h, len(h.queue)) // one of them has to dial
		}
	}
}

// endWithin is how long the requests of a connection that is closed have to end.
const endWithin = time.Minute

func (p *pool) closeAll() {
	var all []*http2.ClientConn
	p.mu.Lock()
	p.end()
	p.life, p.end = context.WithCancel(context.Background())
	for _, h := range p.hosts {
		for _, cc := range h.conns {
			cc.SetDoNotReuse()
			all = append(all, cc)
		}
		h.conns, h.dialing = nil, nil
		p.wake(h, len(h.queue))
	}
	p.mu.Unlock()
	for _, cc := range all {
		if s := cc.State(); s.StreamsActive+s.StreamsReserved+s.StreamsPending == 0 {
			_ = cc.Close()
		} else {
			go endConn(cc)
		}
	}
}

// endConn closes a connection after its last stream. Streams that were given up may be
// among those that it waits for, for as long as the host does not confirm it.
func endConn(cc *http2.ClientConn) {
	if cc.State().Closed {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), endWithin)
	defer cancel()
	_ = cc.Shutdown(ctx)
	_ = cc.Close()
}
