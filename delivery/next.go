package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
)

// throttleFloor is the least wait after "too fast" where nobody names one.
const throttleFloor = 10 * time.Second

// throttleLeast holds even where a tenant's policy lowers the floor: being
// throttled spends no attempt, so without a wait it would never end.
const throttleLeast = time.Second

// Progress is what Next has to know of a delivery.
type Progress struct {
	Channel    channels.Kind
	Spent      int // attempts of this round that count, before this one
	ExpiresAt  time.Time
	AtMostOnce bool // on_ambiguous: stop
	// Renewed is what the attempt before this one asked for.
	Renewed channels.Renewal
}

// Health is how much a verdict of a credential may be trusted.
type Health struct {
	// Proven: this version has had a success.
	Proven bool
	// BreakerOpen: so many targets were called gone lately that the credential
	// itself is in doubt.
	BreakerOpen bool
	// Stale: the credential has a newer version than the one that was used.
	Stale bool
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
)

// Transition is what becomes of a delivery after an attempt. It is made by Next
// and by the few functions beside it, and by nothing else.
type Transition struct {
	State  State
	Reason Reason
	DueAt  time.Time // pending only
	Spent  int
	Renew  channels.Renewal
	Device DeviceEffect
	// Hold, unless 0, is what the delivery is held by.
	Hold HoldScope
	// WaitScope and WaitUntil stop everything in a scope for a while.
	WaitScope channels.Scope
	WaitUntil time.Time
}

// Next decides what an attempt means. It is pure: same arguments, same answer.
// jitter is a random number from 0 to 1.
func Next(d Progress, r channels.Result, p Policy, h Health, now time.Time, jitter float64) Transition {
	again := Transition{State: Pending, DueAt: now, Spent: d.Spent}
	if r.Ambiguous && d.AtMostOnce && r.Outcome != channels.Accepted {
		return Transition{State: Dead, Reason: Ambiguous, Spent: d.Spent + 1}
	}
	switch r.Outcome {
	case channels.Accepted:
		return Transition{State: Sent, Spent: d.Spent + 1, Device: DeviceConfirmed}

	case channels.Interrupted, channels.Unknown:
		return again

	case channels.Retry:
		return retry(d, r, p, now, jitter)

	case channels.Throttled:
		floor := r.Floor
		if floor == 0 {
			floor = throttleFloor
		}
		until := latest(now.Add(max(p.floor(floor), throttleLeast)), r.NotBefore)
		// Jitter only ever adds: the provider named the earliest moment.
		due := until.Add(time.Duration(float64(until.Sub(now)) * p.Jitter * jitter))
		t := waitOrExpire(d, due, d.Spent)
		t.WaitScope, t.WaitUntil = r.Scope, until
		return t

	case channels.Gone:
		switch {
		case d.Channel == channels.Webhook:
			return Transition{State: Dropped, Reason: Gone, Spent: d.Spent + 1, Device: DeviceRetired}
		case h.Stale:
			return again // the version that counts now gives its own verdict
		case r.Doubtful || !h.Proven || h.BreakerOpen:
			return Transition{State: Held, Reason: InDoubt, Spent: d.Spent + 1, Device: DeviceSuspect, Hold: HoldDoubt}
		}
		return Transition{State: Dropped, Reason: Gone, Spent: d.Spent + 1, Device: DeviceRetired}

	case channels.Denied:
		if h.Stale {
			return again
		}
		return Transition{State: Held, Reason: CredentialDenied, Spent: d.Spent, Hold: HoldCredential}
	}
	return Transition{State: Dead, Reason: Rejected, Spent: d.Spent + 1}
}

func retry(d Progress, r channels.Result, p Policy, now time.Time, jitter float64) Transition {
	// A renewal costs nothing, but only once in a row: two answers that ask for
	// different ones in turn would never end.
	free := d.Renewed == channels.RenewNothing || (r.Renew == channels.RenewGateway && d.Renewed != r.Renew)
	if r.Renew != channels.RenewNothing && free {
		t := waitOrExpire(d, latest(now, r.NotBefore), d.Spent)
		t.Renew = r.Renew
		return t
	}
	spent := d.Spent + 1
	if r.MaxTries > 0 && spent >= r.MaxTries {
		return Transition{State: Dead, Reason: Rejected, Spent: spent}
	}
	wait, ok := p.wait(spent, jitter)
	if !ok {
		return Transition{State: Dead, Reason: Exhausted, Spent: spent}
	}
	due := latest(now.Add(max(wait, p.floor(r.Floor))), r.NotBefore)
	t := waitOrExpire(d, due, spent)
	t.Renew = r.Renew
	if r.Scope != channels.ScopeTarget {
		// The others wait for the provider, not for this delivery's own schedule.
		t.WaitScope, t.WaitUntil = r.Scope, latest(now.Add(min(wait, throttleFloor)), r.NotBefore)
	}
	return t
}

// waitOrExpire keeps the deadline: what could only be sent after it is expired
// now, so that nothing is ever sent late.
func waitOrExpire(d Progress, due time.Time, spent int) Transition {
	if !due.Before(d.ExpiresAt) {
		return expire(d.Channel, spent)
	}
	return Transition{State: Pending, DueAt: due, Spent: spent}
}

// expire ends a delivery whose deadline has passed: a push does not matter any
// more, a webhook can still be replayed.
func expire(k channels.Kind, spent int) Transition {
	if k == channels.Webhook {
		return Transition{State: Dead, Reason: Expired, Spent: spent}
	}
	return Transition{State: Dropped, Reason: Expired, Spent: spent}
}

// maxTakeovers makes a delivery dead that took its node down, or was caught in
// crashes, this often.
const maxTakeovers = 5

// takeover decides about a row whose node died with it. ok is false when it may
// be sent again.
func takeover(d Progress, takeovers int, begun bool) (Transition, bool) {
	switch {
	case takeovers >= maxTakeovers:
		return Transition{State: Dead, Reason: Crashed, Spent: d.Spent}, true
	case d.AtMostOnce && begun:
		return Transition{State: Dead, Reason: Ambiguous, Spent: d.Spent}, true
	}
	return Transition{}, false
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
