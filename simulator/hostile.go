package simulator

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Hostile are receivers of webhooks that do what hurts a sender.
type Hostile struct {
	urls      []string // one of each kind
	listeners []net.Listener
	ctx       context.Context
	end       context.CancelFunc
	open      sync.WaitGroup
}

// slowAnswer is below the time that a request has.
const slowAnswer = 14 * time.Second

// StartHostile listens on loopback, a port for each kind.
func StartHostile() (*Hostile, error) {
	h := &Hostile{}
	h.ctx, h.end = context.WithCancel(context.Background())
	for _, kind := range []struct {
		scheme string
		play   func(net.Conn)
	}{
		{"http", h.wait}, // takes the request and never answers
		{"http", func(c net.Conn) { // answers well, and late
			if h.pause(slowAnswer) {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			}
		}},
		{"http", func(c net.Conn) { // a body that never ends
			_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
			for err == nil && h.pause(100*time.Millisecond) {
				_, err = c.Write([]byte{'.'})
			}
		}},
		{"http", func(c net.Conn) { // another protocol
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
			h.wait(c)
		}},
		{"https", h.wait}, // TLS that never finishes
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			h.Stop()
			return nil, err
		}
		h.listeners = append(h.listeners, l)
		h.urls = append(h.urls, fmt.Sprintf("%s://%s/", kind.scheme, l.Addr()))
		h.open.Go(func() { h.serve(l, kind.play) })
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0") // one that refuses
	if err != nil {
		h.Stop()
		return nil, err
	}
	h.urls = append(h.urls, fmt.Sprintf("http://%s/", closed.Addr()))
	return h, closed.Close()
}

func (h *Hostile) serve(l net.Listener, play func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		h.open.Go(func() {
			gone := make(chan struct{})
			stop := context.AfterFunc(h.ctx, func() { _ = c.Close() })
			defer stop()
			if _, err := c.Read(make([]byte, 1)); err != nil { // nothing is answered before it is asked
				_ = c.Close()
				return
			}
			go func() {
				defer close(gone)
				_, _ = io.Copy(io.Discard, c) // the request, and the end of the connection
			}()
			play(c)
			select {
			case <-gone:
			case <-h.ctx.Done():
			}
			_ = c.Close()
		})
	}
}

func (h *Hostile) wait(net.Conn) {}

func (h *Hostile) pause(d time.Duration) bool {
	select {
	case <-h.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// URL is the n-th receiver's: one kind after the other, and never the same.
func (h *Hostile) URL(n int) string { return h.urls[n%len(h.urls)] + fmt.Sprint(n) }

// Stop ends all that hangs.
func (h *Hostile) Stop() {
	h.end()
	for _, l := range h.listeners {
		_ = l.Close()
	}
	h.open.Wait()
}

// Hanging is the n-th that takes a request and never answers.
func (h *Hostile) Hanging(n int) string { return h.urls[0] + fmt.Sprint(n) }
