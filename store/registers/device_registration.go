package registers

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

const insertDevice = `INSERT INTO devices (id,tenant_id,user_id,epoch,app,channel,kind,address,address_hash,environment,keys,vapid_key,
 installation_id,os,app_version,locale,time_zone,tags,registered_at,last_seen_at,expires_at,status,reason,status_at,credential_id,version,created_at,updated_at,
 purpose,activity_id)
 VALUES (?,?,?,1,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,1,'',?,0,0,?,?,?,?)`

const updateDevice = `UPDATE devices SET user_id=?,epoch=?,kind=?,address=?,address_hash=?,environment=?,keys=?,vapid_key=?,installation_id=?,os=?,
 app_version=?,locale=?,time_zone=?,tags=?,registered_at=?,last_seen_at=?,expires_at=?,status=1,reason='',status_at=?,credential_id=0,version=0,updated_at=?,
 purpose=?,activity_id=? WHERE id=? AND tenant_id=?`

const (
	sameInstallation = `d.tenant_id=? AND d.app=? AND d.installation_id=? AND d.installation_id<>'' AND d.channel=? AND d.purpose=? AND d.activity_id=?
 AND (?=0 OR d.user_id=?)`

	// forgetInstallations keeps so many of a user's installations, the one of a
	// device among them. Those of which all devices are retired go first, then those
	// that were not heard of for longest; each goes with all its devices. A device
	// without an installation id is one by itself.
	forgetInstallations = `DELETE FROM devices WHERE tenant_id=?1 AND user_id=?2 AND id IN (
 SELECT id FROM (SELECT id, DENSE_RANK() OVER (ORDER BY kept DESC, retired, heard DESC, newest DESC) AS place FROM (
  SELECT id, MAX(CASE WHEN id=?3 THEN 1 ELSE 0 END) OVER same AS kept, MIN(CASE WHEN status=3 THEN 1 ELSE 0 END) OVER same AS retired,
   MAX(updated_at) OVER same AS heard, MAX(id) OVER same AS newest
  FROM devices INDEXED BY devices_user WHERE tenant_id=?1 AND user_id=?2
  WINDOW same AS (PARTITION BY app, installation_id, CASE installation_id WHEN '' THEN id ELSE 0 END)) w) p WHERE place>?4)`

	// forgetActivities keeps so many Live Activities that a user has at an
	// installation, a device's among them: those that are retired or have ended go first, then those that
	// were not heard of for longest.
	forgetActivities = `DELETE FROM devices WHERE tenant_id=?1 AND id IN (SELECT id FROM devices INDEXED BY devices_installation
 WHERE tenant_id=?1 AND app=?2 AND installation_id=?3 AND installation_id<>'' AND channel=?4 AND purpose=?5 AND user_id=?6
 ORDER BY CASE WHEN id=?7 THEN 0 WHEN status<3 AND expires_at>?8 THEN 1 ELSE 2 END, updated_at DESC, id DESC LIMIT -1 OFFSET ?9)`
)

// UpsertDevice implements devices.Store.
func (s *deviceRegister) UpsertDevice(ctx context.Context, d devices.Device, by devices.Caller) (devices.Registered, error) {
	var res devices.Registered
	tags, err := json.Marshal(d.Tags)
	if err != nil {
		return res, err
	}
	if d.Tags == nil {
		tags = []byte("{}")
	}
	err = s.db.Change(ctx, func(t *db.Tx) error {
		res = devices.Registered{}
		return upsertDevice(t, d, by, string(tags), &res)
	})
	return res, err
}

func upsertDevice(t *db.Tx, d devices.Device, by devices.Caller, tags string, res *devices.Registered) error {
	d.Purpose = cmp.Or(d.Purpose, channels.Alert)
	hash := sha256.Sum256([]byte(d.Target.Address))
	place := fmt.Sprintf(":%d:%s:", d.Channel, d.App)
	locks := []string{"address" + place + string(hash[:])}
	if d.InstallationID != "" {
		locks = append(locks, "installation"+place+d.InstallationID)
	}
	if err := t.Lock(d.Tenant, locks...); err != nil {
		return err
	}
	user, err := User(t, d.Tenant, d.User)
	if err != nil {
		return err
	}
	d.UserID = user
	old, found, err := sameDevice(t, d, by, hash[:], res)
	if err != nil {
		return err
	}
	if found {
		d.ID, res.Rebound = old.ID, old.UserID != user
		err = changeDevice(t, d, old, by, hash[:], tags)
	} else if by.Full != nil {
		return by.Full
	} else {
		res.Created = true
		err = addDevice(t, d, by, hash[:], tags)
	}
	if err != nil {
		return err
	}
	if by.Own && (!found || res.Rebound || old.InstallationID != d.InstallationID) {
		if err := forget(t, d.Tenant, by, forgetInstallations, d.Tenant, user, d.ID, devices.MaxOwn); err != nil {
			return err
		}
	}
	if d.Purpose == channels.Activity && d.InstallationID != "" {
		if err := forget(t, d.Tenant, by, forgetActivities, d.Tenant, d.App, d.InstallationID, d.Channel, d.Purpose, user, d.ID,
			db.Millis(t.Now()), devices.MaxActivities); err != nil {
			return err
		}
	}
	return readDevice(t, d.Tenant, d.ID, res)
}

