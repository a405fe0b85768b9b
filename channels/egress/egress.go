// Package egress makes the requests that leave this server.
//
// There are two ways out. Guarded is for hosts that tenants and devices choose
// (webhook URLs, push subscriptions): the address is checked when it is dialled,
// so neither a name that resolves to the inside nor a redirect gets through.
// Provider is for hosts that are constants in this program (Apple, Google): it
// keeps few HTTP/2 connections busy. Neither ever uses a proxy from the
// environment, follows a redirect or repeats a request that the other side may
// have acted upon.
package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"
)

// cutAfter is how long an exchange may go on when its time is over, before the
// connection is closed under it. On HTTP/2 others share it, so the stream may end
// alone first.
const cutAfter = time.Second

// bodyTime is how long a body may come after its headers, whose status is the verdict
// for the most part: a host that trickles keeps no worker for as long as one that has
// not answered.
const bodyTime = 5 * time.Second

// ErrHeaders says that the headers of an answer, interim answers before it included,
// have more bytes than are read, so that not even its status is known.
var ErrHeaders = errors.New("egress: the headers of the answer are too large")

// Answer is what came back for one request.
type Answer struct {
	Status   int // 0 without an answer
	Header   http.Header
	Body     []byte        // at most the limit given to Exchange
	BodyErr  error         // the body ended early; Status, Header and the part in Body hold
	Wrote    bool          // the request was, or may have been, written in full, so the host may have acted on it
	Reused   bool          // it went over a connection that had served another one
	Began    bool          // a part of an answer came
	Err      error         // no answer at all; its text may hold the URL
	Duration time.Duration // until the body was read
}

// Doer is an *http.Client, a *ProviderTransport, or something like them. One whose
// connections do not show themselves to httptrace closes its own with Cut().
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Exchange sends req once and reads at most limit bytes of the answer's body. What
// is beyond them is not read: the connection is closed instead, or the stream reset.
// 101 Switching Protocols is an answer like others and has no body.
//
// It ends with the request's context, and with the time-out where c is an
// *http.Client, whatever the host does: what net/http and HTTP/2 leave waiting by
// then (golang/go#44988) ends because the connection is closed.
func Exchange(c Doer, req *http.Request, limit int64) Answer {
	ctx, end := req.Context(), context.CancelFunc(func() {})
	if client, ok := c.(*http.Client); ok && client.Timeout > 0 {
		ctx, end = context.WithTimeout(ctx, client.Timeout)
	}
	defer end()
	x := exchange{doer: c, word: make(chan struct{}, 1)}
	defer x.cutAfter(ctx)()
	start := time.Now()
	res, err := c.Do(req.WithContext(httptrace.WithClientTrace(context.WithValue(ctx, exchangeKey{}, &x), x.trace())))
	a := Answer{Reused: x.reused.Load(), Began: x.began.Load()}
	if err != nil {
		a.Wrote = x.wrote()
		a.Err, a.Duration = headersErr(err), time.Since(start)
		return a
	}
	defer res.Body.Close()
	a.Status, a.Header, a.Wrote, a.Began = res.StatusCode, res.Header, true, true
	if res.StatusCode >= 200 {
		// HTTP/2 does not notice the end of a context while the request's own body
		// waits for the host to take it.
		stop := context.AfterFunc(ctx, func() { _ = res.Body.Close() })
		defer stop()
		late := time.AfterFunc(bodyTime, func() { _ = res.Body.Close() })
		defer late.Stop()
		// One byte more, to see the end of what has limit bytes: only then is the
		// connection used again.
		a.Body, a.BodyErr = io.ReadAll(io.LimitReader(res.Body, limit+1))
		a.Body = a.Body[:min(int64(len(a.Body)), limit)]
	}
	a.Duration = time.Since(start)
	return a
}

// exchangeKey is where a dialler finds the exchange that it dials for.
type exchangeKey struct{}

// exchange is what is known of a request under way.
type exchange struct {
	doer          Doer
	reused, began atomic.Bool
	dials         atomic.Int32
	conn          atomic.Pointer[net.Conn]
	writing       atomic.Int32  // how far the request is written
	word          chan struct{} // one is waiting when it is decided
}

// How far a request is written.
const (
	wroteNothing int32 = iota
	wroteHeaders       // the rest is on its way
	wroteAll
	wroteTooLittle // the rest failed
)

// wroteWithin is how long HTTP/2 has to say whether it has written what it was told to
// give up.
const wroteWithin = 100 * time.Millisecond

// wrote tells whether the request may have been written in full. HTTP/2 gives a
// request up before its writer has said how far it came: without its word it may.
func (x *exchange) wrote() bool {
	late := time.NewTimer(wroteWithin)
	defer late.Stop()
	for x.writing.Load() == wroteHeaders {
		select {
		case <-x.word:
		case <-late.C:
			return true
		}
	}
	return x.writing.Load() == wroteAll
}

func (x *exchange) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			x.reused.Store(i.Reused)
			x.conn.Store(&i.Conn)
			if b, ok := below(i.Conn).(*bounded); ok {
				b.used()
			}
		},
		WroteHeaders: func() { x.writing.Store(wroteHeaders) },
		WroteRequest: func(i httptrace.WroteRequestInfo) {
			if i.Err == nil {
				x.writing.Store(wroteAll)
			} else {
				x.writing.Store(wroteTooLittle)
			}
			select {
			case x.word <- struct{}{}:
			default:
			}
		},
		GotFirstResponseByte: func() { x.began.Store(true) },
	}
}

// cutAfter closes the connection a while after ctx has ended, unless the exchange
// has ended first, which is what the function that it returns says.
func (x *exchange) cutAfter(ctx context.Context) (ended func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		late := time.NewTimer(cutAfter)
		defer late.Stop()
		select {
		case <-done:
		case <-late.C:
			x.cut()
		}
	})
	return func() { stop(); close(done) }
}

func (x *exchange) cut() {
	if own, ok := x.doer.(interface{ Cut() }); ok {
		own.Cut()
	} else if c := x.conn.Load(); c != nil {
		cut(*c)
	}
}

// cut closes a connection below TLS, since TLS's own farewell would wait for the
// same peer.
func cut(c net.Conn) { _ = below(c).Close() }

// headersErr makes ErrHeaders of what net/http and HTTP/2 say, which have no errors
// of their own for it.
func headersErr(err error) error {
	for _, text := range []string{
		"server response headers exceeded",                  // net/http
		"response header list larger than advertised limit", // HTTP/2
		"header list too large",                             // HTTP/2, interim answers
	} {
		if strings.Contains(err.Error(), text) {
			return ErrHeaders
		}
	}
	return err
}
