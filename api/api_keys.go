package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// KeyRegistry keeps API keys.
type KeyRegistry interface {
	CreateKey(ctx context.Context, tenant ids.ID, n tenants.NewKey, actor string) (tenants.Key, string, error)
	Keys(ctx context.Context, tenant ids.ID, p tenants.Page) ([]tenants.Key, error)
	Key(ctx context.Context, tenant, id ids.ID) (tenants.Key, error)
	RevokeKey(ctx context.Context, tenant, id ids.ID, actor string) error
}

// Key is an API key as it is shown, without its secret.
type Key struct {
	ID         string          `json:"id" example:"key_0d1kq3w8r000c"`
	Name       string          `json:"name"`
	Scopes     []tenants.Scope `json:"scopes" enum:"send,devices,read,webhooks,credentials,erase,admin"`
	CreatedAt  time.Time       `json:"created_at"`
	ExpiresAt  time.Time       `json:"expires_at,omitzero" doc:"Absent: never"`
	RevokedAt  time.Time       `json:"revoked_at,omitzero" doc:"Absent: not revoked"`
	LastUsedAt time.Time       `json:"last_used_at,omitzero" doc:"To the minute; absent: not yet"`
}

// NewKey is a key to be made.
type NewKey struct {
	Name      string          `json:"name" maxLength:"100" doc:"For people: who uses the key, and where"`
	Scopes    []tenants.Scope `json:"scopes" enum:"send,devices,read,webhooks,credentials,erase,admin" doc:"What the key may do; admin is all of it"`
	ExpiresAt time.Time       `json:"expires_at,omitzero" doc:"Absent: never"`
}

// KeyMade is a new key with its secret.
type KeyMade struct {
	Key
	Secret string `json:"secret" doc:"Shown in this answer only; the server keeps a hash"`
}

type keyPath struct {
	ID string `path:"id" doc:"The key's id" example:"key_0d1kq3w8r000c"`
}

func (s *Server) keyRoutes() []route {
	const tag = "API keys"
	admin := needs(tenants.Admin)
	return []route{
		{method: http.MethodPost, path: "/v1/keys", access: admin, id: "createKey", tag: tag, status: http.StatusCreated,
			summary: "Make an API key", about: "The secret is in this answer only.", handler: withBody(s.createKey),
			example: `{"name":"backend, production","scopes":["send","devices","read"]}`},
		{method: http.MethodGet, path: "/v1/keys", access: admin, id: "listKeys", tag: tag,
			summary: "List API keys, newest first", handler: withoutBody(s.listKeys)},
		{method: http.MethodGet, path: "/v1/keys/{id}", access: admin, id: "getKey", tag: tag,
			summary: "Read an API key", handler: withoutBody(s.getKey)},
		{method: http.MethodDelete, path: "/v1/keys/{id}", access: admin, id: "revokeKey", tag: tag, status: http.StatusNoContent,
			summary: "Revoke an API key", about: "It counts no more from then on, and stays in the list. May be repeated.", handler: noContent(s.revokeKey)},
	}
}

func (s *Server) createKey(ctx context.Context, c *call, _ *none, in *NewKey) (KeyMade, error) {
	k, secret, err := s.tenants.CreateKey(ctx, c.tenant, tenants.NewKey{Name: in.Name, Scopes: in.Scopes, ExpiresAt: in.ExpiresAt}, c.actor)
	return KeyMade{Key: showKey(k), Secret: secret}, err
}

func (s *Server) listKeys(ctx context.Context, c *call, p *Paging) (List[Key], error) {
	const list = "keys"
	after, err := p.after(list)
	if err != nil {
		return List[Key]{}, err
	}
	rows, err := s.tenants.Keys(ctx, c.tenant, tenants.Page{After: after.Notification, Limit: p.more()})
	return page(*p, list, rows, func(k tenants.Key) delivery.Cursor { return byID(k.ID) }, showKey), err
}

func (s *Server) getKey(ctx context.Context, c *call, p *keyPath) (Key, error) {
	id, err := pathID(ids.Key, p.ID, "key")
	if err != nil {
		return Key{}, err
	}
	k, err := s.tenants.Key(ctx, c.tenant, id)
	return showKey(k), err
}

func (s *Server) revokeKey(ctx context.Context, c *call, p *keyPath) error {
	id, err := pathID(ids.Key, p.ID, "key")
	if err != nil {
		return err
	}
	return s.tenants.RevokeKey(ctx, c.tenant, id, c.actor)
}

func showKey(k tenants.Key) Key {
	return Key{ID: k.ID.Format(ids.Key), Name: k.Name, Scopes: k.Scopes, CreatedAt: timestamp(k.CreatedAt),
		ExpiresAt: timestamp(k.ExpiresAt), RevokedAt: timestamp(k.RevokedAt), LastUsedAt: timestamp(k.LastUsedAt)}
}
