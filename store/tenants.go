package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

var _ tenants.Store = (*Store)(nil)

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
	t := tenants.Tenant{ID: m.ID, Name: m.Name, Title: m.Title, CreatedAt: fromMillis(m.CreatedAt), UpdatedAt: fromMillis(m.UpdatedAt),
		DeletedAt: fromMillis(m.DeletedAt)}
	if err := json.Unmarshal([]byte(m.Settings), &t.Settings); err != nil {
		return t, fmt.Errorf("read a tenant's settings: %w", err)
	}
	return t, nil
}

// CreateTenant implements tenants.Store.
func (s *Store) CreateTenant(ctx context.Context, t tenants.Tenant, c tenants.Change) error {
	settings, err := json.Marshal(t.Settings)
	if err != nil {
		return err
	}
	keyset, err := s.ring.newKeyset(t.ID)
	if err != nil {
		return err
	}
	m := tenantModel{ID: t.ID, Name: t.Name, Title: t.Title, Settings: string(settings), Keyset: keyset,
		CreatedAt: millis(t.CreatedAt), UpdatedAt: millis(t.UpdatedAt)}
	return s.change(ctx, func(x *tx) error {
		taken, err := x.count("SELECT count(*) FROM tenants WHERE name=?", t.Name)
		if err != nil {
			return err
		}
		if taken > 0 {
			return problem.New(problem.Conflict, "There is a tenant %q already, or one that is still being deleted.", t.Name)
		}
		if err := x.db.Create(&m).Error; err != nil {
			return err
		}
		if err := x.exec("INSERT INTO apps (tenant_id,name,created_at) VALUES (?,?,?)", t.ID, tenants.DefaultApp, m.CreatedAt); err != nil {
			return err
		}
		return x.audit(t.ID, c.Actor, c.Action, t.Name)
	})
}

// UpdateTenant implements tenants.Store.
func (s *Store) UpdateTenant(ctx context.Context, t tenants.Tenant, c tenants.Change) error {
	settings, err := json.Marshal(t.Settings)
	if err != nil {
		return err
	}
	return s.change(ctx, func(x *tx) error {
		r := x.db.Model(&tenantModel{}).Where("id=? AND deleted_at=0", t.ID).
			Updates(map[string]any{"title": t.Title, "settings": string(settings), "updated_at": millis(t.UpdatedAt)})
		if r.Error != nil {
			return r.Error
		}
		if r.RowsAffected == 0 {
			there, err := x.count("SELECT count(*) FROM tenants WHERE id=?", t.ID)
			switch {
			case err != nil:
				return err
			case there > 0:
				return problem.New(problem.Conflict, "The tenant is being deleted.")
			}
			return problem.New(problem.NotFound, "There is no such tenant.")
		}
		return x.audit(t.ID, c.Actor, c.Action, t.Name)
	})
}

// Tenant implements tenants.Store.
func (s *Store) Tenant(ctx context.Context, id ids.ID) (tenants.Tenant, error) {
	return s.tenant(ctx, "id=?", id)
}

// TenantByName implements tenants.Store.
func (s *Store) TenantByName(ctx context.Context, name string) (tenants.Tenant, error) {
	return s.tenant(ctx, "name=?", name)
}

func (s *Store) tenant(ctx context.Context, where string, arg any) (tenants.Tenant, error) {
	m, err := take[tenantModel](ctx, s, "tenant", where, arg)
	if err != nil {
		return tenants.Tenant{}, err
	}
	t, err := m.tenant()
	if t.Deleting() {
		s.seals.forget(t.ID) // another node, or a command, has destroyed them
	}
	return t, err
}

// Tenants implements tenants.Store.
func (s *Store) Tenants(ctx context.Context, p tenants.Page) ([]tenants.Tenant, error) {
	var list []tenantModel
	if err := s.read.WithContext(ctx).Where("id>?", p.After).Order("id").Limit(p.Limit).Find(&list).Error; err != nil {
		return nil, err
	}
	return convert(list, tenantModel.tenant)
}

// take reads one model, or NotFound.
func take[M any](ctx context.Context, s *Store, what, where string, args ...any) (M, error) {
	var list []M
	err := s.read.WithContext(ctx).Where(where, args...).Limit(1).Find(&list).Error
	if err == nil && len(list) == 0 {
		err = problem.New(problem.NotFound, "There is no such %s.", what)
	}
	if err != nil {
		var zero M
		return zero, err
	}
	return list[0], nil
}

func convert[M, T any](list []M, f func(M) (T, error)) ([]T, error) {
	out := make([]T, len(list))
	for i, m := range list {
		v, err := f(m)
		if err != nil {
			return nil, err
		}
		out[i] = v
	}
	return out, nil
}

type keyModel struct {
	ID         ids.ID
	TenantID   ids.ID
	Name       string
	Scopes     string
	Hash       []byte
	CreatedAt  int64
	ExpiresAt  int64
	RevokedAt  int64
	LastUsedAt int64
}

// TableName implements gorm's Tabler.
func (keyModel) TableName() string { return "api_keys" }

