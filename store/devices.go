package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

var _ devices.Store = (*Store)(nil)

const selectDevice = `SELECT ` + deviceColumns + ` FROM devices d JOIN users u ON u.tenant_id=d.tenant_id AND u.id=d.user_id WHERE `

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
func (s *Store) UpsertDevice(ctx context.Context, d devices.Device, own bool) (devices.Registered, error) {
	var res devices.Registered
	tags, err := json.Marshal(d.Tags)
	if err != nil {
		return res, err
	}
	if d.Tags == nil {
		tags = []byte("{}")
	}
	err = s.change(ctx, func(t *tx) error {
		res = devices.Registered{}
		return t.upsertDevice(d, own, string(tags), &res)
	})
	return res, err
}

func (t *tx) upsertDevice(d devices.Device, own bool, tags string, res *devices.Registered) error {
	hash := sha256.Sum256([]byte(d.Target.Address))
	place := fmt.Sprintf(":%d:%s:", d.Channel, d.App)
	locks := []string{"address" + place + string(hash[:])}
	if d.InstallationID != "" {
		locks = append(locks, "installation"+place+d.InstallationID)
	}
	if err := t.lock(d.Tenant, locks...); err != nil {
		return err
	}
	user, err := t.user(d.Tenant, d.User)
	if err != nil {
		return err
	}
	old, found, err := t.sameDevice(d, own, user, hash[:], res)
	if err != nil {
		return err
	}
	now, x := millis(t.s.now()), d.Target
	if own && (!found || old.UserID != user) {
		if err := t.exec(makeRoom, d.Tenant, user, d.Tenant, user, devices.MaxOwn-1); err != nil {
			return fmt.Errorf("make room for a device: %w", err)
		}
	}
	if !found {
		res.Created = true
		if err := t.exec(insertDevice, d.ID, d.Tenant, user, d.App, d.Channel, x.Kind, x.Address, hash[:], x.Environment, joinKeys(x), d.VAPIDKey,
			d.InstallationID, x.OS, d.AppVersion, d.Locale, d.TimeZone, tags, millis(x.RegisteredAt), millis(d.LastSeenAt), millis(d.ExpiresAt),
			now, now, now); err != nil {
			return fmt.Errorf("store a device: %w", err)
		}
		return t.readDevice(d.Tenant, d.ID, res)
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
	if err := t.exec(updateDevice, user, epoch, x.Kind, x.Address, hash[:], x.Environment, joinKeys(x), d.VAPIDKey, d.InstallationID, x.OS,
		d.AppVersion, d.Locale, d.TimeZone, tags, millis(x.RegisteredAt), millis(d.LastSeenAt), millis(d.ExpiresAt), now, now,
		old.ID, d.Tenant); err != nil {
		return fmt.Errorf("store a device: %w", err)
	}
	return t.readDevice(d.Tenant, old.ID, res)
}

// sameDevice finds the row that a registration is about: the one with its
// address, or else the one of its installation, whose place it takes. Where both
// exist, the address's row stays and the installation's goes.
func (t *tx) sameDevice(d devices.Device, own bool, user ids.ID, hash []byte, res *devices.Registered) (old devices.Device, found bool, err error) {
	byAddress, found, err := t.device(d.Tenant, `d.tenant_id=? AND d.channel=? AND d.app=? AND d.address_hash=?`, d.Tenant, d.Channel, d.App, hash)
	if err != nil || d.InstallationID == "" {
		return byAddress, found, err
	}
	byInstallation, other, err := t.device(d.Tenant, `d.tenant_id=? AND d.app=? AND d.installation_id=? AND d.installation_id<>'' AND d.channel=? AND (?=0 OR d.user_id=?)`,
		d.Tenant, d.App, d.InstallationID, d.Channel, number01(own), user)
	switch {
	case err != nil || !other:
		return byAddress, found, err
	case !found:
		res.Replaced = true
		return byInstallation, true, nil
	case byAddress.ID != byInstallation.ID:
		res.Replaced = true
		err = t.exec("DELETE FROM devices WHERE id=? AND tenant_id=?", byInstallation.ID, d.Tenant)
	}
	return byAddress, true, err
}

// device reads a device that is about to be changed.
func (t *tx) device(tenant ids.ID, where string, args ...any) (devices.Device, bool, error) {
	d, err := scanDevice(t.queryRow(t.locking(selectDevice+where+" LIMIT 1", "UPDATE OF d"), args...), tenant)
	if isNoRows(err) {
		return d, false, nil
	}
	return d, err == nil, err
}

func (t *tx) readDevice(tenant, id ids.ID, res *devices.Registered) (err error) {
	res.Device, _, err = t.device(tenant, "d.id=? AND d.tenant_id=?", id, tenant)
	return err
}

// Device implements devices.Store.
func (s *Store) Device(ctx context.Context, tenant, id ids.ID) (devices.Device, error) {
	d, err := scanDevice(s.readDB.QueryRowContext(ctx, selectDevice+"d.id=? AND d.tenant_id=?", id, tenant), tenant)
	return d, notFoundOr(err, "device")
}

// Devices implements devices.Store.
func (s *Store) Devices(ctx context.Context, tenant ids.ID, f devices.Filter) ([]devices.Device, error) {
	q := s.read.WithContext(ctx).Table("devices d").Select(deviceColumns).
		Joins("JOIN users u ON u.tenant_id=d.tenant_id AND u.id=d.user_id").
		Where("d.tenant_id=? AND d.id>?", tenant, f.After).Order("d.id").Limit(f.Limit)
	if f.User != "" {
		q = q.Where("u.external_id=?", f.User)
	}
	if f.Channel != 0 {
		q = q.Where("d.channel=?", f.Channel)
	}
	if f.Status != 0 {
		q = q.Where("d.status=?", f.Status)
	}
	if f.App != "" {
		q = q.Where("d.app=?", f.App)
	}
	rows, err := q.Rows()
	if err != nil {
		return nil, err
	}
	return collect(rows, func(r *sql.Rows) (devices.Device, error) { return scanDevice(r, tenant) })
}

// DeleteDevice implements devices.Store. Its unfinished deliveries find no
// target when their turn comes and are dropped as gone.
func (s *Store) DeleteDevice(ctx context.Context, tenant, id ids.ID, user string) error {
	return s.deleteDevice(ctx, tenant, user, "d.id=? AND d.tenant_id=?", id, tenant)
}

// DeleteAddress implements devices.Store.
func (s *Store) DeleteAddress(ctx context.Context, tenant ids.ID, k devices.AddressKey, user string) error {
	hash := sha256.Sum256([]byte(k.Address))
	return s.deleteDevice(ctx, tenant, user, "d.tenant_id=? AND d.channel=? AND d.app=? AND d.address_hash=?", tenant, k.Channel, k.App, hash[:])
}

func (s *Store) deleteDevice(ctx context.Context, tenant ids.ID, user, where string, args ...any) error {
	return s.change(ctx, func(t *tx) error {
		d, found, err := t.device(tenant, where, args...)
		if err != nil {
			return err
		}
		if !found || (user != "" && d.User != user) {
			return problem.New(problem.NotFound, "There is no such device.")
		}
		return t.exec("DELETE FROM devices WHERE id=? AND tenant_id=?", d.ID, tenant)
	})
}
