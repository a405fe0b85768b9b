package delivery

import (
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// The breaker of a credential version: it opens when more than a fifth of the
// last verdicts called the target gone, once there are enough to tell.
const (
	breakerWindow  = 200
	breakerLeast   = 20
	breakerPercent = 20
)

type versionKey struct {
	credential ids.ID
	version    int
}

// health keeps what the verdicts of each credential version say about it.
type health struct {
	mu       sync.Mutex
	versions map[versionKey]*record
	others   map[versionKey]Verdicts // of the other nodes, summed up
}

type record struct {
	proven bool
	gone   [breakerWindow]bool
	when   [breakerWindow]time.Time
	n      int // verdicts in the window
	at     int // where the next one goes
	dead   int // of the n
	open   bool
	last   time.Time // the newest success
	told   Verdicts  // what the other nodes know of it
}

// opinion is what a verdict did to the health of its credential version.
type opinion struct {
	Health
	first  bool      // the first success
	opened bool      // the breaker opened with it
	since  time.Time // of the oldest verdict in the window
}

// verdict notes a verdict and tells how far it can be trusted. again: the device
// was suspect already, so its being called gone says nothing new.
func (h *health) verdict(k versionKey, r channels.Result, proven, again bool, now time.Time) opinion {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.versions == nil {
		h.versions = map[versionKey]*record{}
	}
	v := h.versions[k]
	if v == nil {
		v = &record{proven: proven}
		h.versions[k] = v
	}
	var o opinion
	switch r.Outcome {
	case channels.Accepted:
		o.first = !v.proven
		v.proven = true
		v.note(false, now)
		v.last = now
	case channels.Gone:
		if !again {
			v.note(true, now)
		}
	default:
	}
	was := v.open
	v.open = h.trips(k, v)
	o.opened = v.open && !was
	o.Health = Health{Proven: v.proven, BreakerOpen: v.open}
	o.since = h.since(k, v)
	return o
}

// confirms tells whether a version has had a success since, and its breaker is
// closed: then what it said of devices before is believed.
func (h *health) confirms(k versionKey, since time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.versions[k]
	return v != nil && !v.open && !v.last.IsZero() && !v.last.Before(since)
}

func (v *record) note(gone bool, now time.Time) {
	if v.n < breakerWindow {
		v.n++
	} else if v.gone[v.at] {
		v.dead--
	}
	if gone {
		v.dead++
	}
	v.gone[v.at], v.when[v.at] = gone, now
	v.at = (v.at + 1) % breakerWindow
}

// prune forgets versions that are not in use any more.
func (h *health) prune(inUse map[ids.ID]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k := range h.versions {
		if newest, keep := inUse[k.credential]; !keep || k.version < newest {
			delete(h.versions, k)
		}
	}
}
