package delivery

import (
	"time"

	"github.com/carillonhq/carillon/ids"
)

const (
	// spellLeast is how long a scope has to fail, without a success, until it is told.
	spellLeast = 5 * time.Second
	// spellTold is how often it is told again that it goes on.
	spellTold = time.Minute
	// endpointSpell is how long ago the last failure of an endpoint may be for the next
	// one to go on with it: longer than any schedule waits.
	endpointSpell = 48 * time.Hour
)

// spell is a scope that fails, and whose deliveries each keep their own schedule.
type spell struct {
	since, newest time.Time
	told          time.Time
	lasts         time.Duration
	users         map[ids.ID]struct{} // at most as many as are enough
}

// failed notes a failure of a scope. tell: it fails for long enough, and for enough
// users, to be told, and was not told just now. An endpoint speaks for itself (alone);
// of a push provider that answers it takes several users, since one device may be what
// fails.
func (g *gates) failed(k flowKey, user ids.ID, alone bool, why Wait, now time.Time) (w Wait, tell bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	lasts, enough := evidenceLasts, evidenceUsers
	if alone {
		lasts, enough = endpointSpell, 1
	}
	s := g.spells[k]
	if s == nil || now.Sub(s.newest) > lasts {
		if g.spells == nil {
			g.spells = map[flowKey]*spell{}
		}
		s = &spell{since: now, lasts: lasts, users: map[ids.ID]struct{}{}}
		g.spells[k] = s
	}
	s.newest = now
	if len(s.users) < enough {
		s.users[user] = struct{}{}
	}
	if now.Sub(s.since) < spellLeast || len(s.users) < enough || now.Sub(s.told) < spellTold {
		return Wait{}, false
	}
	s.told = now
	why.Since, why.LastSuccess = s.since, g.worked[k]
	return why, true
}

// untold has a spell told with its next failure.
func (g *gates) untold(k flowKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.spells[k]; s != nil {
		s.told = time.Time{}
	}
}
