package egress

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
)

// windowless is a host over HTTP/2 that takes no byte of a request's body. It answers
// the first request; of the others it sends the headers of an answer and no more.
// closed is closed with its only connection.
func windowless(t *testing.T) (s *httptest.Server, closed chan struct{}) {
	s = httptest.NewUnstartedServer(nil)
	s.StartTLS() // only for its certificate
	t.Cleanup(s.Close)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: s.TLS.Certificates, NextProtos: []string{http2.NextProtoTLS}})
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	s.URL = "https://" + l.Addr().String()
	closed = make(chan struct{})
	go func() {
		defer close(closed)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		serveWindowless(c)
	}()
	return s, closed
}

func serveWindowless(c net.Conn) {
	f := http2.NewFramer(c, c)
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	const status200 = 0x88 // indexed by HPACK's static table
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		if h, ok := frame.(*http2.HeadersFrame); ok {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: h.StreamID, BlockFragment: []byte{status200}, EndHeaders: true, EndStream: h.StreamID == 1})
		}
	}
}

// HTTP/2 does not notice the end of a context while it waits for the host's window, and
// nor does whoever reads the body of the answer that has begun meanwhile.
func TestExchangeEndsWithoutAWindow(t *testing.T) {
	t.Parallel()
	s, closed := windowless(t)
	p := provider(t, s, 1)
	ctx := context.Background()
	require.NoError(t, Exchange(p, post(ctx, s.URL, ""), 100).Err) // the settings are known by now
	for range 2 {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		a := Exchange(p, post(short, s.URL, "body"), 100)
		cancel()
		require.NoError(t, a.Err)
		require.Equal(t, 200, a.Status)
		require.Error(t, a.BodyErr)
	}
	select {
	case <-closed:
		t.Fatal("others would have lost their streams")
	default:
	}
	p.CloseIdleConnections()
	<-closed
}

// endless is a host whose answer has a body that never ends.
type endless struct{ closed chan struct{} }

func (h *endless) Do(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: h, Request: req}, nil
}

func (h *endless) Read(p []byte) (int, error) {
	select {
	case <-h.closed:
		return 0, http.ErrBodyReadAfterClose
	case <-time.After(time.Second):
		p[0] = 'x'
		return 1, nil
	}
}

func (h *endless) Close() error {
	select {
	case <-h.closed:
	default:
		close(h.closed)
	}
	return nil
}

// TestABodyThatTricklesKeepsNoWorker: the status has come, whatever time is left.
func TestABodyThatTricklesKeepsNoWorker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := Exchange(&endless{closed: make(chan struct{})}, post(t.Context(), "https://p.example/", ""), 100)
		require.NoError(t, a.Err)
		require.Equal(t, http.StatusOK, a.Status)
		require.Error(t, a.BodyErr)
		require.Equal(t, bodyTime, a.Duration.Truncate(time.Second))
	})
}
