package registers

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// deviceRegister keeps devices.
type deviceRegister struct{ db *db.DB }

const DeviceColumns = `d.id,d.user_id,u.external_id,d.epoch,d.app,d.channel,d.kind,d.address,d.environment,d.keys,d.vapid_key,d.installation_id,d.os,
 d.app_version,d.locale,d.time_zone,d.tags,d.registered_at,d.last_seen_at,d.expires_at,d.status,d.reason,d.status_at,d.created_at,d.updated_at`

const selectDevice = `SELECT ` + DeviceColumns + ` FROM devices d JOIN users u ON u.tenant_id=d.tenant_id AND u.id=d.user_id WHERE `

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
func (s *deviceRegister) UpsertDevice(ctx context.Context, d devices.Device, own bool) (devices.Registered, error) {
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
		return upsertDevice(t, d, own, string(tags), &res)
	})
	return res, err
}

func upsertDevice(t *db.Tx, d devices.Device, own bool, tags string, res *devices.Registered) error {
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
	old, found, err := sameDevice(t, d, own, user, hash[:], res)
	if err != nil {
		return err
	}
	now, x := db.Millis(t.Now()), d.Target
	if own && (!found || old.UserID != user) {
		if err := t.Exec(makeRoom, d.Tenant, user, d.Tenant, user, devices.MaxOwn-1); err != nil {
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
	if err := t.Exec(updateDevice, user, epoch, x.Kind, x.Address, hash[:], x.Environment, joinKeys(x), d.VAPIDKey, d.InstallationID, x.OS,
		d.AppVersion, d.Locale, d.TimeZone, tags, db.Millis(x.RegisteredAt), db.Millis(d.LastSeenAt), db.Millis(d.ExpiresAt), now, now,
		old.ID, d.Tenant); err != nil {
		return fmt.Errorf("store a device: %w", err)
	}
	return readDevice(t, d.Tenant, old.ID, res)
}

// sameDevice finds the row that a registration is about: the one with its
// address, or else the one of its installation, whose place it takes. Where both
// exist, the address's row stays and the installation's goes.
func sameDevice(t *db.Tx, d devices.Device, own bool, user ids.ID, hash []byte, res *devices.Registered) (old devices.Device, found bool, err error) {
	byAddress, found, err := device(t, d.Tenant, `d.tenant_id=? AND d.channel=? AND d.app=? AND d.address_hash=?`, d.Tenant, d.Channel, d.App, hash)
	if err != nil || d.InstallationID == "" {
		return byAddress, found, err
	}
	byInstallation, other, err := device(t, d.Tenant, `d.tenant_id=? AND d.app=? AND d.installation_id=? AND d.installation_id<>'' AND d.channel=? AND (?=0 OR d.user_id=?)`,
		d.Tenant, d.App, d.InstallationID, d.Channel, db.Bit(own), user)
	switch {
	case err != nil || !other:
		return byAddress, found, err
	case !found:
		res.Replaced = true
		return byInstallation, true, nil
	case byAddress.ID != byInstallation.ID:
		res.Replaced = true
		err = t.Exec("DELETE FROM devices WHERE id=? AND tenant_id=?", byInstallation.ID, d.Tenant)
	}
	return byAddress, true, err
}

// device reads a device that is about to be changed.
func device(t *db.Tx, tenant ids.ID, where string, args ...any) (devices.Device, bool, error) {
	d, err := scanDevice(t.QueryRow(t.Locking(selectDevice+where+" LIMIT 1", "UPDATE OF d"), args...), tenant)
	if db.IsNoRows(err) {
		return d, false, nil
	}
	return d, err == nil, err
}

func readDevice(t *db.Tx, tenant, id ids.ID, res *devices.Registered) (err error) {
	res.Device, _, err = device(t, tenant, "d.id=? AND d.tenant_id=?", id, tenant)
	return err
}

// Device implements devices.Store.
func (s *deviceRegister) Device(ctx context.Context, tenant, id ids.ID) (devices.Device, error) {
	d, err := scanDevice(s.db.Reads().QueryRowContext(ctx, selectDevice+"d.id=? AND d.tenant_id=?", id, tenant), tenant)
	return d, db.NotFoundOr(err, "device")
}

// Devices implements devices.Store.
func (s *deviceRegister) Devices(ctx context.Context, tenant ids.ID, f devices.Filter) ([]devices.Device, error) {
	q := s.db.Gorm(ctx).Table("devices d").Select(DeviceColumns).
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
	return db.Collect(rows, func(r *sql.Rows) (devices.Device, error) { return scanDevice(r, tenant) })
}

// DeleteDevice implements devices.Store. Its unfinished deliveries find no
// target when their turn comes and are dropped as gone.
func (s *deviceRegister) DeleteDevice(ctx context.Context, tenant, id ids.ID, user string) error {
	return s.deleteDevice(ctx, tenant, user, "d.id=? AND d.tenant_id=?", id, tenant)
}

// DeleteAddress implements devices.Store.
func (s *deviceRegister) DeleteAddress(ctx context.Context, tenant ids.ID, k devices.AddressKey, user string) error {
	hash := sha256.Sum256([]byte(k.Address))
	return s.deleteDevice(ctx, tenant, user, "d.tenant_id=? AND d.channel=? AND d.app=? AND d.address_hash=?", tenant, k.Channel, k.App, hash[:])
}

func (s *deviceRegister) deleteDevice(ctx context.Context, tenant ids.ID, user, where string, args ...any) error {
	return s.db.Change(ctx, func(t *db.Tx) error {
		d, found, err := device(t, tenant, where, args...)
		if err != nil {
			return err
		}
		if !found || (user != "" && d.User != user) {
			return problem.New(problem.NotFound, "There is no such device.")
		}
		return t.Exec("DELETE FROM devices WHERE id=? AND tenant_id=?", d.ID, tenant)
	})
}

// UnretireDevices implements delivery.DoubtStore.
func (s *deviceRegister) UnretireDevices(ctx context.Context, credential ids.ID, version int, since, now time.Time) (int, error) {
	var n int64
	err := s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) (err error) {
		n, err = t.Affect(`UPDATE devices SET status=?, status_at=?, updated_at=? WHERE credential_id=? AND version=? AND status>1 AND status=? AND status_at>=?`,
			devices.Suspect, db.Millis(now), db.Millis(now), credential, version, devices.Retired, db.Millis(since))
		return err
	})
	return int(n), err
}

