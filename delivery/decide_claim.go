package delivery

// maxTakeovers makes a delivery dead that took its node down, or was caught in
// crashes, this often.
const maxTakeovers = 5

// endsAtClaim decides about a claimed row that needs no attempt any more. ok is false
// when it may be sent.
func endsAtClaim(c *Claimed, d Progress) (t Transition, ok bool) {
	switch {
	case c.Canceled:
		return cancel(d.Spent), true
	case c.Was == Sending:
		return takeover(d, c.Takeovers, c.Begun)
	}
	return Transition{}, false
}

// takeover decides about a row whose node died with it. ok is false when it may
// be sent again.
func takeover(d Progress, takeovers int, begun bool) (t Transition, ok bool) {
	switch {
	case takeovers >= maxTakeovers:
		return Transition{State: Dead, Reason: Crashed, Spent: d.Spent}, true
	case d.AtMostOnce && begun:
		return Transition{State: Dead, Reason: Ambiguous, Spent: d.Spent}, true
	}
	return Transition{}, false
}
