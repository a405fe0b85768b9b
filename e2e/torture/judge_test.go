package torture_test

import (
	"fmt"
	"slices"
	"time"
)

// evidence is what a round left behind: what was promised, what is stored, and
// what the providers saw.
type evidence struct {
	Promises []*promise         // those whose time has come
	Stored   map[string]*stored // every delivery of the round's time, promised or not
	// Notifications are those without a reference to a delivery: scheduled ones,
	// and those that nobody could get. nil: there is no such notification.
	Notifications map[string]*notification
	Keys          []*keyed
	// Copies is how many notifications are stored of each type of Keys.
	Copies map[string]int
	Seen   func(*stored) int
	// Before is how often a delivery had been seen when a backup was restored, that
	// may not know of it.
	Before map[string]int
	// AtMostOnce tells whether the caller of a notification asked for that.
	AtMostOnce func(notification string) bool
	// Ambiguous tells whether an attempt of a delivery was written and not answered.
	Ambiguous func(*stored) bool
	// Poisoned and Doomed are targets whose provider rejects everything, or says
	// that they are gone.
	Poisoned, Doomed map[string]bool
	Canceled         map[string]bool // notifications that somebody asked to cancel
	Violations       []string        // of invariants
	Crashes          []string        // processes that ended by themselves
	Refused          map[string]int  // good requests that were refused
	Accepted         int             // in this round
}

// notification is one as the API shows it.
type notification struct {
	ID        string         `json:"id"`
	Scheduled bool           `json:"scheduled"`
	Canceled  bool           `json:"canceled"`
	Counts    map[string]int `json:"counts"`
	Skips     []struct {
		Reason string `json:"reason"`
	} `json:"skips"`
}

// finding is a promise that was not kept. Kind is one of the constants below.
type finding struct{ Kind, Detail string }

const (
	lost        = "lost"        // a 202 whose notification or delivery is not stored
	unfinished  = "unfinished"  // stored, and still not at its end
	unexplained = "unexplained" // dropped or dead without a reason, or for one that is not true
	phantom     = "phantom"     // sent, but its provider never took it
	duplicate   = "duplicate"   // taken more than once, and not flagged
	repeated    = "repeated"    // one Idempotency-Key, not one notification
	uncanceled  = "uncanceled"  // canceled ahead of its time, and sent all the same
	unsound     = "unsound"     // an invariant does not hold
	crash       = "crash"       // a process ended by itself
	refusal     = "refusal"     // a good request was refused for good
	blind       = "blind"       // the round proves nothing
)

// verdict is what a round comes to.
type verdict struct {
	findings   []finding
	accepted   int
	deliveries int
	states     map[string]int // and "dead: reason"
	flagged    int            // duplicates that say so
	unflagged  int
}

func (v *verdict) find(kind, format string, args ...any) {
	v.findings = append(v.findings, finding{kind, fmt.Sprintf(format, args...)})
}

// judge compares what was promised with what is stored and with what the
// providers saw. It is pure, and tested with faults that are planted.
func judge(e evidence) *verdict {
	v := &verdict{states: map[string]int{}, accepted: e.Accepted}
	for _, p := range e.Promises {
		v.promise(&e, p)
	}
	for _, d := range e.Stored {
		v.delivery(&e, d)
	}
	for _, k := range e.Keys {
		v.key(&e, k)
	}
	for _, s := range e.Violations {
		v.find(unsound, "%s", s)
	}
	for _, s := range e.Crashes {
		v.find(crash, "%s", s)
	}
	for s, n := range e.Refused {
		v.find(refusal, "%d times: %s", n, s)
	}
	if e.Accepted == 0 {
		v.find(blind, "nothing was accepted")
	}
	return v
}

func (v *verdict) promise(e *evidence, p *promise) {
	for _, r := range p.Deliveries {
		if e.Stored[r.ID] == nil {
			v.find(lost, "delivery %s of %s", r.ID, p.ID)
		}
	}
	if len(p.Deliveries) > 0 {
		return
	}
	n := e.Notifications[p.ID]
	if n == nil {
		v.find(lost, "notification %s (scheduled: %v)", p.ID, p.Scheduled)
		return
	}
	made := 0
	for _, count := range n.Counts {
		made += count
	}
	switch {
	case n.Scheduled:
		v.find(unfinished, "%s is still scheduled, %s after its time", p.ID, time.Since(p.SendAt).Truncate(time.Millisecond))
	case p.CanceledAhead && n.Counts["sent"] > 0:
		v.find(uncanceled, "%s has %d deliveries sent", p.ID, n.Counts["sent"])
	case made == 0 && len(n.Skips) == 0 && !(n.Canceled && p.Canceling):
		v.find(lost, "%s has neither a delivery nor a skip", p.ID)
	}
}

func (v *verdict) delivery(e *evidence, d *stored) {
	v.deliveries++
	seen := e.Seen(d)
	switch d.State {
	case "sent":
		if seen == 0 {
			v.find(phantom, "%s by %s", d.ID, d.Channel)
		}
	case "dropped", "dead":
		if why := unfounded(e, d); why != "" {
			v.find(unexplained, "%s by %s is %s (%s): %s", d.ID, d.Channel, d.State, d.Reason, why)
		}
	default:
		v.find(unfinished, "%s by %s is %s (%s)", d.ID, d.Channel, d.State, d.Reason)
	}
	if v.states[d.State]++; d.State == "dead" {
		v.states["dead: "+d.Reason]++
	}
	if seen -= e.Before[d.ID]; seen < 2 {
		return
	}
	// Who asked for at most once and did not replay it gets it once at most.
	atMostOnce := e.AtMostOnce(d.Notification)
	if allowed := !atMostOnce || d.Round > 1; allowed && (d.Unknown || e.Ambiguous(d)) {
		v.flagged++
		return
	}
	v.unflagged++
	v.find(duplicate, "%s reached the %s provider %d times (at most once: %v, round %d, unknown: %v)", d.ID, d.Channel, seen, atMostOnce, d.Round, d.Unknown)
}

// unfounded tells why the reason of a delivery that was not sent cannot be true.
func unfounded(e *evidence, d *stored) string {
	isTrue := map[string]bool{
		"dropped canceled": e.Canceled[d.Notification],
		"dropped gone":     e.Doomed[d.Target],
		"dead rejected":    e.Poisoned[d.Target],
		"dead ambiguous":   d.Reason == "ambiguous" && e.AtMostOnce(d.Notification),
		"dead exhausted":   true, // all tries met a fault
		"dead crashed":     d.Unknown,
	}
	founded, known := isTrue[d.State+" "+d.Reason]
	switch {
	case d.Reason == "":
		return "there is no reason"
	case !known:
		return "nothing here gives cause for this reason"
	case !founded:
		return "the reason is not true"
	}
	return ""
}

func (v *verdict) key(e *evidence, k *keyed) {
	switch {
	case len(k.Answers) != 1:
		var named []string
		for id := range k.Answers {
			named = append(named, id)
		}
		slices.Sort(named)
		v.find(repeated, "%s: %d answers to %d tries name %v", k.Type, len(k.Answers), k.Tries, named)
	case e.Copies[k.Type] == 0:
		v.find(lost, "%s was answered and is not stored", k.Type)
	case e.Copies[k.Type] > 1:
		v.find(repeated, "%s is stored %d times", k.Type, e.Copies[k.Type])
	}
}
