package simulator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Report counts everything since the start or the last Reset.
type Report struct {
	Since    time.Time                 `json:"since"`
	Requests uint64                    `json:"requests"`
	Accepted uint64                    `json:"accepted"`
	Channels map[Channel]ChannelReport `json:"channels"` // all channels, used or not
	Browser  BrowserReport             `json:"browser"`
	Last     []Arrival                 `json:"last"` // the ten newest, oldest first
}

// ChannelReport counts one channel.
type ChannelReport struct {
	Requests uint64 `json:"requests"`
	Accepted uint64 `json:"accepted"` // requests answered with success, validate_only aside
	// Distinct counts the deliveries among the accepted requests, known by the
	// payload's carillon key, the apns-id, or webhook-id and receiver.
	Distinct uint64 `json:"distinct"`
	// Duplicates counts accepted requests beyond the first of a delivery. A
	// request that met a reset was not accepted: the sender is right to repeat it.
	Duplicates uint64 `json:"duplicates"`
	// Answers counts by status and reason: "200", "404 UNREGISTERED", "reset".
	Answers map[string]uint64 `json:"answers"`
	// Latency is from the making of a notification, as its id tells, to the
	// first accepted request. It is exact to a sixteenth.
	Latency Latency `json:"latency"`
}

// Latency is in milliseconds.
type Latency struct {
	Count uint64 `json:"count"`
	P50   int64  `json:"p50_ms"`
	P99   int64  `json:"p99_ms"`
	Max   int64  `json:"max_ms"`
}

// BrowserReport is what real browsers said on the push socket.
type BrowserReport struct {
	Connected     int64 `json:"connected"`
	Delivered     int64 `json:"delivered"`     // decrypted and handed to the service worker
	Undecryptable int64 `json:"undecryptable"` // the browser could not decrypt
	Failed        int64 `json:"failed"`        // not delivered, or the worker's handler failed
}

// Arrival is one request as it came and was answered.
type Arrival struct {
	Seq      uint64            `json:"seq"` // counts up over all channels
	Channel  Channel           `json:"channel"`
	Target   string            `json:"target"` // token, "topic:<name>", push id, receiver's name
	Delivery string            `json:"delivery,omitempty"`
	At       time.Time         `json:"at"`
	Status   int               `json:"status"` // 0: nothing was answered
	Reason   string            `json:"reason,omitempty"`
	Detail   string            `json:"detail,omitempty"` // what was wrong with the request
	Accepted bool              `json:"accepted"`
	Payload  Payload           `json:"payload,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"` // never the credential
}

// Payload is the body, for web push the decrypted one. In JSON it stands as it
// is if it is JSON, and else as a string.
type Payload []byte

// MarshalJSON implements json.Marshaler.
func (p Payload) MarshalJSON() ([]byte, error) {
	if json.Valid(p) {
		return p, nil
	}
	return json.Marshal(string(p))
}

// UnmarshalJSON reads what MarshalJSON wrote; JSON may have been indented.
func (p *Payload) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		var s string
		err := json.Unmarshal(b, &s)
		*p = Payload(s)
		return err
	}
	*p = bytes.Clone(b)
	return nil
}

// Filter chooses arrivals; empty fields choose all.
type Filter struct {
	Channel  Channel
	Target   string // also the URL of an endpoint
	Delivery string
	Limit    int // the newest so many; 0: all that are kept
}

// lastArrivals is how many a report shows.
const lastArrivals = 10

// Report counts everything so far.
func (s *Simulator) Report() Report {
	r := s.core.rec
	out := Report{Since: time.Unix(0, r.since.Load()).UTC(), Channels: map[Channel]ChannelReport{},
		Browser: BrowserReport{r.browser.connected.Load(), r.browser.delivered.Load(),
			r.browser.undecryptable.Load(), r.browser.failed.Load()}}
	latency := map[Channel]*histogram{}
	for _, ch := range Channels() {
		out.Channels[ch] = ChannelReport{Answers: map[string]uint64{}}
		latency[ch] = &histogram{}
	}
	for i := range r.shards {
		r.shards[i].addTo(&out, latency)
	}
	for ch, h := range latency {
		c := out.Channels[ch]
		c.Latency = Latency{Count: h.count, P50: h.quantile(0.50), P99: h.quantile(0.99), Max: h.max}
		out.Channels[ch] = c
	}
	out.Last = s.Arrivals(Filter{Limit: lastArrivals})
	return out
}