// forget removes devices that are too many, as deleteDevice does: those that a user's
// token pushes out leave no history.
func forget(t *db.Tx, tenant ids.ID, by devices.Caller, query string, args ...any) error {
	if !by.Own {
		_, err := RecordDevices(t, devices.Event{Kind: devices.EventDeleted, Reason: devices.ByLimit, Actor: by.Actor}, query, args...)
		if err != nil {
			return fmt.Errorf("make room for a device: %w", err)
		}
		return nil
	}
	gone, err := changedDevices(t, query, args...)
	if err != nil {
		return fmt.Errorf("make room for a device: %w", err)
	}
	for _, d := range gone {
		if err := forgetHistory(t, tenant, d.id); err != nil {
			return err
		}
	}
	return nil
}

func addDevice(t *db.Tx, d devices.Device, by devices.Caller, hash []byte, tags string) error {
	now, x := db.Millis(t.Now()), d.Target
	if err := t.Exec(insertDevice, d.ID, d.Tenant, d.UserID, d.App, d.Channel, x.Kind, x.Address, hash, x.Environment, joinKeys(x), d.VAPIDKey,
		d.InstallationID, x.OS, d.AppVersion, d.Locale, d.TimeZone, tags, db.Millis(x.RegisteredAt), db.Millis(d.LastSeenAt), db.Millis(d.ExpiresAt),
		now, now, now, d.Purpose, d.ActivityID); err != nil {
		return fmt.Errorf("store a device: %w", err)
	}
	return RecordDevice(t, devices.Event{Tenant: d.Tenant, Device: d.ID, Kind: devices.EventRegistered, UserID: d.UserID, Actor: by.Actor})
}

// changeDevice writes a registration over what was known of the device.
func changeDevice(t *db.Tx, d, old devices.Device, by devices.Caller, hash []byte, tags string) error {
	now, x, epoch := db.Millis(t.Now()), d.Target, old.Epoch
	if old.UserID != d.UserID || old.Purpose != d.Purpose || old.ActivityID != d.ActivityID {
		epoch++ // what waits was meant for somebody, or something, else
	}
	// What the gateway has taught us outlives a registration that does not know.
	if x.Environment == "auto" && old.Target.Address == x.Address && old.Target.Environment != "" {
		x.Environment = old.Target.Environment
	}
	if d.VAPIDKey == "" && old.Target.Address == x.Address {
		d.VAPIDKey = old.VAPIDKey
	}
	if err := t.Exec(updateDevice, d.UserID, epoch, x.Kind, x.Address, hash, x.Environment, joinKeys(x), d.VAPIDKey, d.InstallationID, x.OS,
		d.AppVersion, d.Locale, d.TimeZone, tags, db.Millis(x.RegisteredAt), db.Millis(d.LastSeenAt), db.Millis(d.ExpiresAt), now, now,
		d.Purpose, d.ActivityID, old.ID, d.Tenant); err != nil {
		return fmt.Errorf("store a device: %w", err)
	}
	return recordUpdate(t, old, d.UserID, x.Address, by)
}

// recordUpdate records what a registration has changed about a device: mostly
// nothing that matters.
func recordUpdate(t *db.Tx, old devices.Device, user ids.ID, address string, by devices.Caller) error {
	e := devices.Event{Tenant: old.Tenant, Device: old.ID, Actor: by.Actor}
	if old.Target.Address != address {
		e.Kind = devices.EventAddressChanged
		if err := RecordDevice(t, e); err != nil {
			return err
		}
	}
	if old.UserID != user {
		e.Kind, e.UserID = devices.EventRebound, user
		if err := RecordDevice(t, e); err != nil {
			return err
		}
	}
	if old.Status == devices.Active {
		return nil
	}
	e.Kind, e.UserID, e.Reason = devices.EventRestored, 0, devices.ByRegistration
	return RecordDevice(t, e)
}

// sameDevice finds the row that a registration is about: the one with its
// address, or else the one of its installation with its purpose, whose place it
// takes. Where both exist, the address's row stays and the installation's goes.
func sameDevice(t *db.Tx, d devices.Device, by devices.Caller, hash []byte, res *devices.Registered) (old devices.Device, found bool, err error) {
	byAddress, found, err := device(t, d.Tenant, `d.tenant_id=? AND d.channel=? AND d.app=? AND d.address_hash=?`, d.Tenant, d.Channel, d.App, hash)
	if err != nil || d.InstallationID == "" {
		return byAddress, found, err
	}
	byInstallation, other, err := device(t, d.Tenant, sameInstallation,
		d.Tenant, d.App, d.InstallationID, d.Channel, d.Purpose, d.ActivityID, db.Bit(by.Own), d.UserID)
	switch {
	case err != nil || !other:
		return byAddress, found, err
	case !found:
		res.Replaced = true
		return byInstallation, true, nil
	case byAddress.ID != byInstallation.ID:
		res.Replaced = true
		err = deleteDevice(t, byInstallation, by, devices.ByReplacement)
	}
	return byAddress, true, err
}
