package delivery

import (
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// snapshot is a tenant as it was at a moment. It is never changed, only replaced.
type snapshot struct {
	name        string
	settings    tenants.Settings
	deleting    bool // the tenant is on its way out: nothing of it is sent
	credentials []tenants.Credential
	byID        map[ids.ID]*tenants.Credential
	holds       map[holdKey]Hold // that stand
	waits       map[flowKey]Wait
	waitsUpTo   ids.ID // those of this subject, and of what comes after it, are not all in waits; 0: all are
	readAt      time.Time
}

func newSnapshot(t tenants.Tenant, credentials []tenants.Credential, holds []Hold, waits []Wait, readAt time.Time) *snapshot {
	s := &snapshot{name: t.Name, settings: t.Settings, deleting: t.Deleting(), credentials: credentials,
		byID: make(map[ids.ID]*tenants.Credential, len(credentials)), holds: make(map[holdKey]Hold, len(holds)), readAt: readAt}
	for i := range credentials {
		s.byID[credentials[i].ID] = &credentials[i]
	}
	for _, h := range holds {
		if h.Ending == Open {
			s.holds[h.key()] = h
		}
	}
	if len(waits) > 0 {
		s.waits = make(map[flowKey]Wait, len(waits))
	}
	for _, w := range waits {
		s.waits[w.key()] = w
	}
	if len(waits) >= mostWaits {
		s.waitsUpTo = waits[len(waits)-1].Subject
	}
	return s
}

// errDeleting refuses what is asked for a tenant that is being deleted.
func errDeleting() error { return problem.New(problem.Conflict, "The tenant is being deleted.") }

// hasVersion tells whether a version of a credential is the newest.
func (s *snapshot) hasVersion(k versionKey) bool {
	c := s.byID[k.credential]
	return c != nil && c.Version == k.version
}

// doubt finds the hold of what a credential version has said and is not believed
// yet.
func (s *snapshot) doubt(k versionKey) (Hold, bool) {
	h, ok := s.holds[holdKey{scope: HoldDoubt, subject: k.credential, version: k.version}]
	return h, ok
}

// credential picks what serves a device: that of its app, channel, and
// environment or VAPID key, and no other. Routing never guesses: where the key of a
// subscription is not known, it goes by what was tried last.
func (s *snapshot) credential(t *TargetNow, last lastAttempt) *tenants.Credential {
	if t.Channel == channels.WebPush {
		return nextPair(s.pairs(t), last)
	}
	var found *tenants.Credential
	for i := range s.credentials {
		c := &s.credentials[i]
		if c.App != t.App || c.Channel != t.Channel {
			continue
		}
		switch t.Channel {
		case channels.APNs:
			switch {
			case c.Qualifier == string(t.Target.Environment):
				return c
			case c.Qualifier == "":
				found = c
			case t.Target.Environment == channels.Auto && (found == nil || c.Qualifier == string(channels.Production) && found.Qualifier != ""):
				found = c // production is tried first
			}
		default:
			return c
		}
	}
	return found
}

// qualifier is what a missing credential would have to have.
func qualifier(t *TargetNow) string {
	switch {
	case t.Channel == channels.WebPush:
		return t.VAPIDKey
	case t.Channel == channels.APNs && t.Target.Environment != channels.Auto:
		return string(t.Target.Environment)
	}
	return ""
}
