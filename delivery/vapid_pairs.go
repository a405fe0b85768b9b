package delivery

import (
	"cmp"
	"slices"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// A subscription takes only what is signed with the VAPID key that the browser made
// it with, and an app may have several pairs: browsers come back late after a
// rotation. Where the key is not known, or turns out to be another, the pairs of the
// app are tried one after the other, each in an attempt that costs nothing; the one
// that is taken is written down.

// lastAttempt is what the newest attempt of a delivery was made with, and what it
// asked for.
type lastAttempt struct {
	credential ids.ID
	renewed    channels.Renewal
}

// pairs lists those of a subscription's app in the order in which they are tried: its
// own, then the one that was the newest when the subscription was registered, then
// the others, the newest first.
func (s *snapshot) pairs(t *TargetNow) []*tenants.Credential {
	var out []*tenants.Credential
	for i := range s.credentials {
		if c := &s.credentials[i]; c.App == t.App && c.Channel == channels.WebPush {
			out = append(out, c)
		}
	}
	if len(out) < 2 {
		return out
	}
	// Ids are made in the order of time.
	slices.SortFunc(out, func(a, b *tenants.Credential) int { return cmp.Compare(b.ID, a.ID) })
	first := slices.IndexFunc(out, func(c *tenants.Credential) bool { return !c.CreatedAt.After(t.CreatedAt) })
	if own := slices.IndexFunc(out, func(c *tenants.Credential) bool { return c.Qualifier == t.VAPIDKey }); own >= 0 {
		first = own
	}
	if first > 0 {
		c := out[first]
		out = slices.Insert(slices.Delete(out, first, first+1), 0, c)
	}
	return out
}

// nextPair picks the pair for an attempt; nil: there is none. A subscription whose own
// pair is not there is tried with the others: it ends in doubt, where it is looked at
// again by itself and reached when its browser has subscribed anew. A hold for a
// missing credential would not hear of that.
func nextPair(pairs []*tenants.Credential, last lastAttempt) *tenants.Credential {
	if len(pairs) == 0 {
		return nil
	}
	if last.renewed == channels.RenewNothing {
		return pairs[0]
	}
	i := indexOfPair(pairs, last.credential)
	if last.renewed == channels.RenewPair {
		i++
	}
	if i < 0 || i >= len(pairs) {
		return pairs[0]
	}
	return pairs[i]
}

// morePairs tells whether there is a pair to try after one that did not fit.
func (s *snapshot) morePairs(t *TargetNow, used ids.ID) bool {
	pairs := s.pairs(t)
	i := indexOfPair(pairs, used)
	return i >= 0 && i+1 < len(pairs)
}

func indexOfPair(pairs []*tenants.Credential, id ids.ID) int {
	return slices.IndexFunc(pairs, func(c *tenants.Credential) bool { return c.ID == id })
}
