package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/tenants"
)

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
