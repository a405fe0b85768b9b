package queue

import (
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/store/db"
)

// hints tells other nodes what to look at, in the engine's words.
type hints struct{ db *db.DB }

// Hint implements delivery.HintStore.
func (s *hints) Hint(h delivery.Hint) {
	s.db.SendHint(db.Hint{Kind: uint8(h.Kind), Tenant: h.Tenant, Notification: h.Notification})
}

// OnHint implements delivery.HintStore.
func (s *hints) OnHint(f func(delivery.Hint)) {
	s.db.ReceiveHints(func(h db.Hint) {
		if h.Kind == 0 { // some may have been missed
			f(delivery.Hint{Kind: delivery.HintDue})
			return
		}
		f(delivery.Hint{Kind: delivery.HintKind(h.Kind), Tenant: h.Tenant, Notification: h.Notification})
	})
}
