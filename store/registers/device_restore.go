package registers

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

var _ delivery.DeviceRestoreStore = (*deviceRegister)(nil)

// restoreWindow is how many devices one step looks at, whether the filter wants
// them or not, and so the most that it changes.
const restoreWindow = db.MaxBatch

// restorable is the condition of a filter on a device d that came to its status at
// a time or before it.
func restorable(f devices.RestoreFilter, until time.Time) (condition string, args []any) {
	conditions := []string{"d.status=?", "d.status_at<=?"}
	args = []any{f.Of(), db.Millis(until)}
	and := func(wanted bool, condition string, values ...any) {
		if wanted {
			conditions, args = append(conditions, condition), append(args, values...)
		}
	}
	and(f.Reason != "", "d.reason=?", f.Reason)
	and(f.Channel != 0, "d.channel=?", f.Channel)
	and(f.App != "", "d.app=?", f.App)
	and(f.User != "", "d.user_id=(SELECT u.id FROM users u WHERE u.tenant_id=d.tenant_id AND u.external_id=?)", f.User)
	and(f.Credential != 0, "d.credential_id=?", f.Credential)
	and(f.Version != 0, "d.version=?", f.Version)
	and(!f.Since.IsZero(), "d.status_at>=?", db.Millis(f.Since))
	and(!f.Until.IsZero(), "d.status_at<?", db.Millis(f.Until))
	return strings.Join(conditions, " AND "), args
}

// selectRestorable walks the devices of a tenant. The window is cut before the
// filter is asked, so that its cost is known however little the filter wants.
func selectRestorable(condition string) string {
	return `SELECT d.id,CASE WHEN ` + condition + ` THEN 1 ELSE 0 END FROM devices d INDEXED BY devices_tenant
 WHERE d.tenant_id=? AND d.id>? ORDER BY d.id LIMIT ?`
}

// restorableDevices lists those in the window behind an id, and where the next one
// begins; 0: there is none.
func (s *deviceRegister) restorableDevices(ctx context.Context, tenant ids.ID, condition string, args []any, after ids.ID) (found []ids.ID, next ids.ID, err error) {
	rows, err := s.db.Lists().QueryContext(ctx, selectRestorable(condition), append(append([]any{}, args...), tenant, after, restoreWindow)...)
	if err != nil {
		return nil, 0, fmt.Errorf("look for devices: %w", err)
	}
	looked := 0
	_, err = db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var wanted bool
		err = r.Scan(&next, &wanted)
		if looked++; wanted {
			found = append(found, next)
		}
		return none, err
	})
	if looked < restoreWindow {
		next = 0
	}
	return found, next, err
}

// CountRestorable implements delivery.DeviceRestoreStore.
func (s *deviceRegister) CountRestorable(ctx context.Context, tenant ids.ID, f devices.RestoreFilter, after ids.ID) (n int, next ids.ID, err error) {
	condition, args := restorable(f, s.db.Now())
	found, next, err := s.restorableDevices(ctx, tenant, condition, args, after)
	return len(found), next, err
}

const (
	restoreDevice = `UPDATE devices AS d SET status=1, reason='', status_at=?, credential_id=0, version=0, updated_at=?`
	retireDevice  = `UPDATE devices AS d SET status=3, status_at=?, updated_at=?` // its reason stays that of the suspicion
)

// restoreCursor is the cursor of the job: the device that was looked at last.
type restoreCursor struct {
	After ids.ID `json:"after"`
}

// RestoreDevicesStep implements delivery.DeviceRestoreStore. A verdict of a send
// that began before a device was restored does not retire it again: see mark in the
// effects of an outcome.
func (s *deviceRegister) RestoreDevicesStep(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	var (
		f devices.RestoreFilter
		c restoreCursor
	)
	err := json.Unmarshal(j.Spec, &f)
	if err == nil && j.Cursor != nil {
		err = json.Unmarshal(j.Cursor, &c)
	}
	if err != nil {
		return jobs.Progress{}, jobs.Permanent(problem.New(problem.Invalid, "The job cannot be read; make a new one."))
	}
	condition, args := restorable(f, j.CreatedAt)
	set, event := restoreDevice, devices.EventRestored
	if j.Kind == jobs.RetireDevices {
		set, event = retireDevice, devices.EventRetired
	}
	found, next, err := s.restorableDevices(ctx, j.Tenant, condition, args, c.After)
	if err != nil {
		return jobs.Progress{}, err
	}
	return s.jobs.Step(ctx, j, 1+len(found), func(t *db.Tx) (p jobs.Progress, err error) {
		now := db.Millis(t.Now())
		for _, id := range found { // each as it is by now
			n, err := t.Affect(set+` WHERE d.id=? AND d.tenant_id=? AND `+condition,
				append([]any{now, now, id, j.Tenant}, args...)...)
			if err != nil {
				return p, fmt.Errorf("change the status of a device: %w", err)
			}
			if n == 0 {
				continue
			}
			p.Done++
			if err := RecordDevice(t, devices.Event{Tenant: j.Tenant, Device: id, Kind: event, Reason: devices.ByRequest, Actor: j.Actor}); err != nil {
				return p, err
			}
		}
		p.Skipped = len(found) - p.Done
		p.End = next == 0
		p.Cursor, err = json.Marshal(restoreCursor{After: next})
		return p, err
	})
}
