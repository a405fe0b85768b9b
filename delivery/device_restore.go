package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
)

// DeviceRestoreStore is what restoring many devices needs.
type DeviceRestoreStore interface {
	// CountRestorable counts the devices that a filter selects, of those with ids
	// after one, as far as a window of rows goes. next is the last id that was
	// looked at; 0: there are no more.
	CountRestorable(ctx context.Context, tenant ids.ID, f devices.RestoreFilter, after ids.ID) (n int, next ids.ID, err error)
	// RestoreDevicesStep takes the steps of jobs.RestoreDevices and of
	// jobs.RetireDevices. The spec of the job
	// is a devices.RestoreFilter; what has changed since the job was made stays.
	RestoreDevicesStep(ctx context.Context, j jobs.Job) (jobs.Progress, error)
}

// DeviceRestoreOrder asks for devices of a tenant to be made active again, or for
// suspect ones to be retired.
type DeviceRestoreOrder struct {
	Tenant      ids.ID
	Filter      devices.RestoreFilter
	Retire      bool // the suspect devices that the filter selects
	Actor       string
	Idempotency *Idempotency
	// Render makes the answer that is stored with the idempotency key.
	Render func(jobs.Job) (status int, body []byte, err error)
}

// check finds what is wrong with the order.
func (o DeviceRestoreOrder) check() error {
	if o.Retire && o.Filter.Of() != devices.Suspect {
		return problem.AtField("filter.status", "must be suspect: no others are retired by hand; to forget a device, delete it")
	}
	return o.Filter.Check()
}

// deviceRestorer restores or retires many devices, by a job.
type deviceRestorer struct {
	*env
	store  DeviceRestoreStore
	orders *jobOrders
}

func (x *deviceRestorer) create(ctx context.Context, o DeviceRestoreOrder) (Answer, error) {
	if err := o.check(); err != nil {
		return Answer{}, err
	}
	kind := jobs.RestoreDevices
	if o.Retire {
		kind = jobs.RetireDevices
	}
	return x.orders.create(ctx, jobOrder{tenant: o.Tenant, kind: kind, actor: o.Actor, spec: o.Filter,
		idempotency: o.Idempotency, render: o.Render, count: func(time.Time) (int, bool, error) { return x.count(ctx, o) }})
}

// count counts what create would restore or retire now.
func (x *deviceRestorer) count(ctx context.Context, o DeviceRestoreOrder) (total int, exact bool, err error) {
	if err := o.check(); err != nil {
		return 0, false, err
	}
	after := ids.ID(0)
	for over := time.Now().Add(countTime); ; { // not the engine's clock: it bounds work
		n, next, err := x.store.CountRestorable(ctx, o.Tenant, o.Filter, after)
		if err != nil {
			return 0, false, err
		}
		if total += n; next == 0 {
			return total, true, nil
		}
		if time.Now().After(over) {
			return total, false, nil
		}
		after = next
	}
}
