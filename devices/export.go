package devices

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// ExportPage is how many devices one read of an export looks at.
const ExportPage = 1000

// ExportStore reads devices for an export.
type ExportStore interface {
	// RecordExport writes into the audit that somebody exports devices.
	RecordExport(ctx context.Context, tenant ids.ID, actor, what string) error
	// DevicesAfter lists the first ExportPage devices of a tenant behind an id, in the order
	// of their ids.
	DevicesAfter(ctx context.Context, tenant, after ids.ID) ([]Device, error)
}

// BeginExport writes down who exports devices, before anything is given away. What says in
// which form.
func (r *Registry) BeginExport(ctx context.Context, tenant ids.ID, f Filter, what, actor string) error {
	if f.App != "" {
		if !appForm.MatchString(f.App) {
			return problem.AtField("app", "is not the name of an app, which consists of 1 to 63 of a-z, 0-9, _ and -")
		}
		what += " app=" + f.App
	}
	if f.Channel != 0 {
		what += " channel=" + f.Channel.String()
	}
	if f.Status != 0 {
		what += " status=" + f.Status.String()
	}
	if f.After != 0 {
		what += " after=" + f.After.Format(ids.Device)
	}
	return r.store.RecordExport(ctx, tenant, actor, what)
}

// ExportPage reads the devices of an export that come next behind f.After. They may be few, or none:
// a page costs what it looks at. Next is where it goes on; 0: that was the last.
func (r *Registry) ExportPage(ctx context.Context, tenant ids.ID, f Filter) (list []Device, next ids.ID, err error) {
	rows, err := r.store.DevicesAfter(ctx, tenant, f.After)
	if err != nil {
		return nil, 0, err
	}
	if len(rows) == ExportPage {
		next = rows[len(rows)-1].ID
	}
	now := r.now()
	list = rows[:0]
	for _, d := range rows {
		if d.exported(f, now) {
			list = append(list, d)
		}
	}
	return list, next, nil
}

// exported tells whether a device belongs into an export. One that nothing is sent to any more does
// only where retired ones are asked for: it could not be registered again.
func (d *Device) exported(f Filter, now time.Time) bool {
	ended := d.Status == Retired || !d.ExpiresAt.IsZero() && !d.ExpiresAt.After(now)
	return (f.App == "" || d.App == f.App) && (f.Channel == 0 || d.Channel == f.Channel) &&
		(f.Status == 0 || d.Status == f.Status) && (!ended || f.Status == Retired)
}
