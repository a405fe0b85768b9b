package registers

import (
	"fmt"
	"maps"
	"slices"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/store/db"
)

// SQLite is in the process, where a prepared statement for each row costs least; on
// PostgreSQL each costs a trip to the server, so that rows go as arrays of their columns.
const (
	intoDevices = `INSERT INTO devices (id,tenant_id,user_id,epoch,app,channel,kind,address,address_hash,environment,keys,vapid_key,
 installation_id,os,app_version,locale,time_zone,tags,registered_at,last_seen_at,expires_at,status_at,created_at,updated_at,purpose,activity_id,
 status,reason,credential_id,version)`

	// What is registered again is as a new one, but for its id and its age.
	overDevice = ` ON CONFLICT (id) DO UPDATE SET user_id=excluded.user_id,epoch=excluded.epoch,kind=excluded.kind,address=excluded.address,
 address_hash=excluded.address_hash,environment=excluded.environment,keys=excluded.keys,vapid_key=excluded.vapid_key,
 installation_id=excluded.installation_id,os=excluded.os,app_version=excluded.app_version,locale=excluded.locale,time_zone=excluded.time_zone,
 tags=excluded.tags,registered_at=excluded.registered_at,last_seen_at=excluded.last_seen_at,expires_at=excluded.expires_at,status=1,reason='',
 status_at=excluded.status_at,credential_id=0,version=0,updated_at=excluded.updated_at,purpose=excluded.purpose,activity_id=excluded.activity_id`

	storeDevice = intoDevices + ` VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,1,'',0,0)` + overDevice

	storeDevices = intoDevices + ` SELECT v.*,1,'',0,0 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::bigint[],$5::text[],$6::bigint[],$7::text[],
 $8::text[],$9::bytea[],$10::text[],$11::bytea[],$12::text[],$13::text[],$14::text[],$15::text[],$16::text[],$17::text[],$18::text[],$19::bigint[],
 $20::bigint[],$21::bigint[],$22::bigint[],$23::bigint[],$24::bigint[],$25::bigint[],$26::text[]) v` + overDevice

	insertUser  = `INSERT INTO users (tenant_id,id,external_id) VALUES (?,?,?) ON CONFLICT DO NOTHING`
	insertUsers = `INSERT INTO users (tenant_id,id,external_id) SELECT * FROM unnest($1::bigint[],$2::bigint[],$3::text[]) ON CONFLICT DO NOTHING`

	insertDeviceEvents = `INSERT INTO device_events (id,tenant_id,device_id,at,event,user_id,reason,credential_id,version,actor)
 SELECT id,tenant,device,at,event,nullif(owner,0),reason,credential,version,actor
 FROM unnest($1::bigint[],$2::bigint[],$3::bigint[],$4::bigint[],$5::bigint[],$6::bigint[],$7::text[],$8::bigint[],$9::bigint[],$10::text[])
  AS v(id,tenant,device,at,event,owner,reason,credential,version,actor)`
)

// rows writes rows of the same columns.
func (r *registration) rows(sqlite, postgres string, list [][]any) error {
	if len(list) == 0 {
		return nil
	}
	if r.db.Kind() == db.Postgres {
		return r.Exec(postgres, db.Arrays(list)...)
	}
	for _, row := range list {
		if err := r.Exec(sqlite, row...); err != nil {
			return err
		}
	}
	return nil
}

// makeUsers makes the rows of users that are not there yet: users exist from first sight.
func (r *registration) makeUsers(list []*registering) error {
	for {
		missing := map[string]bool{}
		for _, e := range list {
			if e.UserID == 0 {
				missing[e.User] = true
			}
		}
		if len(missing) == 0 {
			return nil
		}
		var rows [][]any
		for _, name := range slices.Sorted(maps.Keys(missing)) {
			rows = append(rows, []any{int64(r.tenant), int64(r.NextID()), name})
		}
		if err := r.rows(insertUser, insertUsers, rows); err != nil {
			return fmt.Errorf("make the users of devices: %w", err)
		}
		// Where another node was faster, its row is there now.
		if err := r.findUsers(list); err != nil {
			return err
		}
	}
}

// store writes devices over what was known of them.
func (r *registration) store(list []*registering) error {
	rows := make([][]any, len(list))
	for i, e := range list {
		x := e.Target
		rows[i] = []any{int64(e.ID), int64(r.tenant), int64(e.UserID), int64(e.Epoch), e.App, int64(e.Channel), string(x.Kind), x.Address, e.hash,
			string(x.Environment), joinKeys(x), e.VAPIDKey, e.InstallationID, x.OS, e.AppVersion, e.Locale, e.TimeZone, e.tags,
			db.Millis(x.RegisteredAt), db.Millis(e.LastSeenAt), db.Millis(e.ExpiresAt), db.Millis(e.StatusAt), db.Millis(e.CreatedAt),
			db.Millis(e.UpdatedAt), int64(e.Purpose), e.ActivityID}
	}
	if err := r.rows(storeDevice, storeDevices, rows); err != nil {
		return fmt.Errorf("store devices: %w", err)
	}
	return nil
}

// record writes what happens to the devices.
func (r *registration) record(events []devices.Event) error {
	if r.db.Kind() != db.Postgres {
		for _, e := range events {
			if err := RecordDevice(r.Tx, e); err != nil {
				return err
			}
		}
		return nil
	}
	if len(events) == 0 {
		return nil
	}
	rows := make([][]any, len(events))
	for i, e := range events {
		rows[i] = []any{int64(r.NextID()), int64(e.Tenant), int64(e.Device), db.Millis(r.Now()), int64(e.Kind), int64(e.UserID), e.Reason,
			int64(e.Credential), int64(e.Version), e.Actor}
	}
	if err := r.Exec(insertDeviceEvents, db.Arrays(rows)...); err != nil {
		return fmt.Errorf("record what happens to devices: %w", err)
	}
	for _, e := range events {
		if err := trimHistory(r.Tx, e); err != nil {
			return err
		}
	}
	return nil
}
