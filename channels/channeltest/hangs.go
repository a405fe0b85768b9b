package channeltest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/carillonhq/carillon/channels"
)

// hang is a host that tries to keep a request for ever.
type hang struct {
	name string
	// play is what the host does on one connection. It returns when that has ended,
	// and calls caught once the request would wait for ever.
	play func(x *hostile)
	want []channels.Outcome
	code string // "": any
	// answered: the verdict has come when the request hangs, so it is not given up but
	// ends by itself.
	answered bool
	// kept: the connection may stay open until the sender is closed, because others
	// share it, or because a dial belongs to no request.
	kept bool
}

// answeredWithin is what a request has that was answered, and whose body hangs.
// Webhooks wait less by themselves.
const answeredWithin = 3 * time.Second

// hostile is one connection as the host sees it.
type hostile struct {
	net.Conn // TLS, unless the hang is below that
	raw      net.Conn
	caught   func()
	number   int // 1 for the host's first connection
	h        Harness
}

// drain reads until the other side closes the connection.
func (x *hostile) drain() { _, _ = io.Copy(io.Discard, x.raw) }

// repeat writes until the connection has ended.
func (x *hostile) repeat(pause time.Duration, write func() error) {
	for write() == nil {
		time.Sleep(pause)
	}
}

func (x *hostile) say(format string, args ...any) error {
	_, err := fmt.Fprintf(x, format, args...)
	return err
}

// request reads one over HTTP/1.1.
func (x *hostile) request() bool {
	r, err := http.ReadRequest(bufio.NewReader(x))
	if err == nil {
		_, err = io.Copy(io.Discard, r.Body)
	}
	return err == nil
}

// frames begins HTTP/2.
func (x *hostile) frames(settings ...http2.Setting) *http2.Framer {
	f := http2.NewFramer(x, x)
	if _, err := io.ReadFull(x, make([]byte, len(http2.ClientPreface))); err != nil {
		return nil
	}
	if f.WriteSettings(settings...) != nil {
		return nil
	}
	return f
}

// stream reads until the headers of a request have come, or all of it, and gives its
// stream; 0 if the connection has ended.
func (x *hostile) stream(f *http2.Framer, whole bool) uint32 {
	for f != nil {
		frame, err := f.ReadFrame()
		if err != nil {
			break
		}
		flags := frame.Header().Flags
		switch fr := frame.(type) {
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.HeadersFrame, *http2.DataFrame:
			if !whole || flags.Has(http2.FlagDataEndStream) { // the same bit for both
				return frame.Header().StreamID
			}
		}
	}
	return 0
}

// headers writes those of an answer.
func (x *hostile) headers(f *http2.Framer, stream uint32, status int) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true, BlockFragment: encoded(":status", fmt.Sprint(status))})
}

func encoded(name, value string) []byte {
	var b writerTo
	_ = hpack.NewEncoder(&b).WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true}) // never indexed: each stands alone
	return b
}

type writerTo []byte

func (w *writerTo) Write(p []byte) (int, error) { *w = append(*w, p...); return len(p), nil }

var (
	noVerdict = []channels.Outcome{channels.Retry}
	taken     = []channels.Outcome{channels.Accepted}
	// tooMuch is what some channels take for a fault that another try does not mend.
	tooMuch = []channels.Outcome{channels.Retry, channels.Rejected}
)

// belowTLS are hosts with which no connection comes about.
func belowTLS() []hang {
	return []hang{
		{name: "no handshake", want: noVerdict, code: "transport.timeout", kept: true, play: func(x *hostile) { x.caught(); x.drain() }},
		{name: "an endless handshake", want: noVerdict, code: "transport.timeout", kept: true, play: func(x *hostile) {
			if _, err := x.raw.Write([]byte{22, 3, 3, 0x40, 0}); err != nil { // a record of 16 KiB
				return
			}
			x.caught()
			x.repeat(5*time.Millisecond, func() error { _, err := x.raw.Write([]byte{0}); return err })
		}},
	}
}

