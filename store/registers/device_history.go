package registers

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

const (
	insertDeviceEvent = `INSERT INTO device_events (id,tenant_id,device_id,at,event,user_id,reason,credential_id,version,actor) VALUES (?,?,?,?,?,?,?,?,?,?)`
	// trimDeviceEvents keeps the newest: a device that changes hands all day must
	// not fill the table.
	trimDeviceEvents = `DELETE FROM device_events WHERE id IN (SELECT id FROM device_events INDEXED BY device_events_device
 WHERE tenant_id=? AND device_id=? ORDER BY id DESC LIMIT -1 OFFSET ?)`
	selectDeviceEvents = `SELECT e.id,e.at,e.event,coalesce(e.user_id,0),coalesce(u.external_id,''),e.reason,e.credential_id,e.version,e.actor
 FROM device_events e INDEXED BY device_events_device LEFT JOIN users u ON u.tenant_id=e.tenant_id AND u.id=e.user_id
 WHERE e.tenant_id=? AND e.device_id=? ORDER BY e.id DESC LIMIT ?`
)

// RecordDevice writes what happens to a device in the transaction that does it.
func RecordDevice(t *db.Tx, e devices.Event) error {
	if err := t.Exec(insertDeviceEvent, t.NextID(), e.Tenant, e.Device, db.Millis(t.Now()), e.Kind, db.OrNull(e.UserID), e.Reason, e.Credential, e.Version, e.Actor); err != nil {
		return fmt.Errorf("record what happens to a device: %w", err)
	}
	return trimHistory(t, e)
}

// trimHistory removes what is too much beside an event.
func trimHistory(t *db.Tx, e devices.Event) error {
	if e.Kind == devices.EventRegistered {
		return nil // the first there is
	}
	return t.Exec(trimDeviceEvents, e.Tenant, e.Device, devices.MaxHistory)
}

// DeviceHistory implements devices.Store.
func (s *deviceRegister) DeviceHistory(ctx context.Context, tenant, id ids.ID) ([]devices.Event, error) {
	rows, err := s.db.Reads().QueryContext(ctx, selectDeviceEvents, tenant, id, devices.MaxHistory)
	if err != nil {
		return nil, fmt.Errorf("read the history of a device: %w", err)
	}
	list, err := db.Collect(rows, func(r *sql.Rows) (devices.Event, error) {
		e := devices.Event{Tenant: tenant, Device: id}
		var at int64
		err := r.Scan(&e.ID, &at, &e.Kind, &e.UserID, &e.User, &e.Reason, &e.Credential, &e.Version, &e.Actor)
		e.At = db.FromMillis(at)
		return e, err
	})
	if err != nil || len(list) > 0 {
		return list, err
	}
	// A device that nothing has happened to since there is a history has none.
	_, err = s.Device(ctx, tenant, id)
	return nil, err
}

// changedDevice is one that a statement has changed.
type changedDevice struct{ id, tenant ids.ID }

func changedDevices(t *db.Tx, query string, args ...any) ([]changedDevice, error) {
	rows, err := t.Query(query+" RETURNING id,tenant_id", args...)
	if err != nil {
		return nil, err
	}
	return db.Collect(rows, func(r *sql.Rows) (d changedDevice, err error) { return d, r.Scan(&d.id, &d.tenant) })
}

// RecordDevices records the same of each device that a statement has changed.
func RecordDevices(t *db.Tx, e devices.Event, query string, args ...any) ([]ids.ID, error) {
	list, err := changedDevices(t, query, args...)
	if err != nil {
		return nil, err
	}
	changed := make([]ids.ID, len(list))
	for i, k := range list {
		e.Device, e.Tenant, changed[i] = k.id, k.tenant, k.id
		if err := RecordDevice(t, e); err != nil {
			return nil, err
		}
	}
	return changed, nil
}
