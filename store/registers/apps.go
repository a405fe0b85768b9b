package registers

import (
	"context"

	"github.com/carillonhq/carillon/ids"
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

// Apps implements tenants.CredentialStore.
func (s *credentialRegister) Apps(ctx context.Context, tenant ids.ID) ([]tenants.App, error) {
	var list []struct {
		Name      string
		CreatedAt int64
	}
	if err := s.db.Gorm(ctx).Table("apps").Where("tenant_id=?", tenant).Order("name").Find(&list).Error; err != nil {
		return nil, err
	}
	out := make([]tenants.App, len(list))
	for i, a := range list {
		out[i] = tenants.App{Tenant: tenant, Name: a.Name, CreatedAt: db.FromMillis(a.CreatedAt)}
	}
	return out, nil
}