func scanDevice(r db.Scanner, tenant ids.ID) (devices.Device, error) {
	var (
		d                                                       = devices.Device{Tenant: tenant}
		keys                                                    []byte
		tags                                                    string
		registered, seen, expires, statusAt, created, updatedAt int64
		t                                                       = &d.Target
	)
	err := r.Scan(&d.ID, &d.UserID, &d.User, &d.Epoch, &d.App, &d.Channel, &t.Kind, &t.Address, &t.Environment, &keys, &d.VAPIDKey,
		&d.InstallationID, &t.OS, &d.AppVersion, &d.Locale, &d.TimeZone, &tags, &registered, &seen, &expires,
		&d.Status, &d.Reason, &statusAt, &created, &updatedAt)
	if err != nil {
		return d, err
	}
	t.P256dh, t.Auth = SplitKeys(keys)
	t.RegisteredAt, d.LastSeenAt, d.ExpiresAt = db.FromMillis(registered), db.FromMillis(seen), db.FromMillis(expires)
	d.StatusAt, d.CreatedAt, d.UpdatedAt = db.FromMillis(statusAt), db.FromMillis(created), db.FromMillis(updatedAt)
	if tags != "" && tags != "{}" {
		err = json.NewDecoder(strings.NewReader(tags)).Decode(&d.Tags)
	}
	return d, err
}

// SplitKeys parts the stored keys of a subscription: p256dh (65 octets), auth (16).
func SplitKeys(keys []byte) (p256dh, auth []byte) {
	const point = 65
	if len(keys) <= point {
		return nil, nil
	}
	return keys[:point:point], keys[point:]
}

func joinKeys(t channels.Target) []byte {
	return append(append(make([]byte, 0, len(t.P256dh)+len(t.Auth)), t.P256dh...), t.Auth...)
}

// User finds or makes the row of a user: users exist from first sight. It cannot
// be erased before the transaction ends.
func User(t *db.Tx, tenant ids.ID, external string) (ids.ID, error) {
	for {
		var id ids.ID
		found, err := t.One(t.Locking("SELECT id FROM users WHERE tenant_id=? AND external_id=?", "SHARE"), []any{tenant, external}, &id)
		if err != nil || found {
			return id, err
		}
		id = t.NextID()
		n, err := t.Affect("INSERT INTO users (tenant_id,id,external_id) VALUES (?,?,?) ON CONFLICT DO NOTHING", tenant, id, external)
		if err != nil || n == 1 {
			return id, err
		} // another node was faster: its row is there now
	}
}
