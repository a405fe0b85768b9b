package delivery

import (
	"time"

	"github.com/carillonhq/carillon/ids"
)

// paces are how fast the deliveries of tenants have ended lately: since the count of the
// database before last. Its user guards it with a lock.
type paces struct {
	since, before map[ids.ID]int // that have ended here since the last count, and before it
	began, turned time.Time      // when before begins, and since
	stored        map[ids.ID]int // at the last count
	fewer         map[ids.ID]int // by how many that is below the one before it
}

// ended notes one that has.
func (p *paces) ended(tenant ids.ID) {
	if p.since == nil {
		p.since = map[ids.ID]int{}
	}
	p.since[tenant]++
}

// turn notes a count.
func (p *paces) turn(all map[ids.ID]Unfinished, now time.Time) {
	stored, fewer := make(map[ids.ID]int, len(all)), map[ids.ID]int{}
	for tenant, n := range all {
		stored[tenant] = n.Stored
		if less := p.stored[tenant] - n.Stored; less > 0 {
			fewer[tenant] = less
		}
	}
	if !p.turned.IsZero() {
		p.began = p.turned
	}
	p.before, p.since, p.turned, p.stored, p.fewer = p.since, nil, now, stored, fewer
}

// of is how many deliveries of a tenant end in a second; 0: not known. Those that end on
// other nodes are seen by what the counts have become fewer by.
func (p *paces) of(tenant ids.ID, now time.Time) float64 {
	var all float64
	here := float64(p.before[tenant]+p.since[tenant]) / max(now.Sub(p.began), time.Second).Seconds()
	if over := p.turned.Sub(p.began).Seconds(); over > 0 {
		all = float64(p.fewer[tenant]) / over
	}
	return max(here, all)
}

// clearsIn is how long so many last at a pace; 0: not known.
func clearsIn(n int, pace float64) time.Duration {
	const most = 365 * 24 * time.Hour // what is further away is as good as not known
	if pace <= 0 || float64(n) > pace*most.Seconds() {
		return 0
	}
	return time.Duration(float64(n) / pace * float64(time.Second))
}
