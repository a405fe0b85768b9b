package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
)

const moveLimit = 1000 // rows of a hold in one transaction

// HoldStore moves deliveries out of holds.
type HoldStore interface {
	// HoldsEndingOrDenied lists the holds of all tenants that end, or that a provider's
	// refusal made.
	HoldsEndingOrDenied(ctx context.Context) ([]Hold, error)
	// MoveHeld moves up to limit rows of a hold that ends, and removes the hold
	// with the last one.
	MoveHeld(ctx context.Context, h Hold, limit int, now time.Time) (moved int, done bool, err error)
}

// holdMover moves deliveries out of holds that end, and has credentials probed
// that were refused.
type holdMover struct {
	*env
	store   HoldStore
	prober  *prober
	pause   *pauseSwitch
	duties  *duties
	backlog *backlog
	hints   *hints
	every   time.Duration
}

func (m *holdMover) run() {
	nextProbe := m.now().Add(m.prober.every)
	for {
		holds, err := m.store.HoldsEndingOrDenied(m.running)
		if err != nil {
			m.log.Error("read holds", "error", err)
		}
		now := m.now()
		probe := now.After(nextProbe)
		if probe {
			nextProbe = now.Add(m.prober.every)
			probe = m.duties.take("probe", m.prober.every)
		}
		var refused []Hold
		for _, h := range holds {
			switch {
			case h.Ending != Open:
				m.end(h)
			case probe && !m.pause.current().On() && h.Scope == HoldCredential && h.Reason == CredentialDenied:
				refused = append(refused, h)
			}
		}
		if len(refused) > 0 {
			m.background.Go(func() { m.prober.probeAll(refused) })
		}
		if !m.wait(m.hints.holds, m.every) {
			return
		}
	}
}

// end moves all deliveries of a hold to where its ending says.
func (m *holdMover) end(h Hold) {
	failpoint.Hit("resume.begin")
	for m.running.Err() == nil {
		moved, done, err := m.store.MoveHeld(m.running, h, moveLimit, m.now())
		if err != nil {
			m.log.Error("end a hold", "tenant", m.who(h.Tenant), "hold", h.ID.Format(ids.Hold), "error", err)
			return
		}
		if h.Ending == Confirm {
			m.backlog.add(h.Tenant, Unfinished{Stored: -moved})
		}
		if !done {
			failpoint.Hit("resume.between")
		}
		m.hints.due()
		if done {
			failpoint.Hit("resume.ended")
			m.log.Info("a hold has ended", "hold", h.ID.Format(ids.Hold), "reason", h.Reason.String(), "tenant", m.who(h.Tenant))
			return
		}
	}
}
