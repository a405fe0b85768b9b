package delivery

import (
	"time"

	"github.com/carillonhq/carillon/ids"
)

// What a tenant has a part of, in the engine.
const (
	LimitDue    = "deliveries_due"
	LimitStored = "deliveries_unfinished"
	LimitSends  = "sends_in_flight"
	LimitUrgent = "urgent_per_second"
)

// Usage is how much of something a tenant has, and may have now.
type Usage struct {
	Limit   string
	Used    int
	Most    int           // 0: there is no limit
	Rate    float64       // in a second, of what is a rate: Most is what may be at once
	Waiting int           // for it
	Clears  time.Duration // until about when nothing of it will be used; 0: not known
}

// Usage lists what a tenant has of what tenants share. Sends are those of this node.
func (e *Engine) Usage(tenant ids.ID) []Usage {
	return append(e.backlog.usage(tenant), e.dispatch.usage(tenant), e.acceptor.urgents.Usage(LimitUrgent, tenant, e.now()))
}

// Busiest lists the tenants with the most that is unfinished.
func (e *Engine) Busiest(most int) []ids.ID { return e.backlog.busiest(most) }
