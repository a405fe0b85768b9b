package delivery

// maxTakeovers makes a delivery dead that took its node down, or was being sent when
// that stopped, this often.
const maxTakeovers = 5

// MayHaveBegun tells whether a node that died with the row may have begun its attempt.
// It is known of what must not be sent twice, and of what was taken over before, whose
// beginnings are written. The rest costs no write: it counts once, though it may have
// been only queued. So in however many crashes a delivery is caught, it ends because of
// those alone in which it was being sent.
func (c *Claimed) MayHaveBegun() bool {
	return c.Was == Sending && (c.Begun || !c.writesBegin())
}

// writesBegin tells whether it is written that an attempt begins.
func (c *Claimed) writesBegin() bool { return writesBegin(&c.Row, c.AtMostOnce) }

func writesBegin(r *Row, atMostOnce bool) bool { return atMostOnce || r.Unknown }

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
