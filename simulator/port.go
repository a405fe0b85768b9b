package simulator

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// port is one listener with its connections.
type port struct {
	tls   bool
	ln    net.Listener
	srv   *http.Server
	conns sync.Map // remote address -> *conn
}

// conn is what is remembered of a connection; APNs binds credentials to it.
type conn struct {
	net.Conn
	mu        sync.Mutex
	team      string
	token     string // newest provider token
	previous  string // the one before: requests with it may still be under way
	tokenFrom time.Time
}

// streams is how many requests a client may have open on one HTTP/2 connection.
const streams = 1000

func newPort(s *Simulator, ln net.Listener, config *tls.Config) *port {
	p := &port{ln: ln, tls: config != nil}
	p.srv = &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.handle(p, w, r) }),
		TLSConfig:         config.Clone(),
		ConnState:         p.track,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: streams},
		ReadHeaderTimeout: 30 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.core.log.Handler(), slog.LevelDebug),
	}
	return p
}

func (p *port) serve() {
	// The error is http.ErrServerClosed, or the listener broke: then every client
	// sees a refused connection, which is all there is to say.
	if p.tls {
		_ = p.srv.ServeTLS(p.ln, "", "")
		return
	}
	_ = p.srv.Serve(p.ln)
}

func (p *port) close() {
	_ = p.srv.Close()
	_ = p.ln.Close() // Server.Close knows it only once it serves
}

// track follows http.Server.ConnState.
func (p *port) track(c net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		p.conns.Store(c.RemoteAddr().String(), &conn{Conn: c})
	case http.StateClosed, http.StateHijacked:
		p.conns.Delete(c.RemoteAddr().String())
	}
}

// connOf is the connection of a request.
func (p *port) connOf(r *http.Request) *conn {
	if c, ok := p.conns.Load(r.RemoteAddr); ok {
		return c.(*conn)
	}
	return &conn{} // closed meanwhile: nobody will see the answer
}

// reset breaks the connection of a request with a TCP RST and ends the handler.
func (p *port) reset(r *http.Request) {
	if c := p.connOf(r).Conn; c != nil {
		raw := c
		if t, ok := c.(*tls.Conn); ok {
			raw = t.NetConn()
		}
		if t, ok := raw.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		_ = raw.Close()
	}
	panic(http.ErrAbortHandler)
}

// url is the base of the port, without a slash at the end. A listener on all
// addresses is named by loopback.
func (p *port) url() string {
	scheme := "http://"
	if p.tls {
		scheme = "https://"
	}
	a := p.ln.Addr().(*net.TCPAddr) // net.Listen("tcp") makes no other
	if a.IP.IsUnspecified() {
		return scheme + (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: a.Port}).String()
	}
	return scheme + a.String()
}