func hangsHTTP1() []hang {
	answered := func(rest func(*hostile)) func(*hostile) {
		return func(x *hostile) {
			if x.request() && x.say("HTTP/1.1 %d OK\r\n", x.h.OK.Status) == nil {
				rest(x)
			}
		}
	}
	return []hang{
		{name: "nothing is read", want: noVerdict, code: "transport.timeout", play: func(x *hostile) {
			if x.Conn.(*tls.Conn).Handshake() == nil {
				x.caught()
				x.drain()
			}
		}},
		{name: "silent", want: noVerdict, code: "transport.timeout", play: func(x *hostile) {
			if x.request() {
				x.caught()
				x.drain()
			}
		}},
		{name: "trickling headers", want: noVerdict, code: "transport.timeout", play: answered(func(x *hostile) {
			x.caught()
			x.repeat(5*time.Millisecond, func() error { return x.say("x") })
		})},
		{name: "endless headers", want: tooMuch, answered: true, play: answered(func(x *hostile) {
			x.repeat(0, func() error { return x.say("X-More: more\r\n") })
		})},
		{name: "endless interim answers", want: tooMuch, answered: true, play: func(x *hostile) {
			if x.request() {
				x.repeat(0, func() error { return x.say("HTTP/1.1 103 Early Hints\r\n\r\n") })
			}
		}},
		{name: "headers of 100 KiB", want: taken, answered: true, play: answered(func(x *hostile) {
			for range 100 {
				_ = x.say("X-More: %s\r\n", strings.Repeat("m", 1024))
			}
			_ = x.say("Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(x.h.OK.Body), x.h.OK.Body)
		})},
		{name: "half-closed", want: noVerdict, code: "transport.closed", answered: true, play: func(x *hostile) {
			if x.request() && x.Conn.(*tls.Conn).CloseWrite() == nil && x.raw.(*net.TCPConn).CloseWrite() == nil {
				x.drain()
			}
		}},
		{name: "101 and silence", want: noVerdict, answered: true, play: func(x *hostile) {
			if x.request() && x.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n") == nil {
				x.drain()
			}
		}},
		{name: "101 and endless bytes", want: noVerdict, answered: true, play: func(x *hostile) {
			if x.request() && x.say("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n") == nil {
				x.repeat(time.Millisecond, func() error { return x.say("x") })
			}
		}},
		{name: "101 that switches nothing", want: noVerdict, answered: true, play: func(x *hostile) {
			if x.request() && x.say("HTTP/1.1 101 Switching Protocols\r\n\r\n") == nil {
				x.drain()
			}
		}},
		{name: "an answer without its body", want: taken, answered: true, play: answered(func(x *hostile) {
			if x.say("Content-Length: 100\r\n\r\npart") == nil {
				x.drain()
			}
		})},
		{name: "a trickling body", want: taken, answered: true, play: answered(func(x *hostile) {
			if x.say("Transfer-Encoding: chunked\r\n\r\n") == nil {
				x.repeat(5*time.Millisecond, func() error { return x.say("1\r\nx\r\n") })
			}
		})},
		{name: "an endless body", want: taken, answered: true, play: answered(func(x *hostile) {
			if x.say("Transfer-Encoding: chunked\r\n\r\n") == nil {
				x.repeat(0, func() error { return x.say("4\r\nmore\r\n") })
			}
		})},
		{name: "an endless trailer", want: taken, answered: true, play: answered(func(x *hostile) {
			if x.say("Transfer-Encoding: chunked\r\n\r\n0\r\n") == nil {
				x.repeat(time.Millisecond, func() error { return x.say("X-More: more\r\n") })
			}
		})},
	}
}

