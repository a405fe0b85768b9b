package registers

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"strings"
	"time"

	"gorm.io/gorm"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
)

// deviceRegister keeps devices.
type deviceRegister struct {
	db   *db.DB
	jobs *jobRegister // whose steps are taken here
}

const DeviceColumns = `d.id,d.user_id,u.external_id,d.epoch,d.app,d.channel,d.kind,d.address,d.environment,d.keys,d.vapid_key,d.installation_id,d.os,
 d.app_version,d.locale,d.time_zone,d.tags,d.registered_at,d.last_seen_at,d.expires_at,d.status,d.reason,d.status_at,d.created_at,d.updated_at,
 d.purpose,d.activity_id`

const selectDevice = `SELECT ` + DeviceColumns + ` FROM devices d JOIN users u ON u.tenant_id=d.tenant_id AND u.id=d.user_id WHERE `

// device reads a device that is about to be changed.
func device(t *db.Tx, tenant ids.ID, where string, args ...any) (devices.Device, bool, error) {
	d, err := scanDevice(t.QueryRow(t.Locking(selectDevice+where+" LIMIT 1", "UPDATE OF d"), args...), tenant)
	if db.IsNoRows(err) {
		return d, false, nil
	}
	return d, err == nil, err
}

// Device implements devices.Store.
func (s *deviceRegister) Device(ctx context.Context, tenant, id ids.ID) (devices.Device, error) {
	d, err := scanDevice(s.db.Reads().QueryRowContext(ctx, selectDevice+"d.id=? AND d.tenant_id=?", id, tenant), tenant)
	return d, db.NotFoundOr(err, "device")
}

