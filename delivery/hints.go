package delivery

import (
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
)

// HintStore carries hints between the nodes of a database.
type HintStore interface {
	Hint(Hint)
	OnHint(func(Hint))
}

// Hint tells another node to look at something at once. It may be lost: the next
// poll finds what it was about.
type Hint struct {
	Kind                 HintKind
	Tenant, Notification ids.ID // as the kind needs them
}

// HintKind says what to look at.
type HintKind uint8

// The kinds, as nodes of different versions send them to each other.
const (
	HintDue      HintKind = 1 // deliveries that are due
	HintHolds    HintKind = 2 // holds that end
	HintTenant   HintKind = 3 // a tenant whose settings, credentials or holds changed
	HintCanceled HintKind = 4 // a notification that was canceled
	HintPeers    HintKind = 5 // what nodes tell each other, see PeerStore
)

// hints wake the loops that have something to look at, on this node and on the
// others.
type hints struct {
	*env
	store    HintStore
	tenants  *tenantCache
	inflight *inflightSet
	jobs     *jobs.Runner // nil: another node runs them
	poll     time.Duration

	claim, holds, exchange, schedule signal
}

// due tells that deliveries are due now.
func (h *hints) due() {
	h.claim.raise()
	h.schedule.raise()
	h.store.Hint(Hint{Kind: HintDue})
}

// dueAt makes this node's claim loop look again no later than at t. now: that is at
// once.
func (h *hints) dueAt(t time.Time) (now bool) {
	wait := t.Sub(h.now())
	if wait <= 0 {
		h.claim.raise()
		return true
	}
	if wait < h.poll {
		time.AfterFunc(wait, h.claim.raise)
	}
	return false
}

// pendingDue tells that what was accepted, and found no room here, is due at t.
func (h *hints) pendingDue(t time.Time) {
	if h.dueAt(t) {
		h.store.Hint(Hint{Kind: HintDue}) // another node may have room
	}
}

// tenantChanged makes every node see a tenant anew, this one at once.
func (h *hints) tenantChanged(tenant ids.ID) {
	h.refreshTenant(tenant)
	h.store.Hint(Hint{Kind: HintTenant, Tenant: tenant})
}

func (h *hints) refreshTenant(tenant ids.ID) {
	if err := h.tenants.refresh(h.running, tenant); err != nil {
		h.log.Warn("read a tenant anew", "tenant", h.who(tenant), "error", err)
	}
	h.holds.raise()
	h.claim.raise()
	h.wakeJobs()
}

func (h *hints) wakeJobs() {
	if h.jobs != nil {
		h.jobs.Wake()
	}
}

// canceled marks what there is of a notification in the hands of any node.
func (h *hints) canceled(tenant, notification ids.ID) {
	h.inflight.cancel(tenant, notification)
	h.store.Hint(Hint{Kind: HintCanceled, Tenant: tenant, Notification: notification})
}

// exchangeNow makes the other nodes read what there is of this one.
func (h *hints) exchangeNow() { h.store.Hint(Hint{Kind: HintPeers}) }

// receive follows a hint of another node. It is called from the listener, which
// it must not keep.
func (h *hints) receive(x Hint) {
	switch x.Kind {
	case HintDue:
		h.claim.raise()
		h.schedule.raise()
	case HintHolds:
		h.holds.raise()
	case HintTenant:
		go h.refreshTenant(x.Tenant)
	case HintCanceled:
		h.inflight.cancel(x.Tenant, x.Notification)
	case HintPeers:
		h.exchange.raise()
	}
}