func hangsHTTP2() []hang {
	// asked plays on when a whole request has come, while what else comes is thrown away.
	asked := func(rest func(x *hostile, f *http2.Framer, stream uint32)) func(*hostile) {
		return func(x *hostile) {
			f := x.frames()
			if stream := x.stream(f, true); stream != 0 {
				go func() { _, _ = io.Copy(io.Discard, x) }()
				rest(x, f, stream)
			}
		}
	}
	zero := http2.Setting{ID: http2.SettingInitialWindowSize}
	return []hang{
		{name: "no settings", want: noVerdict, code: "transport.timeout", kept: true, play: func(x *hostile) {
			if _, err := io.ReadFull(x, make([]byte, len(http2.ClientPreface))); err == nil {
				x.caught()
				x.drain()
			}
		}},
		{name: "silent", want: noVerdict, code: "transport.timeout", kept: true, play: func(x *hostile) {
			if x.stream(x.frames(), true) != 0 {
				x.caught()
				x.drain()
			}
		}},
		{name: "endless pings", want: noVerdict, code: "transport.timeout", kept: true, play: asked(func(x *hostile, f *http2.Framer, _ uint32) {
			x.caught()
			x.repeat(time.Millisecond, func() error { return f.WritePing(false, [8]byte{1}) })
		})},
		{name: "endless pings of a host that reads nothing", want: noVerdict, code: "transport.timeout", kept: true, play: func(x *hostile) {
			if f := x.frames(); x.stream(f, true) != 0 {
				x.caught()
				x.repeat(0, func() error { return f.WritePing(false, [8]byte{1}) })
			}
		}},
		{name: "endless settings", want: noVerdict, code: "transport.timeout", kept: true, play: asked(func(x *hostile, f *http2.Framer, _ uint32) {
			x.caught()
			x.repeat(time.Millisecond, func() error { return f.WriteSettings() })
		})},
		{name: "endless empty continuations", want: noVerdict, code: "transport.timeout", kept: true, play: asked(func(x *hostile, f *http2.Framer, stream uint32) {
			if f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: encoded(":status", "200")}) == nil {
				x.caught()
				x.repeat(time.Millisecond, func() error { return f.WriteContinuation(stream, false, nil) })
			}
		})},
		{name: "endless headers", want: tooMuch, answered: true, play: asked(func(x *hostile, f *http2.Framer, stream uint32) {
			if f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: encoded(":status", "200")}) == nil {
				more := encoded("x-more", "more")
				x.repeat(0, func() error { return f.WriteContinuation(stream, false, more) })
			}
		})},
		{name: "endless interim answers", want: tooMuch, answered: true, kept: true, play: asked(func(x *hostile, f *http2.Framer, stream uint32) {
			x.repeat(0, func() error { return x.headers(f, stream, http.StatusEarlyHints) })
		})},
		{name: "headers of 100 KiB", want: taken, answered: true, kept: true, play: asked(func(x *hostile, f *http2.Framer, stream uint32) {
			if f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: encoded(":status", fmt.Sprint(x.h.OK.Status))}) == nil {
				for i := range 100 {
					_ = f.WriteContinuation(stream, i == 99, encoded("x-more", strings.Repeat("m", 1024)))
				}
				_ = f.WriteData(stream, true, []byte(x.h.OK.Body))
				x.drain()
			}
		})},
		{name: "no window", want: noVerdict, code: "transport.timeout", kept: true, play: func(x *hostile) {
			if x.stream(x.frames(zero), false) != 0 {
				x.caught()
				x.drain()
			}
		}},
		{name: "no window, and an answer without its body", want: taken, answered: true, kept: true, play: func(x *hostile) {
			f := x.frames(zero)
			if stream := x.stream(f, false); stream != 0 && x.headers(f, stream, x.h.OK.Status) == nil {
				x.drain()
			}
		}},
		{name: "an answer without its body", want: taken, answered: true, kept: true, play: asked(func(x *hostile, f *http2.Framer, stream uint32) {
			if x.headers(f, stream, x.h.OK.Status) == nil {
				x.drain()
			}
		})},
		{name: "an answer without its body, of a host that reads nothing", want: taken, answered: true, kept: true, play: func(x *hostile) {
			f := x.frames()
			if stream := x.stream(f, true); stream != 0 && x.headers(f, stream, x.h.OK.Status) == nil && f.WriteData(stream, false, []byte("part")) == nil {
				x.repeat(0, func() error { return f.WritePing(false, [8]byte{1}) })
			}
		}},
		{name: "a trickling body", want: taken, answered: true, kept: true, play: asked(func(x *hostile, f *http2.Framer, stream uint32) {
			if x.headers(f, stream, x.h.OK.Status) == nil {
				x.repeat(5*time.Millisecond, func() error { return f.WriteData(stream, false, []byte("x")) })
			}
		})},
		{name: "nothing but GOAWAY", want: noVerdict, kept: true, play: func(x *hostile) {
			if f := x.frames(); f != nil && f.WriteGoAway(0, http2.ErrCodeNo, nil) == nil {
				if x.number == 2 {
					x.caught()
				}
				x.drain()
			}
		}},
		{name: "every stream refused", want: noVerdict, kept: true, play: func(x *hostile) {
			f := x.frames()
			for n := 1; ; n++ {
				stream := x.stream(f, true)
				if stream == 0 || f.WriteRSTStream(stream, http2.ErrCodeRefusedStream) != nil {
					return
				}
				if n == 2 {
					x.caught()
				}
			}
		}},
	}
}

