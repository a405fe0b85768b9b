package simulator

import (
	"hash/maphash"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/ids"
)

// shardCount spreads the counters; a power of two.
const shardCount = 16

// recorder counts every exchange and keeps the newest ones in full. It costs
// about a microsecond an exchange and two dozen bytes per distinct delivery.
type recorder struct {
	now    func() time.Time
	seed   maphash.Seed
	seq    atomic.Uint64
	ring   []atomic.Pointer[entry]
	since  atomic.Int64 // Unix nanoseconds of the start or the last reset
	shards [shardCount]shard

	browser browserCounts

	waiters atomic.Int32
	mu      sync.Mutex
	changed chan struct{} // closed and replaced by a change while somebody waits
}

// shard holds the counts of the deliveries that hash to it, so that both
// arrivals of a duplicate meet in one.
type shard struct {
	mu      sync.Mutex
	answers map[answerKey]uint64
	seen    map[uint64]uint32 // hash of a delivery -> accepted arrivals
	unique  map[Channel]*tally
}

type answerKey struct {
	channel  Channel
	status   int
	reason   string
	accepted bool
}

// tally counts the deliveries of a channel, as opposed to its requests.
type tally struct {
	distinct, duplicates uint64
	latency              histogram
}

// entry is an arrival as it is kept: headers are picked only when it is read.
type entry struct {
	seq      uint64
	at       time.Time
	channel  Channel
	target   string
	delivery string
	payload  []byte
	header   http.Header
	status   int
	reason   string
	detail   string
	accepted bool
}

// browserCounts are what a real browser says about notifications it got.
type browserCounts struct {
	connected, delivered, undecryptable, failed atomic.Int64
}

func newRecorder(now func() time.Time, keep int) *recorder {
	r := &recorder{now: now, seed: maphash.MakeSeed(), ring: make([]atomic.Pointer[entry], keep),
		changed: make(chan struct{})}
	r.reset()
	return r
}

func (r *recorder) reset() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		s.answers, s.seen, s.unique = map[answerKey]uint64{}, map[uint64]uint32{}, map[Channel]*tally{}
		s.mu.Unlock()
	}
	for i := range r.ring {
		r.ring[i].Store(nil)
	}
	r.browser.delivered.Store(0)
	r.browser.undecryptable.Store(0)
	r.browser.failed.Store(0)
	r.since.Store(r.now().UnixNano())
	r.signal()
}

func (r *recorder) record(x *exchange, h http.Header) {
	at := r.now()
	seq := r.seq.Add(1)
	key := r.hash(x.channel, x.target, x.delivery)
	if x.delivery == "" {
		key = seq
	}
	s := &r.shards[key%shardCount]
	s.mu.Lock()
	s.answers[answerKey{x.channel, x.answer.status, x.answer.reason, x.answer.accepted}]++
	if x.answer.accepted && x.delivery != "" {
		s.count(x.channel, key, x.delivery, at)
	}
	s.mu.Unlock()
	r.ring[(seq-1)%uint64(len(r.ring))].Store(&entry{seq: seq, at: at, channel: x.channel, target: x.target,
		delivery: x.delivery, payload: x.payload, header: h, status: x.answer.status, reason: x.answer.reason,
		detail: x.answer.detail, accepted: x.answer.accepted})
	r.signal()
}

// count notes an accepted delivery; the caller holds the lock.
func (s *shard) count(ch Channel, key uint64, delivery string, at time.Time) {
	t := s.unique[ch]
	if t == nil {
		t = &tally{}
		s.unique[ch] = t
	}
	s.seen[key]++
	if s.seen[key] > 1 {
		t.duplicates++
		return
	}
	t.distinct++
	if made, ok := madeAt(delivery); ok {
		t.latency.add(at.Sub(made).Milliseconds())
	}
}

// madeAt reads the time of a delivery's notification out of its id. The ids of
// other senders have none.
func madeAt(delivery string) (time.Time, bool) {
	if notification, _, err := ids.ParseDelivery(delivery); err == nil {
		return notification.Time(), true
	}
	if notification, err := ids.Parse(ids.Notification, delivery); err == nil {
		return notification.Time(), true
	}
	return time.Time{}, false
}

// hash names a delivery: by its id, for webhooks by id and receiver.
func (r *recorder) hash(ch Channel, target, delivery string) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	h.WriteString(string(ch))
	h.WriteByte(0)
	if ch == Webhook {
		h.WriteString(target)
		h.WriteByte(0)
	}
	h.WriteString(delivery)
	return h.Sum64()
}

// accepted is how often a delivery was accepted.
func (r *recorder) accepted(ch Channel, target, delivery string) int {
	key := r.hash(ch, target, delivery)
	s := &r.shards[key%shardCount]
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.seen[key])
}

// signal wakes those who wait for a change.
func (r *recorder) signal() {
	if r.waiters.Load() == 0 {
		return
	}
	r.mu.Lock()
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
}

// change is closed by the next change after this call.
func (r *recorder) change() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}
