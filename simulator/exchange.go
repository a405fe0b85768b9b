package simulator

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// core is what all parts share.
type core struct {
	ctx    context.Context // ends with Close
	now    func() time.Time
	log    *slog.Logger
	rec    *recorder
	faults *faults
}

// faultDetail is the detail of answers that are not the request's fault.
const faultDetail = "A fault was asked for."

// exchange is one request as a part has judged it, before faults.
type exchange struct {
	channel  Channel
	target   string // by which faults and arrivals know the address
	delivery string // "" where the request names none
	payload  []byte
	asked    bool // the address asks for fault
	fault    Fault
	answer   answer
	// refuse words a fault's status the way the provider does.
	refuse func(Fault) answer
	// after sees what was really answered; may be nil.
	after func(answer)
}

// answer is what goes back.
type answer struct {
	status   int // 0: nothing went back
	reason   string
	detail   string // for people: what was wrong with the request
	accepted bool
	header   [][2]string
	kind     string // Content-Type; "": no body
	body     []byte
}

// askFor notes the fault that a readable address asks for.
func (x *exchange) askFor(address string) {
	if len(address) > len(faultPrefix) && address[:len(faultPrefix)] == faultPrefix {
		x.fault, x.asked = ParseFault(x.channel, address)
	}
}

// respond lets the exchange meet its fault, records it and answers. What is
// recorded before the answer is written, so whoever has the answer finds it in
// the report.
func (c *core) respond(p *port, w http.ResponseWriter, r *http.Request, x *exchange) {
	var f Fault
	if x.answer.status < 300 {
		if found, ok := c.faults.find(x); ok {
			f = found
		}
	}
	if f.Latency > 0 && !c.pause(r.Context(), f.Latency) {
		x.answer = answer{reason: "canceled", detail: "The client gave up while it waited."}
		c.rec.record(x, r.Header)
		panic(http.ErrAbortHandler) // other requests of the connection go on
	}
	x.strike(f)
	if x.after != nil {
		x.after(x.answer)
	}
	c.rec.record(x, r.Header)
	if c.log.Enabled(c.ctx, slog.LevelDebug) {
		c.log.Debug("request", "channel", x.channel, "delivery", x.delivery, "status", x.answer.status,
			"reason", x.answer.reason) // the detail may quote the request
	}
	if f.Reset {
		p.reset(r)
	}
	x.answer.write(w, f.CutBody)
}

// strike turns the answer into what the fault makes of it.
func (x *exchange) strike(f Fault) {
	switch {
	case f.Reset:
		x.answer = answer{reason: "reset", detail: faultDetail}
		return
	case f.Status >= 200 && f.Status <= 299:
		x.answer.status = f.Status
	case f.Status != 0:
		x.answer = x.refuse(f)
		x.answer.status = f.Status
		x.answer.detail = faultDetail
		if f.Status < 400 {
			x.answer.header = append(x.answer.header, [2]string{"Location", hookPath + "redirected"})
		}
	}
	if f.RetryAfter > 0 {
		x.answer.header = append(x.answer.header, [2]string{"Retry-After", strconv.Itoa(int(f.RetryAfter / time.Second))})
	}
	if f.CutBody {
		if x.answer.reason == "" {
			x.answer.reason = "cut"
		}
		if x.answer.status == http.StatusNoContent {
			x.answer.status = http.StatusOK // 204 has no body that could break off
		}
	}
}

// pause is false when the client or the simulator went away first.
func (c *core) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-c.ctx.Done():
	}
	return false
}

// cutLength is the Content-Length that a cut answer promises beyond what it sends.
const cutLength = 64

func (a answer) write(w http.ResponseWriter, cut bool) {
	h := w.Header()
	for _, kv := range a.header {
		h[http.CanonicalHeaderKey(kv[0])] = []string{kv[1]}
	}
	if a.kind != "" {
		h["Content-Type"] = []string{a.kind}
	}
	body := a.body
	if cut {
		h["Content-Length"] = []string{strconv.Itoa(len(body) + cutLength)}
		body = body[:len(body)/2]
	} else if a.status != http.StatusNoContent {
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(a.status)
	if len(body) > 0 {
		w.Write(body) //nolint:errcheck // the client may be gone; nothing depends on it
	}
	if cut {
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// readBody reads at most limit bytes and one more, so that the caller can tell
// that there were too many.
func readBody(r *http.Request, limit int) ([]byte, error) {
	size := min(max(r.ContentLength, 0), int64(limit)) + 1
	buf := make([]byte, 0, size+64)
	body := io.LimitReader(r.Body, int64(limit)+1)
	for {
		n, err := body.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
}
