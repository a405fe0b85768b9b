package registers

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// tenantRegister keeps tenants.
type tenantRegister struct{ db *db.DB }

type tenantModel struct {
	ID        ids.ID
	Name      string
	Title     string
	Settings  string
	Keyset    []byte
	CreatedAt int64
	UpdatedAt int64
	DeletedAt int64
}

// TableName implements gorm's Tabler.
func (tenantModel) TableName() string { return "tenants" }

func (m tenantModel) tenant() (tenants.Tenant, error) {
	t := tenants.Tenant{ID: m.ID, Name: m.Name, Title: m.Title, CreatedAt: db.FromMillis(m.CreatedAt), UpdatedAt: db.FromMillis(m.UpdatedAt),
		DeletedAt: db.FromMillis(m.DeletedAt)}
	if err := json.Unmarshal([]byte(m.Settings), &t.Settings); err != nil {
		return t, fmt.Errorf("read a tenant's settings: %w", err)
	}
	return t, nil
}

// CreateTenant implements tenants.Store.
func (s *tenantRegister) CreateTenant(ctx context.Context, t tenants.Tenant, c tenants.Change) error {
	settings, err := json.Marshal(t.Settings)
	if err != nil {
		return err
	}
	keyset, err := s.db.KeyRing().NewKeyset(t.ID)
	if err != nil {
		return err
	}
	m := tenantModel{ID: t.ID, Name: t.Name, Title: t.Title, Settings: string(settings), Keyset: keyset,
		CreatedAt: db.Millis(t.CreatedAt), UpdatedAt: db.Millis(t.UpdatedAt)}
	return s.db.Change(ctx, func(x *db.Tx) error {
		taken, err := x.Count("SELECT count(*) FROM tenants WHERE name=?", t.Name)
		if err != nil {
			return err
		}
		if taken > 0 {
			return problem.New(problem.Conflict, "There is a tenant %q already, or one that is still being deleted.", t.Name)
		}
		if err := x.Gorm().Create(&m).Error; err != nil {
			return err
		}
		if err := x.Exec("INSERT INTO apps (tenant_id,name,created_at) VALUES (?,?,?)", t.ID, tenants.DefaultApp, m.CreatedAt); err != nil {
			return err
		}
		return x.Audit(t.ID, c.Actor, c.Action, t.Name)
	})
}

// UpdateTenant implements tenants.Store.
func (s *tenantRegister) UpdateTenant(ctx context.Context, t tenants.Tenant, c tenants.Change) error {
	settings, err := json.Marshal(t.Settings)
	if err != nil {
		return err
	}
	return s.db.Change(ctx, func(x *db.Tx) error {
		r := x.Gorm().Model(&tenantModel{}).Where("id=? AND deleted_at=0", t.ID).
			Updates(map[string]any{"title": t.Title, "settings": string(settings), "updated_at": db.Millis(t.UpdatedAt)})
		if r.Error != nil {
			return r.Error
		}
		if r.RowsAffected == 0 {
			there, err := x.Count("SELECT count(*) FROM tenants WHERE id=?", t.ID)
			switch {
			case err != nil:
				return err
			case there > 0:
				return problem.New(problem.Conflict, "The tenant is being deleted.")
			}
			return problem.New(problem.NotFound, "There is no such tenant.")
		}
		return x.Audit(t.ID, c.Actor, c.Action, t.Name)
	})
}

// Tenant implements tenants.Store.
func (s *tenantRegister) Tenant(ctx context.Context, id ids.ID) (tenants.Tenant, error) {
	return s.tenant(ctx, "id=?", id)
}

// TenantByName implements tenants.Store.
func (s *tenantRegister) TenantByName(ctx context.Context, name string) (tenants.Tenant, error) {
	return s.tenant(ctx, "name=?", name)
}

func (s *tenantRegister) tenant(ctx context.Context, where string, arg any) (tenants.Tenant, error) {
	m, err := take[tenantModel](ctx, s.db, "tenant", where, arg)
	if err != nil {
		return tenants.Tenant{}, err
	}
	t, err := m.tenant()
	if t.Deleting() {
		s.db.ForgetKeys(t.ID) // another node, or a command, has destroyed them
	}
	return t, err
}

// Tenants implements tenants.Store.
func (s *tenantRegister) Tenants(ctx context.Context, p tenants.Page) ([]tenants.Tenant, error) {
	var list []tenantModel
	if err := s.db.Gorm(ctx).Where("id>?", p.After).Order("id").Limit(p.Limit).Find(&list).Error; err != nil {
		return nil, err
	}
	return convert(list, tenantModel.tenant)
}
