package queue

import (
	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/store/registers"
	"github.com/carillonhq/carillon/webhooks"
)

// effects writes what a verdict says beyond its delivery. It holds even when the
// delivery itself was lost to another node: the provider did answer.
func effects(t *db.Tx, f *delivery.Finish) error {
	if f.Prove {
		if err := t.Exec(`UPDATE credential_versions SET proven_at=? WHERE credential_id=? AND version=? AND proven_at=0`,
			db.Millis(f.Now), f.Credential, f.Version); err != nil {
			return err
		}
	}
	if f.Learned != "" {
		if err := t.Exec(`UPDATE devices SET environment=?, updated_at=? WHERE id=? AND tenant_id=? AND epoch=? AND environment='auto'`,
			f.Learned, db.Millis(f.Now), f.Row.Target, f.Row.Tenant, f.Row.Epoch); err != nil {
			return err
		}
	}
	if f.LearnedKey != "" {
		if err := t.Exec(`UPDATE devices SET vapid_key=?, updated_at=? WHERE id=? AND tenant_id=? AND epoch=? AND status_at<=?`,
			f.LearnedKey, db.Millis(f.Now), f.Row.Target, f.Row.Tenant, f.Row.Epoch, db.Millis(f.StartedAt)); err != nil {
			return err
		}
	}
	r := f.Row
	code := ""
	if f.Attempt != nil {
		code = f.Attempt.Code
	}
	switch f.Transition.Device {
	case delivery.DeviceUntouched:
	case delivery.DeviceConfirmed:
		if r.Channel != channels.Webhook {
			n, err := t.Affect(`UPDATE devices SET status=1, reason='', status_at=?, updated_at=? WHERE id=? AND tenant_id=? AND epoch=? AND status=2`,
				db.Millis(f.Now), db.Millis(f.Now), r.Target, r.Tenant, r.Epoch)
			if err != nil || n == 0 {
				return err
			}
			return registers.RecordDevice(t, devices.Event{Tenant: r.Tenant, Device: r.Target, Kind: devices.EventRestored, Reason: devices.BySend,
				Credential: f.Credential, Version: f.Version, Actor: devices.EngineActor})
		}
	case delivery.DeviceSuspect:
		return mark(t, f, devices.Suspect, devices.Active, code)
	case delivery.DeviceRefused:
		return mark(t, f, devices.Suspect, devices.Active, code)
	case delivery.DeviceRetired:
		if r.Channel == channels.Webhook {
			return disable(t, f, code)
		}
		return mark(t, f, devices.Retired, devices.Suspect, code)
	}
	return nil
}

// mark makes a device suspect or retired, unless it was registered again after
// the attempt began or belongs to another user by now. A device that was refused
// names no credential: what is confirmed of others says nothing of it.
func mark(t *db.Tx, f *delivery.Finish, to, atMost devices.Status, code string) error {
	r := f.Row
	by, version := f.Credential, f.Version
	if f.Transition.Device == delivery.DeviceRefused {
		by, version = 0, 0
	}
	n, err := t.Affect(`UPDATE devices SET status=?, reason=?, status_at=?, credential_id=?, version=?, updated_at=?
 WHERE id=? AND tenant_id=? AND epoch=? AND status<=? AND registered_at<=? AND status_at<=?
 AND NOT EXISTS (SELECT 1 FROM credentials c WHERE c.id=? AND c.version>?)`,
		to, code, db.Millis(f.Now), by, version, db.Millis(f.Now),
		r.Target, r.Tenant, r.Epoch, atMost, db.Millis(f.StartedAt), db.Millis(f.StartedAt), f.Credential, f.Version)
	if err != nil || n == 0 {
		return err
	}
	e := devices.Event{Tenant: r.Tenant, Device: r.Target, Kind: devices.EventSuspected, Reason: code, Credential: f.Credential, Version: f.Version, Actor: devices.EngineActor}
	if to == devices.Retired {
		e.Kind = devices.EventRetired
	}
	return registers.RecordDevice(t, e)
}

// disable ends an endpoint that said it is gone, unless it was changed after the
// attempt began; what else waits for it is held.
func disable(t *db.Tx, f *delivery.Finish, code string) error {
	n, err := t.Affect(`UPDATE endpoints SET status=?, reason=?, updated_at=CASE WHEN updated_at>=? THEN updated_at+1 ELSE ? END
 WHERE id=? AND tenant_id=? AND status<>? AND updated_at<=?`,
		webhooks.Disabled, code, db.Millis(f.Now), db.Millis(f.Now), f.Row.Target, f.Row.Tenant, webhooks.Disabled, db.Millis(f.StartedAt))
	if err != nil || n == 0 {
		return err
	}
	if err := t.Audit(f.Row.Tenant, "engine", "endpoint.disable", f.Row.Target.Format(ids.Endpoint)); err != nil {
		return err
	}
	_, _, err = openHold(t, delivery.Hold{Tenant: f.Row.Tenant, Scope: delivery.HoldEndpoint, Subject: f.Row.Target,
		Channel: channels.Webhook, Reason: delivery.EndpointPaused, Detail: code, Since: f.Now})
	return err
}