// runHangs sends to hosts that do all they can to keep a request. It ends, its verdict
// is the right one, and its connection is closed; that no goroutine is left is up to
// Main.
func runHangs(t *testing.T, h Harness) {
	list := append(belowTLS(), hangsHTTP2()...)
	if h.HTTP1 {
		list = append(belowTLS(), hangsHTTP1()...)
	}
	for i, x := range list {
		t.Run(x.name, func(t *testing.T) {
			t.Parallel()
			caught := make(chan struct{})
			p := serveHostile(t, h, i < len(belowTLS()), x.play, sync.OnceFunc(func() { close(caught) }))
			s := h.Open(t, p)
			t.Cleanup(func() { finish(s) })
			ctx, giveUp := context.WithCancel(patient(t))
			defer giveUp()
			if x.answered {
				ctx, giveUp = context.WithTimeout(ctx, answeredWithin)
				defer giveUp()
			}
			payload := prepare(t, h, s)
			result := make(chan channels.Result, 1)
			go func() { result <- s.Sender.Send(ctx, s.Target, payload, life(h, 0)) }()
			var r channels.Result
			select {
			case <-caught:
				giveUp()
				r = <-result
			case r = <-result:
			}
			wellFormed(t, h, r)
			require.Contains(t, x.want, r.Outcome, "%+v", r)
			if x.code != "" {
				require.Equal(t, x.code, r.Code)
			}
			if !x.kept {
				p.awaitClosed(t)
			}
			finish(s)
			p.awaitClosed(t)
		})
	}
}

// serveHostile is a host whose connections play does something with, after the
// handshake unless the hang is below TLS.
func serveHostile(t testing.TB, h Harness, below bool, play func(*hostile), caught func()) *Provider {
	p := &Provider{changed: make(chan struct{})}
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS() // only for its certificate
	t.Cleanup(s.Close)
	p.trust(s)
	config := &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{http2.NextProtoTLS}}
	if h.HTTP1 {
		config.NextProtos = []string{"http/1.1"}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p.URL = "https://" + l.Addr().String()
	var ended sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); ended.Wait() })
	ended.Go(func() {
		for number := 1; ; number++ {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			p.count(1)
			ended.Go(func() {
				defer p.count(-1)
				defer raw.Close()
				stop := context.AfterFunc(t.Context(), func() { _ = raw.Close() }) // where the other side does not, the test has failed
				defer stop()
				x := &hostile{Conn: raw, raw: raw, caught: caught, number: number, h: h}
				if !below {
					x.Conn = tls.Server(raw, config)
				}
				play(x)
			})
		}
	})
	return p
}
