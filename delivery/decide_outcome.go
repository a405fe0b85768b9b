package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
)

// throttleFloor is the least wait after "too fast" where nobody names one, and the
// wait of a scope that nobody names.
const throttleFloor = 10 * time.Second

// throttleLeast holds even where a tenant's policy lowers the floor: being
// throttled spends no attempt, so without a wait it would never end.
const throttleLeast = time.Second

// Next decides what an attempt means. It is pure: same arguments, same answer.
// jitter is a random number from 0 to 1.
func Next(d Progress, r channels.Result, p Policy, a Assessment, now time.Time, jitter float64) Transition {
	again := Transition{State: Pending, DueAt: now, Spent: d.Spent}
	if r.Ambiguous && d.AtMostOnce && r.Outcome != channels.Accepted {
		return Transition{State: Dead, Reason: Ambiguous, Spent: d.Spent + 1}
	}
	switch r.Outcome {
	case channels.Accepted:
		t := Transition{State: Sent, Spent: d.Spent + 1, Device: DeviceConfirmed}
		if d.Undoubted {
			t.Device = DeviceUntouched // nothing to confirm: spare the statement
		}
		return t

	case channels.Interrupted, channels.Unknown:
		return again

	case channels.Retry:
		if r.Unreached && r.Renew == channels.RenewNothing && r.MaxTries == 0 && d.Channel != channels.Webhook {
			return unreached(d, r, p, now, jitter)
		}
		return retry(d, r, p, now, jitter)

	case channels.Throttled:
		floor := r.Floor
		if floor == 0 {
			floor = throttleFloor
		}
		until := latest(now.Add(max(p.floor(floor), throttleLeast)), r.NotBefore)
		due := until
		if most := now.Add(lookEvery); d.Channel != channels.Webhook && due.After(most) {
			due = most // it looks whether the provider means it
			if !isShared(d.Channel, r.Scope) {
				until = most // nobody else looks for a device
			}
		}
		// Jitter only ever adds: the provider named the earliest moment.
		due = due.Add(min(time.Duration(float64(due.Sub(now))*p.Jitter*jitter), gateSpread))
		t := Transition{State: Pending, DueAt: d.within(due), Spent: d.Spent}
		t.WaitScope, t.WaitUntil = r.Scope, until
		if r.Wider > r.Scope {
			wait := max(p.floor(throttleFloor), throttleLeast)
			t.WiderScope, t.WiderUntil = r.Wider, now.Add(min(wait, until.Sub(now)))
		}
		return t

	case channels.Gone:
		switch {
		case d.Channel == channels.Webhook:
			return Transition{State: Dropped, Reason: Gone, Spent: d.Spent + 1, Device: DeviceRetired}
		case a.Stale:
			return again // the version that counts now gives its own verdict
		case r.Resubscribe && d.MorePairs:
			t := waitOrExpire(d, now, d.Spent)
			t.Renew = channels.RenewPair
			return t
		case r.Resubscribe:
			// Nobody else's success says anything of it: it waits for its browser.
			return lookAgain(d, true, now, jitter)
		case !a.Believed:
			return Transition{State: Held, Reason: InDoubt, Spent: d.Spent + 1, Device: DeviceSuspect, Hold: HoldDoubt}
		}
		return Transition{State: Dropped, Reason: Gone, Spent: d.Spent + 1, Device: DeviceRetired}

	case channels.Denied:
		switch {
		case a.Stale:
			return again
		case !a.Convicted:
			return lookAgain(d, a.Alone, now, jitter)
		}
		return Transition{State: Held, Reason: CredentialDenied, Spent: d.Spent, Hold: HoldCredential}
	}
	return Transition{State: Dead, Reason: Rejected, Spent: d.Spent + 1}
}

// A refused delivery is looked at again after a while that doubles: sooner while the
// credential may be to blame, since that is mended or found out soon.
const (
	lookLeast     = 30 * time.Second
	lookMost      = 5 * time.Minute
	lookMostAlone = time.Hour
)

// lookAgain keeps a delivery that was refused, and that nothing else is to blame for
// yet than its device. It costs no attempt; the time to live runs.
func lookAgain(d Progress, alone bool, now time.Time, jitter float64) Transition {
	most := lookMost
	if alone {
		most = lookMostAlone
	}
	wait := min(max(2*d.Looked, lookLeast), most)
	due := now.Add(wait + time.Duration(jitter*float64(wait)/10))
	return Transition{State: Held, Reason: InDoubt, Spent: d.Spent, DueAt: due, Device: DeviceRefused, Hold: HoldRefusal}
}

// unreached keeps a push that no provider has seen anything of: it costs no attempt,
// and its time to live runs. Its device waits for longer and longer, and once that
// happened to several users all that goes the same way. A receiver of webhooks is
// somebody's server, which may be gone for good: that spends its schedule.
func unreached(d Progress, r channels.Result, p Policy, now time.Time, jitter float64) Transition {
	wait := max(p.floor(throttleFloor), throttleLeast)
	until := latest(now.Add(wait), r.NotBefore)
	t := waitOrExpire(d, until.Add(time.Duration(float64(until.Sub(now))*p.Jitter*jitter)), d.Spent)
	t.WaitScope, t.WaitUntil = r.Scope, until
	if r.Scope == channels.ScopeTarget {
		t.WiderScope, t.WiderUntil = channels.ScopeCredential, now.Add(wait)
		if d.Channel == channels.WebPush {
			t.WiderScope = channels.ScopeOrigin
		}
	}
	return t
}

func retry(d Progress, r channels.Result, p Policy, now time.Time, jitter float64) Transition {
	// A renewal costs nothing, but only once in a row: two answers that ask for
	// different ones in turn would never end. Another pair is no such answer: there
	// are only so many, and each has its own token.
	free := d.Renewed == channels.RenewNothing || d.Renewed == channels.RenewPair || (r.Renew == channels.RenewGateway && d.Renewed != r.Renew)
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
