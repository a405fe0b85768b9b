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

// DefaultTTL is a channel's time to live where neither the notification nor the
// tenant names one.
func DefaultTTL(k channels.Kind) time.Duration {
	if k == channels.Webhook {
		return 72 * time.Hour
	}
	return 24 * time.Hour
}

// ttlOf is the life of a delivery. A ttl beyond what the channel can keep is
// cut to it, since one notification may go to channels with different limits.
func ttlOf(k channels.Kind, asked *int64, s tenants.Settings) time.Duration {
	ttl := DefaultTTL(k)
	if own, ok := s.TTL[k]; ok {
		ttl = time.Duration(own) * time.Second
	}
	if asked != nil {
		ttl = time.Duration(*asked) * time.Second
	}
	return min(ttl, tenants.MaxTTL(k))
}

// life is the time that a delivery has. "Now or never" (0) still needs a moment
// to leave; less than a second is told to the provider as 0.
func life(ttl time.Duration) time.Duration { return max(ttl, time.Second-time.Millisecond) }
