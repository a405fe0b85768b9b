package delivery

import (
	"time"

	"github.com/carillonhq/carillon/ids"
)

const (
	// newcomersShare: one part in so many stays free for who has nothing under way,
	// where there are several to share with.
	newcomersShare = 4
	// sharedFor is how long after two tenants have had work an installation counts as
	// shared by several.
	sharedFor = 10 * time.Minute
)

// partOf is the most that one of n may have of a whole, of which the others have some:
// its fair part, and beyond it what others leave, but for what stays free for
// newcomers where there may be some.
func partOf(whole, n, others int, newcomers bool) int {
	fair := max(whole/n, 1)
	if newcomers {
		whole -= whole / newcomersShare
	}
	return max(fair, whole-others)
}

// sharing tells whether several tenants use an installation: whether two different ones
// have had work lately.
type sharing struct {
	last     ids.ID
	switched time.Time // when the last was another than the one before
	several  bool
}

// note has a tenant use it.
func (s *sharing) note(t ids.ID, now func() time.Time) {
	if t == s.last {
		return
	}
	if s.last != 0 {
		s.switched, s.several = now(), true
	}
	s.last = t
}

// refresh is called now and then.
func (s *sharing) refresh(now time.Time) { s.several = s.several && now.Sub(s.switched) < sharedFor }
