package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/tenants"
)

const (
	// faultWait is how long a delivery waits that this node could not attempt
	// because of a fault of its own, such as a database that does not answer.
	faultWait = 5 * time.Second
	// What its flow has no room for waits as long as it has waited already, between
	// these: a big backlog must not be claimed and put back all the time.
	crowdedLeast = 15 * time.Second
	crowdedMost  = 5 * time.Minute
	// gateSpread is the most that those who wait for a gate are spread over.
	gateSpread = 10 * time.Minute
	// gateLooked is how long one waits at most for a gate that may open early, until it
	// looks again.
	gateLooked = time.Hour
)

// waitForGate makes a delivery wait until a gate opens, and spreads those that
// wait, as far as their deadlines allow: not all at the moment that it opens.
// jitter is a random number from 0 to 1.
func waitForGate(d Progress, g standing, now time.Time, jitter float64) Transition {
	opens := g.opens
	if most := now.Add(gateLooked); g.shared && opens.After(most) {
		opens = most
	}
	spread := max(min(opens.Sub(now), d.ExpiresAt.Sub(opens)-time.Second, gateSpread), 0)
	return unspent(d, d.within(opens.Add(time.Duration(jitter*float64(spread)))))
}

// crowdOut puts a delivery back that its flow has no room for. jitter is a random
// number from 0 to 1.
func crowdOut(d Progress, accepted, now time.Time, jitter float64) Transition {
	wait := min(max(now.Sub(accepted), crowdedLeast), crowdedMost)
	return unspent(d, d.within(now.Add(wait+time.Duration(float64(wait)*jitter))))
}

// olderWait is how long a delivery waits before it looks again whether another node
// still sends an older one of its collapse key.
const olderWait = 500 * time.Millisecond

// waitForOlder puts a delivery back until an older one of its collapse key, which
// another node has in its hands, has left them.
func waitForOlder(d Progress, now time.Time) Transition {
	return unspent(d, d.within(now.Add(olderWait)))
}

// unmappable ends a delivery whose stored content cannot be turned into a payload
// any more, which no retry will mend.
func unmappable(spent int) Transition {
	return Transition{State: Dead, Reason: Unmapped, Spent: spent}
}

// obstacle finds what keeps a delivery from being attempted at all, and the hold
// that it waits for, if it does. ok is false when there is none. c is the credential
// that serves the target; nil: there is none.
func obstacle(r *Row, target *TargetNow, tenant *snapshot, c *tenants.Credential, now time.Time) (t Transition, h Hold, ok bool) {
	drop := func(why Reason) (Transition, Hold, bool) {
		return Transition{State: Dropped, Reason: why, Spent: r.Spent}, Hold{}, true
	}
	hold := func(h Hold, why Reason) (Transition, Hold, bool) {
		return Transition{State: Held, Reason: why, Spent: r.Spent, Hold: h.Scope}, h, true
	}
	switch {
	case tenant.deleting:
		return drop(Erased)
	case !target.Exists:
		return drop(Gone)
	case r.Channel == channels.Webhook:
		if h, ok := tenant.holds[holdKey{scope: HoldEndpoint, subject: r.Target}]; ok {
			return hold(h, h.Reason)
		}
		return Transition{}, Hold{}, false
	case target.Epoch != r.Epoch || target.UserID != r.UserID:
		return drop(Rebound)
	case target.Device == devices.Retired, !target.ExpiresAt.IsZero() && !target.ExpiresAt.After(now):
		return drop(Gone)
	}
	if c == nil {
		return hold(Hold{Scope: HoldMissing, App: target.App, Channel: r.Channel, Qualifier: qualifier(target),
			Detail: missing(target)}, CredentialMissing)
	}
	if h, ok := tenant.holds[holdKey{scope: HoldCredential, subject: c.ID}]; ok {
		return hold(h, h.Reason)
	}
	if r.Channel == channels.WebPush {
		if h, ok := tenant.holds[holdKey{scope: HoldCredential, subject: c.ID, qualifier: target.origin()}]; ok {
			return hold(h, h.Reason)
		}
	}
	return Transition{}, Hold{}, false
}

// missing says what a target has no credential of. Others of the app may have one.
func missing(t *TargetNow) string {
	if t.Channel == channels.APNs && qualifier(t) != "" {
		return "There is no credential for this app, channel and environment (" + qualifier(t) + ")."
	}
	return "There is no credential for this app and channel."
}
