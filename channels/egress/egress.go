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
	"io"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// drainBytes bounds what is read beyond the wanted part of an answer so that
// its connection can be used again.
const drainBytes = 256 << 10

// Answer is what came back for one request.
type Answer struct {
	Status   int // 0 without an answer
	Header   http.Header
	Body     []byte        // at most the limit given to Exchange
	BodyErr  error         // the body ended early; Status, Header and the part in Body hold
	Wrote    bool          // the request was written in full, so the host may have acted on it
	Err      error         // no answer at all; its text may hold the URL
	Duration time.Duration // until the body was read
}

// Exchange sends req once and reads at most limit bytes of the answer. It
// always drains (within a bound) and closes the body. c is an *http.Client or a
// *ProviderTransport; how long it may take is up to the request's context.
func Exchange(c interface {
	Do(*http.Request) (*http.Response, error)
}, req *http.Request, limit int64) Answer {
	var wrote atomic.Bool
	trace := &httptrace.ClientTrace{WroteRequest: func(i httptrace.WroteRequestInfo) {
		wrote.Store(i.Err == nil)
	}}
	start := time.Now()
	res, err := c.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err != nil {
		return Answer{Err: err, Wrote: wrote.Load(), Duration: time.Since(start)}
	}
	defer res.Body.Close()
	a := Answer{Status: res.StatusCode, Header: res.Header, Wrote: true}
	a.Body, a.BodyErr = io.ReadAll(io.LimitReader(res.Body, limit))
	if a.BodyErr == nil && int64(len(a.Body)) == limit {
		_, _ = io.CopyN(io.Discard, res.Body, drainBytes)
	}
	a.Duration = time.Since(start)
	return a
}
