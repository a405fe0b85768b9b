package registers

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// DeviceKinds are the channels whose targets are devices.
func DeviceKinds() []channels.Kind {
	return slices.DeleteFunc(channels.Kinds(), func(k channels.Kind) bool { return k == channels.Webhook })
}

// appSpec is the spec of the job.
type appSpec struct {
	App string `json:"app"`
}

// appCursor is where a deletion goes on: in the devices of a channel, behind an
// address.
type appCursor struct {
	Channel int    `json:"channel"` // which of DeviceKinds
	After   []byte `json:"after,omitempty"`
	Second  bool   `json:"second,omitempty"` // the second time, for what was on its way
}

// NoSuchApp is the answer where there is none.
func NoSuchApp() error {
	return problem.New(problem.NotFound, "There is no such app, or it is being deleted.")
}

// DeleteApp implements tenants.CredentialStore. The app and its credentials are gone
// with the transaction; its devices are left to a job.
func (s *credentialRegister) DeleteApp(ctx context.Context, tenant ids.ID, name string, c tenants.Change) (ids.ID, error) {
	spec, err := json.Marshal(appSpec{App: name})
	if err != nil {
		return 0, err
	}
	there, err := AppExists(ctx, s.db.Reads(), tenant, name)
	if err != nil {
		return 0, err
	}
	if !there {
		return 0, NoSuchApp()
	}
	job := s.db.IDs().Next()
	err = s.db.Change(ctx, func(t *db.Tx) error {
		if err := t.LockTenant(tenant, false); err != nil {
			return err
		}
		if err := t.Exec("DELETE FROM apps WHERE tenant_id=? AND name=?", tenant, name); err != nil {
			return err
		}
		if err := s.deleteCredentialsOf(t, tenant, name); err != nil {
			return fmt.Errorf("delete the credentials of an app: %w", err)
		}
		if err := CreateJob(t, jobs.Job{ID: job, Tenant: tenant, Kind: jobs.DeleteApp, Spec: spec, Actor: c.Actor, CreatedAt: t.Now()}, name); err != nil {
			return err
		}
		return t.Audit(tenant, c.Actor, c.Action, name)
	})
	return job, err
}

// deleteCredentialsOf deletes the credentials of an app, of which there are at most
// tenants.MaxCredentials, and lets go of what is held because of them. Its suspects are
// retired, not made active: what is active and has changed since counts as registered
// anew.
func (s *credentialRegister) deleteCredentialsOf(t *db.Tx, tenant ids.ID, app string) error {
	rows, err := t.Query("SELECT id FROM credentials WHERE tenant_id=? AND app=? ORDER BY id", tenant, app)
	if err != nil {
		return err
	}
	list, err := db.Collect(rows, db.ScanID)
	if err != nil {
		return err
	}
	for _, id := range list {
		if err := removeCredential(t, tenant, id); err != nil {
			return err
		}
		for scope, ending := range map[delivery.HoldScope]delivery.Ending{
			delivery.HoldCredential: delivery.Resume, delivery.HoldRefusal: delivery.Resume, delivery.HoldDoubt: delivery.Confirm,
		} {
			if err := s.holds.End(t, delivery.Hold{Tenant: tenant, Scope: scope, Subject: id}, ending); err != nil {
				return err
			}
		}
	}
	return nil
}

// selectAppsDevices walks the devices of an app on a channel. The window is cut before
// it is asked which were there when the app was deleted, so that its cost is known.
const selectAppsDevices = `SELECT id,address_hash,CASE WHEN ` + before + ` THEN 1 ELSE 0 END FROM devices INDEXED BY devices_address
 WHERE tenant_id=? AND channel=? AND app=? AND address_hash>? ORDER BY address_hash LIMIT ?`

// before is true of a device that was not registered since a time. A registration makes
// it active, which verdicts on its app's last sends do not.
const before = `(status_at<=? OR status>1)`

// DeleteAppStep implements delivery.ErasureStore.
func (s *credentialRegister) DeleteAppStep(ctx context.Context, j jobs.Job) (jobs.Progress, error) {
	var (
		spec appSpec
		c    appCursor
	)
	err := json.Unmarshal(j.Spec, &spec)
	if err == nil && j.Cursor != nil {
		err = json.Unmarshal(j.Cursor, &c)
	}
	kinds := DeviceKinds()
	if err != nil || c.Channel < 0 || c.Channel >= len(kinds) {
		return jobs.Progress{}, jobs.Permanent(problem.New(problem.Invalid, "The job cannot be read; make a new one."))
	}
	cut := db.Millis(j.CreatedAt)
	found, last, err := s.devicesOfApp(ctx, j.Tenant, spec.App, kinds[c.Channel], c.After, cut)
	if err != nil {
		return jobs.Progress{}, err
	}
	return s.jobs.Step(ctx, j, 1+len(found), func(t *db.Tx) (p jobs.Progress, err error) {
		if p.Done, err = deleteDevicesOfApp(t, j, spec.App, found, cut); err != nil {
			return p, err
		}
		next := appCursor{Channel: c.Channel, After: last, Second: c.Second}
		if last == nil {
			next.Channel++
		}
		if next.Channel == len(kinds) {
			// What was on its way has found no credential, and need not wait for one.
			for _, k := range kinds {
				if err := s.holds.End(t, delivery.Hold{Tenant: j.Tenant, Scope: delivery.HoldMissing, App: spec.App, Channel: k}, delivery.Resume); err != nil {
					return p, err
				}
			}
			p.End, p.NotBefore = c.Second, j.CreatedAt.Add(delivery.EraseGrace)
			next = appCursor{Second: true}
		}
		p.Cursor, err = json.Marshal(next)
		return p, err
	})
}

// devicesOfApp finds those of a window that were there at a time, and the address at
// which the next window begins; nil: there is none.
func (s *credentialRegister) devicesOfApp(ctx context.Context, tenant ids.ID, app string, k channels.Kind, after []byte, cut int64) (found []ids.ID, last []byte, err error) {
	if after == nil {
		after = []byte{}
	}
	rows, err := s.db.Lists().QueryContext(ctx, selectAppsDevices, cut, tenant, k, app, after, restoreWindow)
	if err != nil {
		return nil, nil, fmt.Errorf("look for the devices of an app: %w", err)
	}
	looked := 0
	_, err = db.Collect(rows, func(r *sql.Rows) (none struct{}, err error) {
		var (
			id   ids.ID
			hash []byte
			goes bool
		)
		err = r.Scan(&id, &hash, &goes)
		if looked++; goes {
			found = append(found, id)
		}
		last = hash
		return none, err
	})
	if looked < restoreWindow {
		last = nil
	}
	return found, last, err
}

// deleteDevicesOfApp deletes devices, each as it is by now.
func deleteDevicesOfApp(t *db.Tx, j jobs.Job, app string, list []ids.ID, cut int64) (deleted int, err error) {
	for _, id := range list {
		n, err := t.Affect("DELETE FROM devices WHERE id=? AND tenant_id=? AND app=? AND "+before, id, j.Tenant, app, cut)
		if err != nil {
			return deleted, fmt.Errorf("delete a device of an app: %w", err)
		}
		if n == 0 {
			continue
		}
		deleted++
		if err := RecordDevice(t, devices.Event{Tenant: j.Tenant, Device: id, Kind: devices.EventDeleted, Reason: devices.ByApp, Actor: j.Actor}); err != nil {
			return deleted, err
		}
	}
	return deleted, nil
}
