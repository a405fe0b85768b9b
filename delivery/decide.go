package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// What becomes of a delivery is decided in the files decide*.go and nowhere else,
// by pure functions: same arguments, same answer. A test keeps every other file
// from making a Transition.
//
//	decide_claim.go    when a row is claimed: takeovers, and what was canceled
//	decide_before.go   before an attempt: obstacles, deadlines, gates, no room
//	decide_outcome.go  after an attempt: Next
//	decide_amend.go    when it is written: Amend, by what the database knows by now
//	decide_command.go  when somebody asks: cancellation, replay, erasure, ends of holds

// Transition is what becomes of a delivery.
type Transition struct {
	State  State
	Reason Reason
	DueAt  time.Time // pending; held: when it is looked at again; otherwise zero
	Spent  int
	Renew  channels.Renewal
	Device DeviceEffect
	By     ids.ID // superseded: the notification that is newer
	// Hold, unless 0, is what the delivery is held by.
	Hold HoldScope
	// WaitScope and WaitUntil stop everything in a scope for a while.
	WaitScope channels.Scope
	WaitUntil time.Time
	// WiderScope and WiderUntil stop a scope that the answer may be about as well, once
	// enough users were answered so.
	WiderScope channels.Scope
	WiderUntil time.Time
}

// DeviceEffect is what a verdict does to a device. An endpoint that is gone is
// disabled instead of retired.
type DeviceEffect uint8

// The effects.
const (
	DeviceUntouched DeviceEffect = iota
	DeviceRetired                // the address is gone
	DeviceSuspect                // it may be
	DeviceConfirmed              // it works: no longer suspect
	DeviceRefused                // its provider refuses us, for this device as far as is known
)

// Progress is what a decision has to know of a delivery.
type Progress struct {
	Channel    channels.Kind
	Spent      int // attempts of this round that count, before this one
	ExpiresAt  time.Time
	AtMostOnce bool // on_ambiguous: stop
	// Renewed is what the attempt before this one asked for.
	Renewed channels.Renewal
	// MorePairs: the app has VAPID pairs that were not tried.
	MorePairs bool
	// Looked is how long the delivery has waited in doubt since it was refused before;
	// zero: it was not.
	Looked time.Duration
	// Undoubted: neither the device nor the credential's word about devices is in
	// doubt, so a success has nothing to confirm.
	Undoubted bool
}

// unspent puts a delivery back as it was, due again at a time.
func unspent(d Progress, due time.Time) Transition {
	return Transition{State: Pending, DueAt: due, Spent: d.Spent, Renew: d.Renewed}
}

// waitOrExpire keeps the deadline: what could only be sent after it is expired
// now, so that nothing is ever sent late.
func waitOrExpire(d Progress, due time.Time, spent int) Transition {
	if !due.Before(d.ExpiresAt) {
		return expire(d.Channel, spent)
	}
	return Transition{State: Pending, DueAt: due, Spent: spent}
}

// within is a time to wait until, or the deadline where that comes first: what waits for
// something that may end early is kept until then.
func (d *Progress) within(due time.Time) time.Time {
	if due.After(d.ExpiresAt) {
		return d.ExpiresAt
	}
	return due
}

// expire ends a delivery whose deadline has passed: a push does not matter any
// more, a webhook can still be replayed.
func expire(k channels.Kind, spent int) Transition {
	if k == channels.Webhook {
		return Transition{State: Dead, Reason: Expired, Spent: spent}
	}
	return Transition{State: Dropped, Reason: Expired, Spent: spent}
}

// cancel ends what a canceled notification has not sent.
func cancel(spent int) Transition {
	return Transition{State: Dropped, Reason: Canceled, Spent: spent}
}

// supersede ends a delivery that a newer notification with its collapse key took the
// place of.
func supersede(by ids.ID, spent int) Transition {
	return Transition{State: Dropped, Reason: Superseded, Spent: spent, By: by}
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
