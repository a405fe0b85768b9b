package registers

import (
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

// What a list of registrations is about is found with one statement for all of them. On
// SQLite the list is a JSON array, on PostgreSQL it is arrays of its columns, and LATERAL
// makes it look up each by its index, whatever it believes of tables that grow. The first
// column is the place in the list.
const (
	usersByName = `SELECT x.key,u.id FROM json_each(?2) x CROSS JOIN users u ON u.tenant_id=?1 AND u.external_id=x.value`

	usersByNamePostgres = `SELECT x.n-1,u.id FROM unnest($2::text[]) WITH ORDINALITY x(name,n)
 CROSS JOIN LATERAL (SELECT id FROM users WHERE tenant_id=$1 AND external_id=x.name LIMIT 1 FOR SHARE) u`

	// What counts of a device that is registered again.
	knownColumns = `d.id,d.user_id,d.epoch,d.address,d.environment,d.vapid_key,d.installation_id,d.status,d.created_at,d.purpose,d.activity_id`

	devicesByAddress = `SELECT x.key,` + knownColumns + ` FROM json_each(?2) x
 CROSS JOIN devices d INDEXED BY devices_address ON d.tenant_id=?1 AND d.channel=x.value->>0 AND d.app=x.value->>1 AND d.address_hash=unhex(x.value->>2)`

	devicesByAddressPostgres = `SELECT x.n-1,old.* FROM unnest($2::bigint[],$3::text[],$4::bytea[]) WITH ORDINALITY x(channel,app,hash,n)
 CROSS JOIN LATERAL (SELECT ` + knownColumns + ` FROM devices d
 WHERE d.tenant_id=$1 AND d.channel=x.channel AND d.app=x.app AND d.address_hash=x.hash LIMIT 1 FOR UPDATE OF d) old`

	// Where an owner is given, only an installation of theirs is found; of several the oldest,
	// which comes first in the index of SQLite.
	devicesByInstallation = `SELECT x.key,` + knownColumns + ` FROM json_each(?2) x
 CROSS JOIN devices d INDEXED BY devices_installation ON d.tenant_id=?1 AND d.channel=x.value->>0 AND d.app=x.value->>1 AND d.installation_id=x.value->>2
 AND d.installation_id<>'' AND d.purpose=x.value->>3 AND d.activity_id=x.value->>4 AND (x.value->>5=0 OR d.user_id=x.value->>5)`

	devicesByInstallationPostgres = `SELECT x.n-1,old.* FROM unnest($2::bigint[],$3::text[],$4::text[],$5::bigint[],$6::text[],$7::bigint[])
 WITH ORDINALITY x(channel,app,installation,purpose,activity,owner,n)
 CROSS JOIN LATERAL (SELECT ` + knownColumns + ` FROM devices d
 WHERE d.tenant_id=$1 AND d.channel=x.channel AND d.app=x.app AND d.installation_id=x.installation AND d.installation_id<>''
 AND d.purpose=x.purpose AND d.activity_id=x.activity AND (x.owner=0 OR d.user_id=x.owner) ORDER BY d.id+0 LIMIT 1 FOR UPDATE OF d) old`
)

// PostgreSQL keeps the plan that it made for a nearly empty table, where one index is as
// good as another: an import would fill the table under it.
const (
	planEachTime = `SET LOCAL plan_cache_mode=force_custom_plan`
	planAsEver   = `SET LOCAL plan_cache_mode=auto`
)

// findUsers finds those users that there are; they cannot be erased before the transaction
// ends.
func (r *registration) findUsers(list []*registering) error {
	wanted := map[string][]*registering{}
	for _, e := range list {
		if e.UserID == 0 {
			wanted[e.User] = append(wanted[e.User], e)
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(wanted)) // in the order in which all take them
	rows, err := r.query(usersByName, usersByNamePostgres, oneColumn(names))
	if err != nil {
		return fmt.Errorf("find the users of devices: %w", err)
	}
	_, err = db.Collect(rows, func(x *sql.Rows) (none struct{}, err error) {
		var (
			place int
			id    ids.ID
		)
		err = x.Scan(&place, &id)
		for _, e := range wanted[names[place]] {
			e.UserID = id
		}
		return none, err
	})
	return err
}

func oneColumn[T any](list []T) [][]any {
	rows := make([][]any, len(list))
	for i, x := range list {
		rows[i] = []any{x}
	}
	return rows
}

// find finds the rows that registrations may be about, and locks them.
func (r *registration) find(list []*registering) error {
	byAddress, byInstallation := make([][]any, len(list)), [][]any{}
	var installed []*registering
	for i, e := range list {
		e.address, e.installation = nil, nil
		byAddress[i] = []any{int64(e.Channel), e.App, e.hash}
		if e.InstallationID != "" {
			byInstallation = append(byInstallation, []any{int64(e.Channel), e.App, e.InstallationID, int64(e.Purpose), e.ActivityID, r.owner(e)})
			installed = append(installed, e)
		}
	}
	err := r.devices(devicesByAddress, devicesByAddressPostgres, byAddress, func(place int, d *devices.Device) { list[place].address = d })
	if err != nil || len(installed) == 0 {
		return err
	}
	return r.devices(devicesByInstallation, devicesByInstallationPostgres, byInstallation, func(place int, d *devices.Device) {
		if e := installed[place]; e.installation == nil {
			e.installation = d
		}
	})
}

// owner is whose installations may give way: 0 is anybody's.
func (r *registration) owner(e *registering) int64 {
	switch {
	case !r.by.Own:
		return 0
	case e.UserID == 0:
		return -1 // a user who is not there yet has none
	}
	return int64(e.UserID)
}

func (r *registration) devices(sqlite, postgres string, list [][]any, found func(place int, d *devices.Device)) error {
	rows, err := r.query(sqlite, postgres, list)
	if err != nil {
		return fmt.Errorf("find devices: %w", err)
	}
	_, err = db.Collect(rows, func(x *sql.Rows) (none struct{}, err error) {
		var (
			place   int
			d       = devices.Device{Tenant: r.tenant}
			created int64
		)
		err = x.Scan(&place, &d.ID, &d.UserID, &d.Epoch, &d.Target.Address, &d.Target.Environment, &d.VAPIDKey, &d.InstallationID, &d.Status,
			&created, &d.Purpose, &d.ActivityID)
		d.CreatedAt = db.FromMillis(created)
		found(place, &d)
		return none, err
	})
	return err
}

// query looks up a list whose members are rows of the same columns.
func (r *registration) query(sqlite, postgres string, list [][]any) (*sql.Rows, error) {
	if r.db.Kind() == db.Postgres {
		return r.Query(postgres, append([]any{r.tenant}, db.Arrays(list)...)...)
	}
	in, err := json.Marshal(listed(list))
	if err != nil {
		return nil, err
	}
	return r.Query(sqlite, r.tenant, string(in))
}

// listed is a list as the statements of SQLite take it: a member of one column is by itself, and bytes are in
// hexadecimal.
func listed(list [][]any) []any {
	out := make([]any, len(list))
	for i, row := range list {
		for k, v := range row {
			if b, ok := v.([]byte); ok {
				row[k] = hex.EncodeToString(b)
			}
		}
		out[i] = row
		if len(row) == 1 {
			out[i] = row[0]
		}
	}
	return out
}
