package torture_test

import (
	"sync"
	"time"
)

// reference names a delivery as the answer to a notification does.
type reference struct {
	ID      string `json:"id"`
	Channel string `json:"channel"`
	Target  string `json:"target"`
}

// promise is a notification that was answered with 202: from then on it is ours
// to deliver or to explain.
type promise struct {
	ID         string      `json:"id"`
	Scheduled  bool        `json:"scheduled"`
	Deliveries []reference `json:"deliveries"`
	Skips      []struct {
		Reason string `json:"reason"`
	} `json:"skips"`

	SendAt time.Time `json:"-"`
	// Canceling: somebody asked for it, and may not know whether it worked.
	Canceling bool `json:"-"`
	// CanceledAhead: it was canceled, and the answer came before its time.
	CanceledAhead bool      `json:"-"`
	CanceledAt    time.Time `json:"-"` // when that answer came
	At            time.Time `json:"-"` // when the promise was made
}

// stored is a delivery as the API shows it.
type stored struct {
	ID           string `json:"id"`
	Notification string `json:"notification"`
	Target       string `json:"target"`
	Channel      string `json:"channel"`
	State        string `json:"state"`
	Reason       string `json:"reason"`
	Round        int    `json:"round"`
	Unknown      bool   `json:"unknown"`
}

func (d *stored) final() bool {
	return d.State == "sent" || d.State == "dropped" || d.State == "dead"
}

// ledger is what callers know: what they were promised, and what they asked for
// without getting an answer.
type ledger struct {
	mu       sync.Mutex
	open     map[string]*promise // by notification, until judged
	keys     map[string]*keyed   // posts with an Idempotency-Key, by type
	canceled map[string]bool     // notifications that a cancel was asked for, answered or not
	refused  map[string]int      // 4xx answers to good requests
	broken   int                 // calls without an answer
	accepted int                 // answers 202 to posts
	replays  int                 // answered
	cancels  int                 // answered
}

// keyed is a post that is repeated until it is answered.
type keyed struct {
	Type    string
	Body    map[string]any
	Answers map[string]bool // ids of the notifications that answers named
	Tries   int
	SendAt  time.Time
	At      time.Time // of the first answer
}

func newLedger() *ledger {
	return &ledger{open: map[string]*promise{}, keys: map[string]*keyed{}, canceled: map[string]bool{}, refused: map[string]int{}}
}

// promised notes a 202.
func (l *ledger) promised(p *promise) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted++
	p.At = time.Now()
	l.open[p.ID] = p
}

// some gives up to n notifications that are not judged yet.
func (l *ledger) some(n int) []*promise {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*promise
	for _, p := range l.open {
		if len(out) == n {
			break
		}
		out = append(out, p)
	}
	return out
}

// forgive takes back what was promised since a backup was begun that has been
// restored. Keys stay: their callers ask again.
func (l *ledger) forgive(since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, p := range l.open {
		if p.At.After(since) {
			delete(l.open, id)
		}
		if p.CanceledAt.After(since) {
			p.CanceledAhead = false
		}
	}
	for _, k := range l.keys {
		if k.At.After(since) {
			clear(k.Answers)
		}
	}
}

// with changes a ledger under its lock.
func (l *ledger) with(do func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	do()
}
