package egress

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
)

// http2Dialer dials without coalescing.
type http2Dialer struct{ roots *x509.CertPool }

func (d *http2Dialer) dial(ctx context.Context, addr string) (net.Conn, error) {
	return (&tls.Dialer{Config: &tls.Config{RootCAs: d.roots, NextProtos: []string{http2.NextProtoTLS}}}).DialContext(ctx, "tcp", addr)
}

// gated is a connection whose writes wait for a permit and are recorded.
type gated struct {
	net.Conn
	permit chan error
	closed chan struct{}
	once   sync.Once

	mu     sync.Mutex
	writes [][]byte
}

func newGated() *gated { return &gated{permit: make(chan error), closed: make(chan struct{})} }

func (g *gated) Write(p []byte) (int, error) {
	select {
	case err := <-g.permit:
		if err != nil {
			return 0, err
		}
	case <-g.closed:
		return 0, net.ErrClosed
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.writes = append(g.writes, bytes.Clone(p))
	return len(p), nil
}

func (g *gated) Close() error                     { g.once.Do(func() { close(g.closed) }); return nil }
func (g *gated) SetWriteDeadline(time.Time) error { return nil }

func TestCoalesceGathersWrites(t *testing.T) {
	t.Parallel()
	g := newGated()
	c := Coalesce(g)
	write(t, c, "a")
	g.permit <- nil // the goroutine is at the first write now, or past it
	for _, s := range []string{"b", "c", "d"} {
		write(t, c, s)
	}
	done := make(chan struct{})
	go func() {
		for {
			select {
			case g.permit <- nil:
			case <-done:
				return
			}
		}
	}()
	require.NoError(t, c.Close())
	close(done)
	require.Equal(t, "abcd", string(bytes.Join(g.writes, nil)))
	require.Less(t, len(g.writes), 4)
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	n, err := c.Write([]byte(s))
	require.NoError(t, err)
	require.Equal(t, len(s), n)
}

func TestCoalesceReportsErrorsLater(t *testing.T) {
	t.Parallel()
	g := newGated()
	c := Coalesce(g)
	write(t, c, "a")
	g.permit <- errors.New("broken")
	<-g.closed // a failed write closes the connection
	_, err := c.Write([]byte("b"))
	require.EqualError(t, err, "broken")
	require.NoError(t, c.Close())
}

func TestCoalesceBlocksWhenFull(t *testing.T) {
	t.Parallel()
	g := newGated()
	c := Coalesce(g)
	write(t, c, "a")
	big := make([]byte, queueBytes)
	write(t, c, string(big))
	blocked := make(chan error, 1)
	go func() { // the queue is full, at the latest with the second of these
		_, err := c.Write(big)
		if err == nil {
			_, err = c.Write(big)
		}
		blocked <- err
	}()
	select {
	case err := <-blocked:
		t.Fatalf("three times the bound were taken: %v", err)
	case g.permit <- nil:
	}
	go func() {
		for {
			select {
			case g.permit <- nil:
			case <-g.closed:
				return
			}
		}
	}()
	require.NoError(t, <-blocked)
	require.NoError(t, c.Close())
	require.Len(t, bytes.Join(g.writes, nil), 1+3*queueBytes)
	_, err := c.Write([]byte("late"))
	require.ErrorIs(t, err, net.ErrClosed)
}

// A peer that reads nothing cannot hold Close, nor a blocked Write.
func TestCoalesceCloseIsBounded(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	c := Coalesce(client)
	blocked := make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			_, err = c.Write(make([]byte, queueBytes))
		}
		blocked <- err
	}()
	require.NoError(t, c.Close())
	require.Error(t, <-blocked)
}

func TestCoalesceConcurrent(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	c := Coalesce(client)
	got := make(chan []byte, 1)
	go func() { b, _ := io.ReadAll(server); got <- b }()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 500 {
				_, _ = c.Write(bytes.Repeat([]byte{byte('a' + i)}, 7))
			}
		})
	}
	wg.Wait()
	require.NoError(t, c.Close())
	b := <-got
	require.Len(t, b, 16*500*7)
	for ; len(b) > 0; b = b[7:] { // no write was torn apart
		require.Equal(t, bytes.Repeat(b[:1], 7), b[:7])
	}
}

func TestCoalesceShowsTLSState(t *testing.T) {
	t.Parallel()
	client, server := net.Pipe()
	defer server.Close()
	c := Coalesce(tls.Client(client, &tls.Config{ServerName: "x"}))
	_, ok := c.(interface{ ConnectionState() tls.ConnectionState })
	require.True(t, ok)
	go func() { _, _ = io.Copy(io.Discard, server) }()
	require.NoError(t, c.Close())
}
