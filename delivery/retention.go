package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/tenants"
)

const purgeLimit = 1000 // rows of each table in one transaction

// Retention says how long things are kept.
type Retention struct {
	SentPayload time.Duration // content of notifications with nothing unfinished or dead
	DeadPayload time.Duration // content of dead letters
	Rows        time.Duration // notifications and all that belongs to them
}

// For is the retention of a tenant with these settings: what they leave out is
// the server's.
func (r Retention) For(own tenants.Retention) Retention {
	replace := func(d *time.Duration, ms *int64) {
		if ms != nil {
			*d = time.Duration(*ms) * time.Millisecond
		}
	}
	replace(&r.SentPayload, own.Sent)
	replace(&r.DeadPayload, own.Dead)
	replace(&r.Rows, own.Rows)
	return r
}

// DefaultRetention is 24 h for content, 30 days for dead letters and rows.
func DefaultRetention() Retention {
	const day = 24 * time.Hour
	return Retention{SentPayload: day, DeadPayload: 30 * day, Rows: 30 * day}
}

// RetentionStore removes what is past its time.
type RetentionStore interface {
	// Purge removes up to limit rows of each table that are past their time: the
	// tenant's own where its settings name one, r otherwise.
	Purge(ctx context.Context, r Retention, now time.Time, limit int) (int, error)
}

// purger removes what is past its retention, and what is in memory for nothing.
type purger struct {
	*env
	store     RetentionStore
	duties    *duties
	tenants   *tenantCache
	senders   *senders
	breakers  *breakers
	refusals  *refusals
	retention Retention
	every     time.Duration
}

func (p *purger) run() {
	for p.wait(nil, p.every) {
		if p.duties.take("purge", p.every) {
			p.purge()
		}
		p.forgetUnused()
	}
}

func (p *purger) purge() {
	for p.running.Err() == nil {
		n, err := p.store.Purge(p.running, p.retention, p.now(), purgeLimit)
		if err != nil {
			p.log.Error("purge", "error", err)
		}
		if err != nil || n < purgeLimit {
			return
		}
	}
}

func (p *purger) forgetUnused() {
	p.tenants.dropIdle(p.now().Add(-idleTenant))
	inUse := p.tenants.versions()
	p.senders.prune(inUse)
	p.breakers.prune(inUse)
	p.refusals.prune(inUse, p.now())
}
