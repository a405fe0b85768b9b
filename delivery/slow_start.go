package delivery

import "time"

// After an unclean end few are claimed at first, and twice as many in each window that
// the process survives: what ended it may be among them, and each time that it does
// again counts against all that is being sent.
const (
	slowFirst  = 16 // of a lane
	slowWindow = time.Second
)

// slowStart says how many may be claimed. The zero value is no slow start.
type slowStart struct {
	on      bool
	begin   time.Time // of this window; zero: it has not begun
	most    int       // of each lane in this window
	claimed [LanesCount]int
}

// room is how many more of a lane may be claimed now.
func (s *slowStart) room(l Lane, now time.Time) int {
	if !s.on {
		return claimLimit
	}
	switch {
	case s.begin.IsZero():
		s.begin, s.most = now, slowFirst
	case now.Sub(s.begin) >= slowWindow:
		*s = slowStart{on: true, begin: now, most: 2 * s.most}
	}
	if s.most >= claimLimit {
		s.on = false
		return claimLimit
	}
	return s.most - s.claimed[l]
}

// took notes how many were claimed.
func (s *slowStart) took(l Lane, n int) { s.claimed[l] += n }
