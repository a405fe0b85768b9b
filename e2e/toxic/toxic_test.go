package toxic_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/e2e/toxic"
)

// echo answers every line with itself, and counts lines.
type echo struct {
	net.Listener
	lines atomic.Int32
}

func newEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	e := &echo{Listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					e.lines.Add(1)
					fmt.Fprintln(conn, lines.Text())
				}
			}()
		}
	}()
	return e
}

func dial(t *testing.T, p *toxic.Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// say sends a line and waits for its echo.
func say(conn net.Conn, wait time.Duration) error {
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return err
	}
	_ = conn.SetReadDeadline(time.Now().Add(wait))
	b := make([]byte, 6)
	_, err := io.ReadFull(conn, b)
	return err
}

const (
	long  = 10 * time.Second // for what must come
	short = 50 * time.Millisecond
)

func TestHealthy(t *testing.T) {
	t.Parallel()
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("here")) }))
	t.Cleanup(site.Close)
	p := toxic.New(t, site.Listener.Addr().String())
	answer, err := http.Get(p.Through(t, site.URL+"/path"))
	require.NoError(t, err)
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.Equal(t, "here", string(body))
	require.Equal(t, p.Addr(), answer.Request.URL.Host)
}

func TestLatency(t *testing.T) {
	t.Parallel()
	p := toxic.New(t, newEcho(t).Addr().String())
	conn := dial(t, p)
	for _, latency := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond} { // the second replaces the first
		require.NoError(t, p.Latency(latency))
		started := time.Now()
		require.NoError(t, say(conn, long))
		require.GreaterOrEqual(t, time.Since(started), latency-10*time.Millisecond)
	}
	require.NoError(t, p.Heal())
	require.NoError(t, say(conn, long))
}

func TestCut(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	p := toxic.New(t, e.Addr().String())
	before := dial(t, p)
	require.NoError(t, say(before, long))
	require.NoError(t, p.Cut())
	during := dial(t, p)
	for _, conn := range []net.Conn{before, during} {
		require.ErrorIs(t, say(conn, short), os.ErrDeadlineExceeded, "it must stay open and silent")
	}
	require.EqualValues(t, 1, e.lines.Load())
	require.NoError(t, p.Heal())
	for _, conn := range []net.Conn{before, during} {
		err := say(conn, long)
		require.Error(t, err)
		require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it must have ended")
	}
	require.NoError(t, say(dial(t, p), long))
}

func TestCutAnswers(t *testing.T) {
	t.Parallel()
	e := newEcho(t)
	p := toxic.New(t, e.Addr().String())
	require.NoError(t, p.CutAnswers())
	require.ErrorIs(t, say(dial(t, p), short), os.ErrDeadlineExceeded)
	require.Eventually(t, func() bool { return e.lines.Load() == 1 }, long, time.Millisecond)
}

func TestReset(t *testing.T) {
	t.Parallel()
	p := toxic.New(t, newEcho(t).Addr().String())
	before := dial(t, p)
	require.NoError(t, say(before, long))
	require.NoError(t, p.Reset())
	ended := say(before, long)
	require.Error(t, ended)
	require.NotErrorIs(t, ended, os.ErrDeadlineExceeded)
	require.ErrorIs(t, say(dial(t, p), long), syscall.ECONNRESET)
	require.NoError(t, p.Heal())
	require.NoError(t, say(dial(t, p), long))
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	p := toxic.New(t, newEcho(t).Addr().String())
	before := dial(t, p)
	require.NoError(t, say(before, long))
	p.Refuse()
	ended := say(before, long)
	require.Error(t, ended)
	require.NotErrorIs(t, ended, os.ErrDeadlineExceeded)
	_, err := net.Dial("tcp", p.Addr())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, p.Heal())
	require.NoError(t, say(dial(t, p), long))
}
