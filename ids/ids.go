// Package ids makes and prints the identifiers of everything Carillon stores.
//
// An ID is a positive 63-bit integer that grows with time:
//
//	41 bits milliseconds since 2025-01-01 | 10 bits node | 12 bits sequence
//
// The node that makes an id needs no database for it, so no insert has to read
// a generated key back, and rows that belong together lie together. People see
// ids as a prefix that names the kind and 13 digits of lower-case Crockford
// base32: ntf_0d1kq3w8r000c. Text order is number order.
package ids

import (
	"errors"
	"strings"
	"sync"
	"time"
)

// ID identifies a row. Zero is never a valid id.
type ID int64

// Prefixes of what people see.
const (
	Tenant       = "ten"
	Key          = "key"
	Notification = "ntf"
	Delivery     = "dlv"
	Device       = "dev"
	Endpoint     = "whe"
	Credential   = "crd"
	Hold         = "hld"
	UserKey      = "usk"
	Job          = "job"
	Erasure      = "ers"
)

const (
	epochMillis = 1735689600000 // 2025-01-01T00:00:00Z
	nodeBits    = 10
	seqBits     = 12
	// MaxNode is the largest node number.
	MaxNode  = 1<<nodeBits - 1
	digits   = 13 // 65 bits: enough for 63
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
)

// ErrBadID says that a text is not an id of the wanted kind.
var ErrBadID = errors.New("not an id of this kind")

// Generator makes ids. It is safe for concurrent use and never goes backwards,
// even when the clock does: it then counts on from the last id it made.
type Generator struct {
	node int64
	now  func() time.Time
	mu   sync.Mutex
	last int64 // millis<<seqBits | seq of the newest id
}

// NewGenerator makes ids for a node, 0 to MaxNode. now is time.Now outside tests.
func NewGenerator(node int, now func() time.Time) *Generator {
	return &Generator{node: int64(node & MaxNode), now: now}
}

// Node is the number that ids are made with.
func (g *Generator) Node() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int(g.node)
}

// Assign gives the generator another node number. Its ids are for later than
// after, until when another holder of the number may have made some.
func (g *Generator) Assign(node int, after time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.node = int64(node & MaxNode)
	if at := (after.UnixMilli() - epochMillis + 1) << seqBits; !after.IsZero() && at > g.last {
		g.last = at
	}
}

// Next makes an id. More than 4,096 in one millisecond borrow from the next one.
func (g *Generator) Next() ID {
	at := (g.now().UnixMilli() - epochMillis) << seqBits
	g.mu.Lock()
	if at <= g.last {
		at = g.last + 1
	}
	g.last = at
	node := g.node
	g.mu.Unlock()
	return ID((at>>seqBits)<<(nodeBits+seqBits) | node<<seqBits | at&(1<<seqBits-1))
}

// Time is when the id was made, to the millisecond.
func (i ID) Time() time.Time {
	return time.UnixMilli(int64(i)>>(nodeBits+seqBits) + epochMillis).UTC()
}

// Node is the number of the node that made the id.
func (i ID) Node() int { return int(i>>seqBits) & MaxNode }

// Before is the smallest id that could have been made at t: a bound for range scans.
func Before(t time.Time) ID {
	return ID(max(t.UnixMilli()-epochMillis, 0) << (nodeBits + seqBits))
}

// Format prints an id with its prefix.
func (i ID) Format(prefix string) string {
	var b [32]byte
	out := append(b[:0], prefix...)
	out = append(out, '_')
	return string(appendDigits(out, uint64(i)))
}

func appendDigits(out []byte, v uint64) []byte {
	for k := digits - 1; k >= 0; k-- {
		out = append(out, alphabet[v>>(5*k)&31])
	}
	return out
}

// Parse reads what Format printed.
func Parse(prefix, s string) (ID, error) {
	rest, ok := strings.CutPrefix(s, prefix+"_")
	if !ok || len(rest) != digits {
		return 0, ErrBadID
	}
	return parseDigits(rest)
}

func parseDigits(s string) (ID, error) {
	var v uint64
	for i := range len(s) {
		d := strings.IndexByte(alphabet, s[i])
		if d < 0 || (i == 0 && d > 7) { // 13 digits hold 65 bits, an id has 63
			return 0, ErrBadID
		}
		v = v<<5 | uint64(d)
	}
	if v == 0 || v>>63 != 0 {
		return 0, ErrBadID
	}
	return ID(v), nil
}

// FormatDelivery prints the id of a delivery: it is its notification and its
// target, so the row needs no column for it.
func FormatDelivery(notification, target ID) string {
	var b [40]byte
	out := append(b[:0], Delivery+"_"...)
	out = appendDigits(out, uint64(notification))
	return string(appendDigits(out, uint64(target)))
}

// DeliveryLen is the length of every delivery id in bytes.
const DeliveryLen = len(Delivery) + 1 + 2*digits

// ParseDelivery reads what FormatDelivery printed.
func ParseDelivery(s string) (notification, target ID, err error) {
	rest, ok := strings.CutPrefix(s, Delivery+"_")
	if !ok || len(rest) != 2*digits {
		return 0, 0, ErrBadID
	}
	if notification, err = parseDigits(rest[:digits]); err != nil {
		return 0, 0, err
	}
	target, err = parseDigits(rest[digits:])
	return notification, target, err
}