func (m keyModel) key() (tenants.Key, error) {
	k := tenants.Key{ID: m.ID, Tenant: m.TenantID, Name: m.Name, Hash: m.Hash, CreatedAt: fromMillis(m.CreatedAt),
		ExpiresAt: fromMillis(m.ExpiresAt), RevokedAt: fromMillis(m.RevokedAt), LastUsedAt: fromMillis(m.LastUsedAt)}
	for x := range strings.FieldsSeq(m.Scopes) {
		k.Scopes = append(k.Scopes, tenants.Scope(x))
	}
	return k, nil
}

// CreateKey implements tenants.KeyStore.
func (s *Store) CreateKey(ctx context.Context, k tenants.Key, c tenants.Change) error {
	scopes := make([]string, len(k.Scopes))
	for i, x := range k.Scopes {
		scopes[i] = string(x)
	}
	m := keyModel{ID: k.ID, TenantID: k.Tenant, Name: k.Name, Scopes: strings.Join(scopes, " "), Hash: k.Hash,
		CreatedAt: millis(k.CreatedAt), ExpiresAt: millis(k.ExpiresAt)}
	return s.change(ctx, func(x *tx) error {
		if err := x.db.Create(&m).Error; err != nil {
			return err
		}
		return x.audit(k.Tenant, c.Actor, c.Action, k.ID.Format(ids.Key))
	})
}

// Key implements tenants.KeyStore.
func (s *Store) Key(ctx context.Context, id ids.ID) (tenants.Key, error) {
	m, err := take[keyModel](ctx, s, "key", "id=?", id)
	if err != nil {
		return tenants.Key{}, err
	}
	return m.key()
}

// Keys implements tenants.KeyStore.
func (s *Store) Keys(ctx context.Context, tenant ids.ID, p tenants.Page) ([]tenants.Key, error) {
	var list []keyModel
	if err := s.newest(ctx, tenant, p).Find(&list).Error; err != nil {
		return nil, err
	}
	return convert(list, keyModel.key)
}

// RevokeKey implements tenants.KeyStore.
func (s *Store) RevokeKey(ctx context.Context, tenant, id ids.ID, at time.Time, c tenants.Change) error {
	return s.change(ctx, func(x *tx) error {
		there, err := x.count("SELECT count(*) FROM api_keys WHERE id=? AND tenant_id=?", id, tenant)
		if err != nil {
			return err
		}
		if there == 0 {
			return problem.New(problem.NotFound, "There is no such key.")
		}
		n, err := x.affect("UPDATE api_keys SET revoked_at=? WHERE id=? AND tenant_id=? AND revoked_at=0", millis(at), id, tenant)
		if err != nil || n == 0 {
			return err
		}
		return x.audit(tenant, c.Actor, c.Action, id.Format(ids.Key))
	})
}

// TouchKey implements tenants.KeyStore.
func (s *Store) TouchKey(ctx context.Context, id ids.ID, at time.Time) error {
	return s.do(ctx, 1, func(x *tx) error {
		return x.exec("UPDATE api_keys SET last_used_at=? WHERE id=? AND last_used_at<?", millis(at), id, millis(at))
	})
}

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
	return tenants.UserKey{ID: m.ID, Tenant: m.TenantID, Name: m.Name, CreatedAt: fromMillis(m.CreatedAt)}, nil
}

// CreateUserKey implements tenants.UserKeyStore.
func (s *Store) CreateUserKey(ctx context.Context, k tenants.UserKey, c tenants.Change) error {
	sealed, err := s.seal(sealUserKey, k.Tenant, k.ID, k.Secret)
	if err != nil {
		return err
	}
	return s.change(ctx, func(x *tx) error {
		m := userKeyModel{ID: k.ID, TenantID: k.Tenant, Name: k.Name, Sealed: sealed, CreatedAt: millis(k.CreatedAt)}
		if err := x.db.Create(&m).Error; err != nil {
			return err
		}
		return x.audit(k.Tenant, c.Actor, c.Action, k.ID.Format(ids.UserKey))
	})
}

// UserKey implements tenants.UserKeyStore.
func (s *Store) UserKey(ctx context.Context, id ids.ID) (tenants.UserKey, error) {
	m, err := take[userKeyModel](ctx, s, "user key", "id=?", id)
	if err != nil {
		return tenants.UserKey{}, err
	}
	k, _ := m.userKey()
	k.Secret, err = s.unseal(sealUserKey, k.Tenant, k.ID, m.Sealed)
	return k, err
}

// UserKeys implements tenants.UserKeyStore.
func (s *Store) UserKeys(ctx context.Context, tenant ids.ID, p tenants.Page) ([]tenants.UserKey, error) {
	var list []userKeyModel
	if err := s.newest(ctx, tenant, p).Find(&list).Error; err != nil {
		return nil, err
	}
	return convert(list, userKeyModel.userKey)
}

// DeleteUserKey implements tenants.UserKeyStore.
func (s *Store) DeleteUserKey(ctx context.Context, tenant, id ids.ID, c tenants.Change) error {
	return s.change(ctx, func(x *tx) error {
		n, err := x.affect("DELETE FROM user_keys WHERE id=? AND tenant_id=?", id, tenant)
		if err != nil {
			return err
		}
		if n == 0 {
			return problem.New(problem.NotFound, "There is no such user key.")
		}
		return x.audit(tenant, c.Actor, c.Action, id.Format(ids.UserKey))
	})
}
