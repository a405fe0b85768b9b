package delivery

import (
	"context"
	"time"
)

const renewLimit = 1000 // leases in one transaction

// LeaseStore renews leases.
type LeaseStore interface {
	// Renew moves the end of leases; rows whose claim was lost are not touched.
	Renew(ctx context.Context, rows []Row, lease time.Time) (kept []bool, err error)
}

// leases keeps what is in hand ours, and lanes from filling up with what cannot be
// sent.
type leases struct {
	*env
	store    LeaseStore
	inflight *inflightSet
	dispatch *dispatcher
	finisher *finisher
	gates    *gates
	lease    time.Duration
	every    time.Duration
}

func (x *leases) run() {
	for x.wait(nil, x.every) {
		for _, it := range x.dispatch.trim() {
			x.finisher.crowdOut(it)
		}
		x.gates.sweep(x.now())
		x.renew()
	}
}

// renew moves the end of every lease in hand that has run for half its time. What
// turns out to be lost keeps its old end, so it is not sent.
func (x *leases) renew() {
	for x.running.Err() == nil {
		now := x.now()
		items := x.inflight.expiring(now, x.lease/2, renewLimit)
		if len(items) == 0 {
			return
		}
		rows := make([]Row, len(items))
		for i, it := range items {
			rows[i] = it.Row
		}
		until := now.Add(x.lease)
		kept, err := x.store.Renew(x.running, rows, until)
		if err != nil {
			x.log.Error("renew leases", "rows", len(rows), "error", err)
			return
		}
		for i, it := range items {
			if kept[i] {
				it.extend(until)
			} else {
				it.lost.Store(true)
			}
		}
	}
}
