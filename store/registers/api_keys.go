package registers

import (
	"context"
	"strings"
	"time"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/db"
	"github.com/carillonhq/carillon/tenants"
)

// keyRegister keeps API keys and user keys.
type keyRegister struct{ db *db.DB }

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
	k := tenants.Key{ID: m.ID, Tenant: m.TenantID, Name: m.Name, Hash: m.Hash, CreatedAt: db.FromMillis(m.CreatedAt),
		ExpiresAt: db.FromMillis(m.ExpiresAt), RevokedAt: db.FromMillis(m.RevokedAt), LastUsedAt: db.FromMillis(m.LastUsedAt)}
	for x := range strings.FieldsSeq(m.Scopes) {
		k.Scopes = append(k.Scopes, tenants.Scope(x))
	}
	return k, nil
}

// CreateKey implements tenants.KeyStore.
func (s *keyRegister) CreateKey(ctx context.Context, k tenants.Key, c tenants.Change) error {
	scopes := make([]string, len(k.Scopes))
	for i, x := range k.Scopes {
		scopes[i] = string(x)
	}
	m := keyModel{ID: k.ID, TenantID: k.Tenant, Name: k.Name, Scopes: strings.Join(scopes, " "), Hash: k.Hash,
		CreatedAt: db.Millis(k.CreatedAt), ExpiresAt: db.Millis(k.ExpiresAt)}
	return s.db.Change(ctx, func(x *db.Tx) error {
		if err := x.Gorm().Create(&m).Error; err != nil {
			return err
		}
		return x.Audit(k.Tenant, c.Actor, c.Action, k.ID.Format(ids.Key))
	})
}

// Key implements tenants.KeyStore.
func (s *keyRegister) Key(ctx context.Context, id ids.ID) (tenants.Key, error) {
	m, err := take[keyModel](ctx, s.db, "key", "id=?", id)
	if err != nil {
		return tenants.Key{}, err
	}
	return m.key()
}

// Keys implements tenants.KeyStore.
func (s *keyRegister) Keys(ctx context.Context, tenant ids.ID, p tenants.Page) ([]tenants.Key, error) {
	var list []keyModel
	if err := newest(ctx, s.db, tenant, p).Find(&list).Error; err != nil {
		return nil, err
	}
	return convert(list, keyModel.key)
}

// RevokeKey implements tenants.KeyStore.
func (s *keyRegister) RevokeKey(ctx context.Context, tenant, id ids.ID, at time.Time, c tenants.Change) error {
	return s.db.Change(ctx, func(x *db.Tx) error {
		there, err := x.Count("SELECT count(*) FROM api_keys WHERE id=? AND tenant_id=?", id, tenant)
		if err != nil {
			return err
		}
		if there == 0 {
			return problem.New(problem.NotFound, "There is no such key.")
		}
		n, err := x.Affect("UPDATE api_keys SET revoked_at=? WHERE id=? AND tenant_id=? AND revoked_at=0", db.Millis(at), id, tenant)
		if err != nil || n == 0 {
			return err
		}
		return x.Audit(tenant, c.Actor, c.Action, id.Format(ids.Key))
	})
}

// TouchKey implements tenants.KeyStore.
func (s *keyRegister) TouchKey(ctx context.Context, id ids.ID, at time.Time) error {
	return s.db.Do(ctx, 1, func(x *db.Tx) error {
		return x.Exec("UPDATE api_keys SET last_used_at=? WHERE id=? AND last_used_at<?", db.Millis(at), id, db.Millis(at))
	})
}
