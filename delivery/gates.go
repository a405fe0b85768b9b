package delivery

import (
	"encoding/binary"
	"encoding/hex"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// gates stop everything in a scope for a while, after its provider said "too
// fast" or could not be reached. They live in memory: a node that is alone and
// starts finds out by one request, others are told (see shared.go).
type gates struct {
	mu     sync.Mutex
	closed map[flowKey]gate
}

// gate is closed until a time. One that has to be closed again soon after it
// opened, without a success in between, stays closed for twice as long, up to
// maxGate: what it stops should not be claimed and put back again and again.
type gate struct {
	until time.Time
	wait  time.Duration
	wide  bool      // for all nodes
	told  time.Time // until when it is closed as the other nodes know it
}

const (
	maxGate = 5 * time.Minute
	// gateSoon is how long after opening a refusal still counts as the same
	// trouble: who is refused later has been served in between.
	gateSoon = 5 * time.Second
)

// gateOf names the gate of a scope. An endpoint has one gate, whatever the scope.
func gateOf(s channels.Scope, it *item, credential ids.ID) flowKey {
	switch {
	case it.Channel == channels.Webhook:
		return flowKey{id: it.Target}
	case s == channels.ScopeOrigin:
		return flowKey{id: credential, origin: originOf(it.now.Target.Address)}
	case s == channels.ScopeCredential:
		return flowKey{id: credential}
	}
	return flowKey{id: it.Target}
}

// gatesOf lists the gates that an item has to pass.
func gatesOf(it *item, cred *tenants.Credential) [3]flowKey {
	k := [3]flowKey{{id: it.Target}}
	if cred != nil {
		k[1] = flowKey{id: cred.ID}
		if it.Channel == channels.WebPush {
			k[2] = flowKey{id: cred.ID, origin: originOf(it.now.Target.Address)}
		}
	}
	return k
}

func (g *gates) close(k flowKey, until, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = map[flowKey]gate{}
	}
	old, again := g.closed[k]
	if again && old.until.After(now) { // by another send that was under way
		if until.After(old.until) {
			old.until = until
			g.closed[k] = old
		}
		return
	}
	wait := until.Sub(now)
	if again && now.Sub(old.until) < gateSoon {
		wait = max(wait, min(2*old.wait, maxGate))
	}
	g.closed[k] = gate{until: now.Add(wait), wait: wait}
}

// calm notes a success: trouble that comes after it is new, and not the old one
// that a gate should wait for longer and longer. A gate that is closed stays so.
func (g *gates) calm(keys [3]flowKey, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.closed) == 0 {
		return
	}
	for _, k := range keys {
		x, ok := g.closed[k]
		switch {
		case !ok:
		case x.until.After(now):
			x.wait = 0
			g.closed[k] = x
		default:
			delete(g.closed, k)
		}
	}
}

// until is when the last of the gates opens; zero: all are open.
func (g *gates) until(keys [3]flowKey, now time.Time) time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	var last time.Time
	for _, k := range keys {
		if at := g.closed[k].until; k.id != 0 && at.After(now) {
			last = latest(last, at)
		}
	}
	return last
}

// sweep forgets gates that have stayed open for as long as they were closed.
func (g *gates) sweep(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for k, x := range g.closed {
		if now.Sub(x.until) > x.wait {
			delete(g.closed, k)
		}
	}
}

// uuidOf derives a UUID (version 8, RFC 9562) from a delivery, the same on every
// attempt: APNs takes it as apns-id.
func uuidOf(notification, target ids.ID) string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], uint64(notification))
	binary.BigEndian.PutUint64(b[8:], uint64(target))
	// The version takes four bits, which are folded into the top of the first
	// byte; the variant takes two that no id sets before 2060.
	b[0] ^= b[6] & 0xf0
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	var out [36]byte
	hex.Encode(out[:8], b[:4])
	out[8] = '-'
	hex.Encode(out[9:13], b[4:6])
	out[13] = '-'
	hex.Encode(out[14:18], b[6:8])
	out[18] = '-'
	hex.Encode(out[19:23], b[8:10])
	out[23] = '-'
	hex.Encode(out[24:], b[10:])
	return string(out[:])
}