func (s *shard) addTo(out *Report, latency map[Channel]*histogram) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, n := range s.answers {
		c := out.Channels[key.channel]
		c.Requests += n
		out.Requests += n
		if key.accepted {
			c.Accepted += n
			out.Accepted += n
		}
		c.Answers[key.String()] += n
		out.Channels[key.channel] = c
	}
	for ch, t := range s.unique {
		c := out.Channels[ch]
		c.Distinct += t.distinct
		c.Duplicates += t.duplicates
		out.Channels[ch] = c
		latency[ch].merge(&t.latency)
	}
}

func (k answerKey) String() string {
	switch {
	case k.status == 0:
		return k.reason
	case k.reason == "":
		return fmt.Sprint(k.status)
	}
	return fmt.Sprintf("%d %s", k.status, k.reason)
}

// Arrivals lists what is kept and fits f, oldest first.
func (s *Simulator) Arrivals(f Filter) []Arrival {
	f.Target = canonicalTarget(f.Target)
	var found []*entry
	rec := s.core.rec
	newest := rec.seq.Load()
	for n := uint64(0); n < uint64(len(rec.ring)) && n < newest; n++ {
		e := rec.ring[(newest-1-n)%uint64(len(rec.ring))].Load()
		if e == nil || f.Channel != "" && e.channel != f.Channel || f.Target != "" && e.target != f.Target ||
			f.Delivery != "" && e.delivery != f.Delivery {
			continue
		}
		if found = append(found, e); len(found) == f.Limit {
			break
		}
	}
	slices.SortFunc(found, func(a, b *entry) int { return cmp.Compare(a.seq, b.seq) })
	out := make([]Arrival, len(found))
	for i, e := range found {
		out[i] = Arrival{Seq: e.seq, Channel: e.channel, Target: e.target, Delivery: e.delivery, At: e.at.UTC(),
			Status: e.status, Reason: e.reason, Detail: e.detail, Accepted: e.accepted,
			Payload: bytes.Clone(e.payload), Headers: pickHeaders(e.header)}
	}
	return out
}

// pickHeaders keeps the headers that mean something to a channel.
func pickHeaders(h http.Header) map[string]string {
	out := map[string]string{}
	for name, values := range h {
		switch {
		case strings.HasPrefix(name, "Apns-"), strings.HasPrefix(name, "Webhook-"), strings.HasPrefix(name, "Carillon-"):
		case name == "Ttl", name == "Topic", name == "Urgency", name == "Content-Encoding", name == "Content-Type",
			name == "User-Agent", name == "Traceparent":
		default:
			continue
		}
		out[strings.ToLower(name)] = strings.Join(values, ", ")
	}
	return out
}

// Accepted is how often a delivery was accepted on a channel, of all requests
// and not only of those that are kept. target counts for webhooks alone: the
// receiver's name or URL.
func (s *Simulator) Accepted(ch Channel, target, delivery string) int {
	return s.core.rec.accepted(ch, canonicalTarget(target), delivery)
}

// Reset forgets arrivals, counts, and how often faults were met.
func (s *Simulator) Reset() {
	s.core.faults.restart()
	s.core.rec.reset()
}

// Wait returns as soon as the report satisfies ok, or with the error of ctx. It
// looks again after every change and never by the clock.
func (s *Simulator) Wait(ctx context.Context, ok func(Report) bool) error {
	rec := s.core.rec
	rec.waiters.Add(1)
	defer rec.waiters.Add(-1)
	for {
		changed := rec.change()
		if ok(s.Report()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.core.ctx.Done():
			return http.ErrServerClosed
		}
	}
}
