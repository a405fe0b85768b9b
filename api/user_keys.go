package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// UserKeyRegistry keeps the keys that verify users' tokens.
type UserKeyRegistry interface {
	CreateUserKey(ctx context.Context, tenant ids.ID, name, actor string) (tenants.UserKey, string, error)
	UserKeys(ctx context.Context, tenant ids.ID, p tenants.Page) ([]tenants.UserKey, error)
	DeleteUserKey(ctx context.Context, tenant, id ids.ID, actor string) error
}

// UserKey is a key for users' tokens as it is shown, without its secret.
type UserKey struct {
	ID        string    `json:"id" doc:"The kid of the tokens that it verifies" example:"usk_0d1kq3w8r000c"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// NewUserKey is such a key to be made.
type NewUserKey struct {
	Name string `json:"name" maxLength:"100" doc:"For people"`
}

// UserKeyMade is a new key with its secret.
type UserKeyMade struct {
	UserKey
	Secret string `json:"secret" doc:"Shown in this answer only. Sign tokens with it: HS256, header kid = id, claims sub (your user), aud (carillon) and exp"`
}

type userKeyPath struct {
	ID string `path:"id" doc:"The key's id" example:"usk_0d1kq3w8r000c"`
}

func (s *Server) userKeyRoutes() []route {
	const tag = "User keys"
	scope := needs(tenants.Credentials)
	return []route{
		{method: http.MethodPost, path: "/v1/user-keys", access: scope, id: "createUserKey", tag: tag, status: http.StatusCreated,
			summary: "Make a key to sign users' tokens with", about: "Your backend signs a short-lived token for a user; the user's app or browser registers its device with it. The secret is in this answer only.",
			handler: withBody(s.createUserKey), example: `{"name":"web"}`},
		{method: http.MethodGet, path: "/v1/user-keys", access: scope, id: "listUserKeys", tag: tag,
			summary: "List user keys, newest first", handler: withoutBody(s.listUserKeys)},
		{method: http.MethodDelete, path: "/v1/user-keys/{id}", access: scope, id: "deleteUserKey", tag: tag, status: http.StatusNoContent,
			summary: "Delete a user key", about: "Tokens that it signed count no more from then on.", handler: noContent(s.deleteUserKey)},
	}
}

func (s *Server) createUserKey(ctx context.Context, c *call, _ *none, in *NewUserKey) (UserKeyMade, error) {
	k, secret, err := s.tenants.CreateUserKey(ctx, c.tenant, in.Name, c.actor)
	return UserKeyMade{UserKey: showUserKey(k), Secret: secret}, err
}

func (s *Server) listUserKeys(ctx context.Context, c *call, p *Paging) (List[UserKey], error) {
	const list = "user-keys"
	after, err := p.after(list)
	if err != nil {
		return List[UserKey]{}, err
	}
	rows, err := s.tenants.UserKeys(ctx, c.tenant, tenants.Page{After: after.Notification, Limit: p.more()})
	return page(*p, list, rows, func(k tenants.UserKey) delivery.Cursor { return byID(k.ID) }, showUserKey), err
}

func (s *Server) deleteUserKey(ctx context.Context, c *call, p *userKeyPath) error {
	id, err := pathID(ids.UserKey, p.ID, "user key")
	if err != nil {
		return err
	}
	return s.tenants.DeleteUserKey(ctx, c.tenant, id, c.actor)
}

func showUserKey(k tenants.UserKey) UserKey {
	return UserKey{ID: k.ID.Format(ids.UserKey), Name: k.Name, CreatedAt: timestamp(k.CreatedAt)}
}
