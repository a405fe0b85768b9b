package registers

import (
	"context"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

type userKeyModel struct {
	ID        ids.ID
	TenantID  ids.ID
	Name      string
	Sealed    []byte
	CreatedAt int64
}

// TableName implements gorm's Tabler.
func (userKeyModel) TableName() string { return "user_keys" }

func (m userKeyModel) userKey() (tenants.UserKey, error) {
	return tenants.UserKey{ID: m.ID, Tenant: m.TenantID, Name: m.Name, CreatedAt: db.FromMillis(m.CreatedAt)}, nil
}

// CreateUserKey implements tenants.UserKeyStore.
func (s *keyRegister) CreateUserKey(ctx context.Context, k tenants.UserKey, c tenants.Change) error {
	sealed, err := s.db.Seal(db.SealUserKey, k.Tenant, k.ID, k.Secret)
	if err != nil {
		return err
	}
	return s.db.Change(ctx, func(x *db.Tx) error {
		m := userKeyModel{ID: k.ID, TenantID: k.Tenant, Name: k.Name, Sealed: sealed, CreatedAt: db.Millis(k.CreatedAt)}
		if err := x.Gorm().Create(&m).Error; err != nil {
			return err
		}
		return x.Audit(k.Tenant, c.Actor, c.Action, k.ID.Format(ids.UserKey))
	})
}

// UserKey implements tenants.UserKeyStore.
func (s *keyRegister) UserKey(ctx context.Context, id ids.ID) (tenants.UserKey, error) {
	m, err := take[userKeyModel](ctx, s.db, "user key", "id=?", id)
	if err != nil {
		return tenants.UserKey{}, err
	}
	k, _ := m.userKey()
	k.Secret, err = s.db.Unseal(db.SealUserKey, k.Tenant, k.ID, m.Sealed)
	return k, err
}

// UserKeys implements tenants.UserKeyStore.
func (s *keyRegister) UserKeys(ctx context.Context, tenant ids.ID, p tenants.Page) ([]tenants.UserKey, error) {
	var list []userKeyModel
	if err := newest(ctx, s.db, tenant, p).Find(&list).Error; err != nil {
		return nil, err
	}
	return convert(list, userKeyModel.userKey)
}

// DeleteUserKey implements tenants.UserKeyStore.
func (s *keyRegister) DeleteUserKey(ctx context.Context, tenant, id ids.ID, c tenants.Change) error {
	return s.db.Change(ctx, func(x *db.Tx) error {
		n, err := x.Affect("DELETE FROM user_keys WHERE id=? AND tenant_id=?", id, tenant)
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.New(problem.NotFound, "There is no such user key.")
		}
		return x.Audit(tenant, c.Actor, c.Action, id.Format(ids.UserKey))
	})
}
