package delivery

import (
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// The breaker of a credential version opens when more than a fifth of the last
// verdicts called the target gone, once there are enough to tell, and of enough
// users: nobody opens it alone.
const (
	breakerWindow  = 200
	breakerLeast   = 20
	breakerPercent = 20
	// breakerPerUser is how many of a user's devices count that are gone.
	breakerPerUser = 2
	// verdictsLast is how long the last verdicts on one node count on the others.
	verdictsLast = 10 * time.Minute
	// verdictsAgain is when verdicts are sent again that sum up to the same.
	verdictsAgain = time.Minute
)

// versionKey is a version of a credential.
type versionKey struct {
	credential ids.ID
	version    int
}

// Verdicts are the last ones that a credential version gave.
type Verdicts struct {
	Credential ids.ID
	Version    int
	Seen, Gone int
	Since      time.Time // of the oldest
	Newest     time.Time
}

func (v *Verdicts) key() versionKey { return versionKey{v.Credential, v.Version} }

// breakers keep what each credential version says of its targets.
type breakers struct {
	mu       sync.Mutex
	versions map[versionKey]*breaker
	others   map[versionKey]Verdicts // of the other nodes, summed up
}

// breaker is that of a version, with the window of its last verdicts.
type breaker struct {
	proven      bool
	gone        [breakerWindow]uint8 // halves: one that never worked has half a voice
	user        [breakerWindow]ids.ID
	when        [breakerWindow]time.Time
	seen        int            // verdicts in the window
	next        int            // where the next one goes
	goneHalves  int            // of those seen
	goneOf      map[ids.ID]int // how many of those seen are of a user, for each who has one
	open        bool
	lastSuccess time.Time
	sent        Verdicts // what the other nodes know of it
}

// noted is what a verdict did to the breaker of its version.
type noted struct {
	proven bool
	open   bool
	first  bool      // it is the first success
	opened bool      // the breaker opened with it
	since  time.Time // of the oldest verdict in the window
}

// witness is who a verdict is about.
type witness struct {
	user   ids.ID
	worked bool // something was sent to it before
	again  bool // it was suspect already: that it is called gone says nothing new
}

// note counts a verdict. proven: the database knows of a success of the version.
func (b *breakers) note(k versionKey, o channels.Outcome, proven bool, w witness, now time.Time) noted {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.versions == nil {
		b.versions = map[versionKey]*breaker{}
	}
	v := b.versions[k]
	if v == nil {
		v = &breaker{proven: proven, goneOf: map[ids.ID]int{}}
		b.versions[k] = v
	}
	first := false
	switch {
	case o == channels.Accepted:
		first, v.proven = !v.proven, true
		v.add(0, w.user, now)
		v.lastSuccess = now
	case o == channels.Gone && !w.again && v.goneOf[w.user] < breakerPerUser:
		halves := uint8(1)
		if w.worked {
			halves = 2
		}
		v.add(halves, w.user, now)
	}
	was := v.open
	v.open = b.opens(k, v)
	return noted{proven: v.proven, open: v.open, first: first, opened: v.open && !was, since: b.since(k, v)}
}

// confirms tells whether a version has had a success since, and its breaker is
// closed: then what it said of devices before is believed.
func (b *breakers) confirms(k versionKey, since time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := b.versions[k]
	return v != nil && !v.open && !v.lastSuccess.IsZero() && !v.lastSuccess.Before(since)
}

// prune forgets versions that are not in use any more.
func (b *breakers) prune(inUse map[ids.ID]int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.versions {
		if newest, used := inUse[k.credential]; !used || k.version < newest {
			delete(b.versions, k)
		}
	}
}

// pending lists the versions whose verdicts the other nodes have to know: of a
// version that nobody has heard "gone" from, they need not.
func (b *breakers) pending(now time.Time) []Verdicts {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []Verdicts
	for k, v := range b.versions {
		_, asked := b.others[k]
		if v.seen == 0 || v.goneHalves == 0 && v.sent.Gone == 0 && !asked {
			continue
		}
		n := Verdicts{Credential: k.credential, Version: k.version, Seen: v.seen, Gone: (v.goneHalves + 1) / 2, Since: v.oldest(), Newest: v.newest()}
		same := n.Seen == v.sent.Seen && n.Gone == v.sent.Gone
		if now.Sub(n.Newest) < verdictsLast && (!same || n.Newest.Sub(v.sent.Newest) > verdictsAgain) {
			list = append(list, n)
		}
	}
	return list
}

// markSent notes what the other nodes know now.
func (b *breakers) markSent(list []Verdicts) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range list {
		if v := b.versions[n.key()]; v != nil {
			v.sent = n
		}
	}
}

// merge takes up the verdicts of the other nodes. It lists the versions whose
// breakers open with them, each with the time of the oldest verdict.
func (b *breakers) merge(list []Verdicts) map[versionKey]time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.others = make(map[versionKey]Verdicts, len(list))
	for _, n := range list {
		b.others[n.key()] = n
	}
	opened := map[versionKey]time.Time{}
	for k, v := range b.versions {
		was := v.open
		if v.open = b.opens(k, v); v.open && !was {
			opened[k] = b.since(k, v)
		}
	}
	return opened
}

// opens tells whether the verdicts of all nodes open the breaker of a version.
func (b *breakers) opens(k versionKey, v *breaker) bool {
	others := b.others[k]
	seen, halves := v.seen+others.Seen, v.goneHalves+2*others.Gone
	return seen >= breakerLeast && halves*100 > 2*seen*breakerPercent && len(v.goneOf) >= evidenceUsers
}

// since is the time of the oldest verdict that counts.
func (b *breakers) since(k versionKey, v *breaker) time.Time {
	at := v.oldest()
	if o, ok := b.others[k]; ok && (v.seen == 0 || o.Since.Before(at)) {
		at = o.Since
	}
	return at
}

// add takes a verdict into the window, in the place of the oldest. halves: 0 unless
// the target is gone.
func (v *breaker) add(halves uint8, user ids.ID, now time.Time) {
	if v.seen < breakerWindow {
		v.seen++
	} else if old := v.gone[v.next]; old > 0 {
		v.goneHalves -= int(old)
		if v.goneOf[v.user[v.next]]--; v.goneOf[v.user[v.next]] == 0 {
			delete(v.goneOf, v.user[v.next])
		}
	}
	if halves > 0 {
		v.goneHalves += int(halves)
		v.goneOf[user]++
	}
	v.gone[v.next], v.user[v.next], v.when[v.next] = halves, user, now
	v.next = (v.next + 1) % breakerWindow
}

// oldest is the time of the oldest verdict in the window.
func (v *breaker) oldest() time.Time {
	if v.seen == breakerWindow {
		return v.when[v.next]
	}
	return v.when[0]
}

func (v *breaker) newest() time.Time {
	return v.when[(v.next+breakerWindow-1)%breakerWindow]
}
