package registers

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

const insertDevice = `INSERT INTO devices (id,tenant_id,user_id,epoch,app,channel,kind,address,address_hash,environment,keys,vapid_key,
 installation_id,os,app_version,locale,time_zone,tags,registered_at,last_seen_at,expires_at,status,reason,status_at,credential_id,version,created_at,updated_at)
 VALUES (?,?,?,1,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,1,'',?,0,0,?,?)`

const updateDevice = `UPDATE devices SET user_id=?,epoch=?,kind=?,address=?,address_hash=?,environment=?,keys=?,vapid_key=?,installation_id=?,os=?,
 app_version=?,locale=?,time_zone=?,tags=?,registered_at=?,last_seen_at=?,expires_at=?,status=1,reason='',status_at=?,credential_id=0,version=0,updated_at=?
 WHERE id=? AND tenant_id=?`

// makeRoom keeps so many of a user's devices: the retired ones go first, then
// those that were not heard of for longest.
const makeRoom = `DELETE FROM devices WHERE tenant_id=? AND user_id=? AND id IN (SELECT id FROM devices INDEXED BY devices_user
 WHERE tenant_id=? AND user_id=? ORDER BY status=3, updated_at DESC, id DESC LIMIT -1 OFFSET ?)`

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
	old, found, err := sameDevice(t, d, by, user, hash[:], res)
	if err != nil {
		return err
	}
	now, x := db.Millis(t.Now()), d.Target
	event := devices.Event{Tenant: d.Tenant, Actor: by.Actor}
	if by.Own && (!found || old.UserID != user) {
		event.Kind, event.Reason = devices.EventDeleted, devices.ByLimit
		if _, err := RecordDevices(t, event, makeRoom, d.Tenant, user, d.Tenant, user, devices.MaxOwn-1); err != nil {
			return fmt.Errorf("make room for a device: %w", err)
		}
	}
	if !found {
		res.Created = true
		if err := t.Exec(insertDevice, d.ID, d.Tenant, user, d.App, d.Channel, x.Kind, x.Address, hash[:], x.Environment, joinKeys(x), d.VAPIDKey,
			d.InstallationID, x.OS, d.AppVersion, d.Locale, d.TimeZone, tags, db.Millis(x.RegisteredAt), db.Millis(d.LastSeenAt), db.Millis(d.ExpiresAt),
			now, now, now); err != nil {
			return fmt.Errorf("store a device: %w", err)
		}
		event.Kind, event.Device, event.UserID, event.Reason = devices.EventRegistered, d.ID, user, ""
		if err := RecordDevice(t, event); err != nil {
			return err
		}
		return readDevice(t, d.Tenant, d.ID, res)
	}
	epoch := old.Epoch
	if old.UserID != user {
		res.Rebound = true
		epoch++
	}
	// What the gateway has taught us outlives a registration that does not know.
	if x.Environment == "auto" && old.Target.Address == x.Address && old.Target.Environment != "" {
		x.Environment = old.Target.Environment
	}
	if d.VAPIDKey == "" && old.Target.Address == x.Address {
		d.VAPIDKey = old.VAPIDKey
	}
	if err := t.Exec(updateDevice, user, epoch, x.Kind, x.Address, hash[:], x.Environment, joinKeys(x), d.VAPIDKey, d.InstallationID, x.OS,
		d.AppVersion, d.Locale, d.TimeZone, tags, db.Millis(x.RegisteredAt), db.Millis(d.LastSeenAt), db.Millis(d.ExpiresAt), now, now,
		old.ID, d.Tenant); err != nil {
		return fmt.Errorf("store a device: %w", err)
	}
	if err := recordUpdate(t, old, user, x.Address, by); err != nil {
		return err
	}
	return readDevice(t, d.Tenant, old.ID, res)
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
// address, or else the one of its installation, whose place it takes. Where both
// exist, the address's row stays and the installation's goes.
func sameDevice(t *db.Tx, d devices.Device, by devices.Caller, user ids.ID, hash []byte, res *devices.Registered) (old devices.Device, found bool, err error) {
	byAddress, found, err := device(t, d.Tenant, `d.tenant_id=? AND d.channel=? AND d.app=? AND d.address_hash=?`, d.Tenant, d.Channel, d.App, hash)
	if err != nil || d.InstallationID == "" {
		return byAddress, found, err
	}
	byInstallation, other, err := device(t, d.Tenant, `d.tenant_id=? AND d.app=? AND d.installation_id=? AND d.installation_id<>'' AND d.channel=? AND (?=0 OR d.user_id=?)`,
		d.Tenant, d.App, d.InstallationID, d.Channel, db.Bit(by.Own), user)
	switch {
	case err != nil || !other:
		return byAddress, found, err
	case !found:
		res.Replaced = true
		return byInstallation, true, nil
	case byAddress.ID != byInstallation.ID:
		res.Replaced = true
		err = deleteDevice(t, byInstallation, by.Actor, devices.ByReplacement)
	}
	return byAddress, true, err
}
