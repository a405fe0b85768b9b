package registers

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// PutApp implements tenants.CredentialStore.
func (s *credentialRegister) PutApp(ctx context.Context, a tenants.App, c tenants.Change) error {
	return s.db.Change(ctx, func(x *db.Tx) error { return putApp(x, a, c) })
}

func putApp(t *db.Tx, a tenants.App, c tenants.Change) error {
	n, err := t.Affect("INSERT INTO apps (tenant_id,name,created_at) VALUES (?,?,?) ON CONFLICT DO NOTHING", a.Tenant, a.Name, db.Millis(a.CreatedAt))
	if err != nil || n == 0 {
		return err
	}
	return t.Audit(a.Tenant, c.Actor, "app.put", a.Name)
}

// appsOfDevices walks the index from app to app (a skip scan), so its cost follows the
// apps, not the devices.
const appsOfDevices = `WITH RECURSIVE a(app,n) AS (
  SELECT min(app),1 FROM devices INDEXED BY devices_address WHERE tenant_id=?1 AND channel=?2
  UNION ALL
  SELECT (SELECT min(app) FROM devices INDEXED BY devices_address WHERE tenant_id=?1 AND channel=?2 AND app>a.app),n+1
  FROM a WHERE a.app IS NOT NULL AND n<?3)
SELECT app FROM a WHERE app IS NOT NULL`

const appHasDevices = `SELECT count(*) FROM (SELECT 1 FROM devices INDEXED BY devices_address WHERE tenant_id=? AND channel=? AND app=? LIMIT 1) x`

// goingApps are those whose devices a job removes.
const goingApps = `SELECT spec FROM jobs INDEXED BY jobs_due WHERE state<3 AND tenant_id=? AND kind=?`

// Apps implements tenants.CredentialStore.
func (s *credentialRegister) Apps(ctx context.Context, tenant ids.ID) ([]tenants.App, error) {
	var list []struct {
		Name      string
		CreatedAt int64
	}
	if err := s.db.Gorm(ctx).Table("apps").Where("tenant_id=?", tenant).Order("name").Find(&list).Error; err != nil {
		return nil, err
	}
	out := make([]tenants.App, 0, len(list))
	known := map[string]bool{}
	for _, a := range list {
		out = append(out, tenants.App{Tenant: tenant, Name: a.Name, CreatedAt: db.FromMillis(a.CreatedAt)})
		known[a.Name] = true
	}
	going, err := appsBeingDeleted(ctx, s.db.Reads(), tenant)
	if err != nil {
		return nil, err
	}
	for _, name := range going {
		known[name] = true
	}
	for _, k := range DeviceKinds() {
		rows, err := s.db.Reads().QueryContext(ctx, appsOfDevices, tenant, k, tenants.MaxDeviceApps)
		if err != nil {
			return nil, fmt.Errorf("list the apps of devices: %w", err)
		}
		names, err := db.Collect(rows, scanText)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !known[name] {
				known[name] = true
				out = append(out, tenants.App{Tenant: tenant, Name: name})
			}
		}
	}
	slices.SortFunc(out, func(a, b tenants.App) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// AppExists tells whether there is an app, be it that devices alone name it.
func AppExists(ctx context.Context, q db.Queryer, tenant ids.ID, name string) (bool, error) {
	n := 0
	if err := q.QueryRowContext(ctx, "SELECT count(*) FROM apps WHERE tenant_id=? AND name=?", tenant, name).Scan(&n); err != nil || n > 0 {
		return n > 0, err
	}
	going, err := appsBeingDeleted(ctx, q, tenant)
	if err != nil || slices.Contains(going, name) {
		return false, err
	}
	for _, k := range DeviceKinds() {
		if err := q.QueryRowContext(ctx, appHasDevices, tenant, k, name).Scan(&n); err != nil || n > 0 {
			return n > 0, err
		}
	}
	return false, nil
}

func appsBeingDeleted(ctx context.Context, q db.Queryer, tenant ids.ID) ([]string, error) {
	rows, err := q.QueryContext(ctx, goingApps, tenant, jobs.DeleteApp)
	if err != nil {
		return nil, fmt.Errorf("look for apps that are being deleted: %w", err)
	}
	return db.Collect(rows, func(r *sql.Rows) (string, error) {
		var (
			raw  []byte
			spec appSpec
		)
		err := r.Scan(&raw)
		_ = json.Unmarshal(raw, &spec) // one that cannot be read ends as such
		return spec.App, err
	})
}

func scanText(r *sql.Rows) (s string, err error) {
	err = r.Scan(&s)
	return s, err
}
