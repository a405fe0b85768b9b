package delivery

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
)

const (
	perTenant  = 250  // most rows of a tenant in one claim
	claimLimit = 1000 // rows in one claim
)

// ClaimOrder asks for due rows of a lane.
type ClaimOrder struct {
	Lane      Lane
	Limit     int
	PerTenant int
	Full      []ids.ID // tenants of which nothing is to be claimed
	Now       time.Time
	Lease     time.Time
	Claim     int64
}

// ClaimStore leases what is due.
type ClaimStore interface {
	Claim(ctx context.Context, o ClaimOrder) ([]Claimed, error)
}

// claimer finds what is due: retries, what found no room, and what a node that died has
// left.
type claimer struct {
	*env
	store    ClaimStore
	intake   *intake
	dispatch *dispatcher
	tenants  *tenantCache
	leases   *leases
	backlog  *backlog
	pause    *pauseSwitch
	hints    *hints
	metrics  *metrics
	poll     time.Duration
	lease    time.Duration
	slow     slowStart

	lastRound atomic.Int64 // unix ms
}

// run claims again and again. A hint wakes it; a lost hint is found by the poll.
func (c *claimer) run() {
	for {
		more := c.round()
		c.beat()
		if more {
			c.hints.claim.raise()
		}
		if !c.wait(c.hints.claim, c.poll) {
			return
		}
	}
}

func (c *claimer) beat() { c.lastRound.Store(c.now().UnixMilli()) }

// lastBeat is when the loop last came round.
func (c *claimer) lastBeat() time.Time { return time.UnixMilli(c.lastRound.Load()) }

// round claims once per lane. It reports whether there may be more at once.
func (c *claimer) round() (more bool) {
	if c.now().Sub(c.lastBeat()) > c.lease/2 {
		c.leases.renew() // the process stood still: first keep what is ours from ourselves
	}
	if c.pause.current().On() {
		return false
	}
	for l := range Lane(LanesCount) {
		more = c.claim(l) || more
	}
	return more
}

func (c *claimer) claim(l Lane) (more bool) {
	now := c.now()
	most := c.slow.room(l, now)
	limit, ofTenant, full := c.dispatch.claimable(l, most)
	if limit == 0 {
		return false
	}
	lease := now.Add(c.lease)
	claimed, err := c.store.Claim(c.running, ClaimOrder{Lane: l, Limit: limit, PerTenant: ofTenant, Full: full, Now: now,
		Lease: lease, Claim: int64(c.ids.Next())})
	if err != nil {
		c.dispatch.unclaimed(l, limit)
		c.log.Error("claim", "lane", l, "error", err)
		return false
	}
	if len(claimed) > 0 {
		failpoint.Hit("claim.committed")
	}
	c.slow.took(l, len(claimed))
	c.dispatch.unclaimed(l, limit-len(claimed))
	c.enqueue(l, claimed, lease)
	return len(claimed) >= min(limit, ofTenant)
}

// enqueue queues claimed rows, but for those that need no attempt any more.
func (c *claimer) enqueue(l Lane, claimed []Claimed, lease time.Time) {
	items := make([]*inflight, 0, len(claimed))
	for i := range claimed {
		row := &claimed[i]
		c.backlog.claimed(row.Tenant)
		it := newInflight(row.Row, row.AtMostOnce, row.Now, lease)
		it.since, it.asked = row.UpdatedAt, row.Asked
		if row.Was == Held && row.Reason == InDoubt {
			it.looked = c.now().Sub(row.UpdatedAt)
		}
		if row.Was == Sending {
			c.metrics.takeovers.Inc()
		}
		if t, over := endsAtClaim(row, it.progress()); over {
			c.dispatch.unclaimed(l, 1)
			c.intake.finish(it, t)
			continue
		}
		if tenant, err := c.tenants.get(c.running, it.Tenant); err == nil {
			if cred := tenant.credential(&it.target, it.last); cred != nil {
				it.Credential = cred.ID
			}
		}
		items = append(items, it)
	}
	c.intake.enqueue(l, items, false)
}
