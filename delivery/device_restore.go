package delivery

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
)

// DeviceRestoreStore is what restoring many devices needs.
type DeviceRestoreStore interface {
	// CountRestorable counts the devices that a filter selects, of those with ids
	// after one, as far as a window of rows goes. next is the last id that was
	// looked at; 0: there are no more.
	CountRestorable(ctx context.Context, tenant ids.ID, f devices.RestoreFilter, after ids.ID) (n int, next ids.ID, err error)
	// RestoreDevicesStep takes the steps of jobs.RestoreDevices. The spec of the job
	// is a devices.RestoreFilter; what has changed since the job was made stays.
	RestoreDevicesStep(ctx context.Context, j jobs.Job) (jobs.Progress, error)
}

// DeviceRestoreOrder asks for devices of a tenant to be made active again.
type DeviceRestoreOrder struct {
	Tenant      ids.ID
	Filter      devices.RestoreFilter
	Actor       string
	Idempotency *Idempotency
	// Render makes the answer that is stored with the idempotency key.
	Render func(jobs.Job) (status int, body []byte, err error)
}

// deviceRestorer restores many devices, by a job.
type deviceRestorer struct {
	*env
	store  DeviceRestoreStore
	orders *jobOrders
}

func (x *deviceRestorer) create(ctx context.Context, o DeviceRestoreOrder) (Answer, error) {
	if err := o.Filter.Check(); err != nil {
		return Answer{}, err
	}
	return x.orders.create(ctx, jobOrder{tenant: o.Tenant, kind: jobs.RestoreDevices, actor: o.Actor, spec: o.Filter,
		idempotency: o.Idempotency, render: o.Render, count: func(time.Time) (int, bool, error) { return x.count(ctx, o) }})
}

// count counts what create would restore now.
func (x *deviceRestorer) count(ctx context.Context, o DeviceRestoreOrder) (total int, exact bool, err error) {
	if err := o.Filter.Check(); err != nil {
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