// Devices implements devices.Store.
func (s *deviceRegister) Devices(ctx context.Context, tenant ids.ID, f devices.Filter) ([]devices.Device, error) {
	q := s.list(ctx, tenant, f).Select(DeviceColumns).Joins("JOIN users u ON u.tenant_id=d.tenant_id AND u.id=d.user_id").Limit(f.Limit)
	if f.To != 0 {
		q = q.Where("d.id<=?", f.To)
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

// list is the devices of a tenant, or of a user, in order: an index leads to each.
func (s *deviceRegister) list(ctx context.Context, tenant ids.ID, f devices.Filter) *gorm.DB {
	q := s.db.Gorm(ctx).Table("devices d").Where("d.tenant_id=? AND d.id>?", tenant, f.After).Order("d.id")
	if f.User != "" {
		q = q.Where("d.user_id=(SELECT id FROM users WHERE tenant_id=? AND external_id=?)", tenant, f.User)
	}
	return q
}

// lookAt is how many devices a page of a filtered list looks at.
const lookAt = 5000

// DeviceWindow implements devices.Store.
func (s *deviceRegister) DeviceWindow(ctx context.Context, tenant ids.ID, f devices.Filter) (ids.ID, error) {
	if f.Channel == 0 && f.Status == 0 && f.App == "" {
		return 0, nil
	}
	rows, err := s.window(ctx, tenant, f).Rows()
	if err != nil {
		return 0, err
	}
	last, err := db.Collect(rows, db.ScanID)
	if err != nil || len(last) == 0 {
		return 0, err
	}
	return last[0], nil
}

func (s *deviceRegister) window(ctx context.Context, tenant ids.ID, f devices.Filter) *gorm.DB {
	return s.list(ctx, tenant, f).Select("d.id").Limit(1).Offset(lookAt - 1)
}

const updateDetails = `UPDATE devices SET app_version=?, locale=?, time_zone=?, tags=? WHERE id=? AND tenant_id=?`

// UpdateDevice implements devices.Store. The row's age stays: it is how long nothing was
// heard of the device.
func (s *deviceRegister) UpdateDevice(ctx context.Context, tenant, id ids.ID, p devices.Patch) (d devices.Device, err error) {
	err = s.db.Change(ctx, func(t *db.Tx) error {
		var found bool
		if d, found, err = device(t, tenant, "d.id=? AND d.tenant_id=?", id, tenant); err != nil {
			return err
		}
		if !found {
			return problem.New(problem.NotFound, "There is no such device.")
		}
		if err := p.Apply(&d); err != nil {
			return err
		}
		tags, err := tagsOf(d.Tags)
		if err != nil {
			return err
		}
		return t.Exec(updateDetails, d.AppVersion, d.Locale, d.TimeZone, tags, id, tenant)
	})
	return d, err
}

// tagsOf is how tags are stored.
func tagsOf(tags map[string]string) (string, error) {
	if len(tags) == 0 {
		return "{}", nil
	}
	raw, err := json.Marshal(tags)
	return string(raw), err
}

// DeleteDevice implements devices.Store. Its unfinished deliveries find no
// target when their turn comes and are dropped as gone.
func (s *deviceRegister) DeleteDevice(ctx context.Context, tenant, id ids.ID, user, actor string) error {
	return s.deleteDevice(ctx, tenant, user, actor, "d.id=? AND d.tenant_id=?", id, tenant)
}

// DeleteAddress implements devices.Store.
func (s *deviceRegister) DeleteAddress(ctx context.Context, tenant ids.ID, k devices.AddressKey, user, actor string) error {
	hash := sha256.Sum256([]byte(k.Address))
	return s.deleteDevice(ctx, tenant, user, actor, "d.tenant_id=? AND d.channel=? AND d.app=? AND d.address_hash=?", tenant, k.Channel, k.App, hash[:])
}

func (s *deviceRegister) deleteDevice(ctx context.Context, tenant ids.ID, user, actor, where string, args ...any) error {
	return s.db.Change(ctx, func(t *db.Tx) error {
		d, found, err := device(t, tenant, where, args...)
		if err != nil {
			return err
		}
		if !found || (user != "" && d.User != user) {
			return problem.New(problem.NotFound, "There is no such device.")
		}
		return deleteDevice(t, d, devices.Caller{Actor: actor, Own: user != ""}, devices.ByRequest)
	})
}

// deleteDevice removes a device, with its history where its user does it, who could
// fill the disk with what is kept of it otherwise.
func deleteDevice(t *db.Tx, d devices.Device, by devices.Caller, why string) error {
	if err := t.Exec("DELETE FROM devices WHERE id=? AND tenant_id=?", d.ID, d.Tenant); err != nil {
		return err
	}
	if by.Own {
		return forgetHistory(t, d.Tenant, d.ID)
	}
	return RecordDevice(t, devices.Event{Tenant: d.Tenant, Device: d.ID, Kind: devices.EventDeleted, Reason: why, Actor: by.Actor})
}

func forgetHistory(t *db.Tx, tenant, id ids.ID) error {
	return t.Exec("DELETE FROM device_events WHERE tenant_id=? AND device_id=?", tenant, id)
}

// UnretireDevices implements delivery.DoubtStore.
func (s *deviceRegister) UnretireDevices(ctx context.Context, credential ids.ID, version int, since, now time.Time) (int, error) {
	n := 0
	err := s.db.Do(context.WithoutCancel(ctx), 1, func(t *db.Tx) error {
		e := devices.Event{Kind: devices.EventSuspected, Reason: devices.ByBreaker, Credential: credential, Version: version, Actor: devices.EngineActor}
		changed, err := RecordDevices(t, e, `UPDATE devices SET status=?, status_at=?, updated_at=? WHERE credential_id=? AND version=? AND status>1 AND status=? AND status_at>=?`,
			devices.Suspect, db.Millis(now), db.Millis(now), credential, version, devices.Retired, db.Millis(since))
		n = len(changed)
		return err
	})
	return n, err
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
		&d.Status, &d.Reason, &statusAt, &created, &updatedAt, &d.Purpose, &d.ActivityID)
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
		n, err := t.Affect(insertUser, tenant, id, external)
		if err != nil || n == 1 {
			return id, err
		} // another node was faster: its row is there now
	}
}
