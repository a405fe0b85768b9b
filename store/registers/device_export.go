package registers

import (
	"context"
	"database/sql"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store/db"
)

const (
	// It looks at as many rows as it returns, whatever else there is.
	selectDevicesAfter = selectDevice + "d.tenant_id=?1 AND d.id>?2 ORDER BY d.id LIMIT ?3"

	// Only the index of a tenant's devices has this order. Asked as SQLite is, PostgreSQL would walk through the
	// devices of all tenants, where it takes this one for large.
	selectDevicesAfterPostgres = selectDevice + "(d.tenant_id,d.id)>($1,$2) AND d.tenant_id<=$1 ORDER BY d.tenant_id,d.id LIMIT $3"

	// Where it takes the tenant for small, it would collect all of its devices and sort them for every page:
	// before a table is analyzed, and by a plan that it made for tenants as most are.
	inOrderOfIndex = `SELECT set_config('enable_sort','off',true), set_config('enable_incremental_sort','off',true)`
)

// RecordExport implements devices.ExportStore.
func (s *deviceRegister) RecordExport(ctx context.Context, tenant ids.ID, actor, what string) error {
	return s.db.Do(ctx, 1, func(t *db.Tx) error { return t.Audit(tenant, actor, "devices.export", what) })
}

// DevicesAfter implements devices.ExportStore. Its transaction ends before it returns.
func (s *deviceRegister) DevicesAfter(ctx context.Context, tenant, after ids.ID) ([]devices.Device, error) {
	x, err := s.db.Lists().BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = x.Rollback() }() // it has changed nothing
	if s.db.Kind() == db.Postgres {
		if _, err := x.ExecContext(ctx, inOrderOfIndex); err != nil {
			return nil, err
		}
	}
	rows, err := x.QueryContext(ctx, db.Pick(s.db, selectDevicesAfter, selectDevicesAfterPostgres), tenant, after, devices.ExportPage)
	if err != nil {
		return nil, err
	}
	return db.Collect(rows, func(r *sql.Rows) (devices.Device, error) { return scanDevice(r, tenant) })
}
