package registers

import (
	"context"
	"database/sql"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

// What tenants have, each counted along an index that begins with the tenant.
const (
	countDevices   = `SELECT tenant_id,count(*) FROM devices INDEXED BY devices_tenant GROUP BY tenant_id`
	countEndpoints = `SELECT tenant_id,count(*) FROM endpoints INDEXED BY endpoints_tenant GROUP BY tenant_id`
)

// CountDevices counts the devices of each tenant.
func (s *deviceRegister) CountDevices(ctx context.Context) (map[ids.ID]int, error) {
	return countByTenant(ctx, s.db, countDevices)
}

// CountEndpoints counts the endpoints of each tenant.
func (s *endpointRegister) CountEndpoints(ctx context.Context) (map[ids.ID]int, error) {
	return countByTenant(ctx, s.db, countEndpoints)
}

func countByTenant(ctx context.Context, d *db.DB, query string) (map[ids.ID]int, error) {
	rows, err := d.Lists().QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	out := map[ids.ID]int{}
	_, err = db.Collect(rows, func(r *sql.Rows) (tenant ids.ID, err error) {
		n := 0
		err = r.Scan(&tenant, &n)
		out[tenant] = n
		return tenant, err
	})
	return out, err
}
