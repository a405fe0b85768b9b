package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/tenants"
)

// Policy says when a failed attempt is followed by another.
type Policy tenants.Schedule

// PolicyOf is the policy of a channel under a tenant's settings.
func PolicyOf(k channels.Kind, s tenants.Settings) Policy { return Policy(s.Schedule(k)) }

// wait is the delay before the attempt that follows number spent, jittered.
// jitter is between 0 and 1. ok is false when the schedule is used up.
func (p Policy) wait(spent int, jitter float64) (time.Duration, bool) {
	if spent < 1 || spent > len(p.Delays) {
		return 0, false
	}
	d := float64(p.Delays[spent-1])
	return time.Duration(d + d*p.Jitter*(2*jitter-1)), true
}

// floor is the least wait after an answer: what the provider asks for, unless
// the tenant's policy lowers it.
func (p Policy) floor(asked time.Duration) time.Duration {
	if p.Floor != nil && asked > *p.Floor {
		return *p.Floor
	}
	return asked
}
