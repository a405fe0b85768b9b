package api

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// The keys that the tests use.
const (
	keyAdmin    = "crl_admin"
	keyOtherAll = "crl_other"
	keyExpired  = "crl_expired"
	keyOperator = "crlop_key"
	tokenUser   = "eyJ.user.token"
)

// keyWith is a key of tenantA with one scope.
func keyWith(scope tenants.Scope) string { return "crl_" + string(scope) }

type fakeTenants struct {
	put         tenants.PutCredential
	rollback    tenants.Rollback
	w           *world
	credentials []tenants.Credential
	origins     []string
	deleting    bool
	input       json.RawMessage
}

var _ Tenants = (*fakeTenants)(nil)

func (f *fakeTenants) Authenticate(_ context.Context, secret string) (tenants.Principal, error) {
	p := tenants.Principal{Key: theKey, Tenant: tenantA}
	switch secret {
	case keyOperator:
		p.Tenant, p.Scopes = 0, []tenants.Scope{tenants.Operator}
	case keyOtherAll:
		p.Tenant, p.Scopes = tenantB, tenants.Scopes()
	case keyExpired:
		return p, problem.New(problem.Unauthenticated, "This API key expired.")
	default:
		for _, s := range tenants.Scopes() {
			if secret == keyWith(s) {
				p.Scopes = []tenants.Scope{s}
				return p, nil
			}
		}
		return p, problem.New(problem.Unauthenticated, "This API key is not known here.")
	}
	return p, nil
}

func (f *fakeTenants) AuthenticateUser(_ context.Context, token string) (tenants.UserPrincipal, error) {
	if user, ok := strings.CutPrefix(token, tokenUser+" of "); ok {
		return tenants.UserPrincipal{Tenant: tenantA, User: user, Key: theUserKey}, nil
	}
	if token != tokenUser {
		return tenants.UserPrincipal{}, problem.New(problem.Unauthenticated, "This token is not valid.")
	}
	return tenants.UserPrincipal{Tenant: tenantA, User: "u1", Key: theUserKey}, nil
}

func (f *fakeTenants) acme() tenants.Tenant {
	t := tenants.Tenant{ID: tenantA, Name: "acme", Title: "Acme", CreatedAt: epoch, UpdatedAt: epoch, Settings: tenants.Settings{Origins: f.origins}}
	if f.deleting {
		t.DeletedAt = epoch
	}
	return t
}

func (f *fakeTenants) CreateTenant(_ context.Context, name, title string, _ tenants.Settings, _ string) (tenants.Tenant, error) {
	f.w.note("create tenant")
	return tenants.Tenant{ID: tenantB, Name: name, Title: title, CreatedAt: epoch}, nil
}

func (f *fakeTenants) PutTenant(_ context.Context, name, title string, _ tenants.Settings, _ string) (tenants.Tenant, bool, error) {
	f.w.note("put tenant " + name)
	return tenants.Tenant{ID: tenantA, Name: name, Title: title, CreatedAt: epoch}, name == "new", nil
}

func (f *fakeTenants) DeleteTenant(_ context.Context, name, _ string) (tenants.Tenant, error) {
	f.w.note("delete tenant " + name)
	f.deleting = true
	return f.acme(), nil
}

func (f *fakeTenants) Tenant(_ context.Context, id ids.ID) (tenants.Tenant, error) {
	if id != tenantA {
		return tenants.Tenant{}, absent()
	}
	return f.acme(), nil
}

func (f *fakeTenants) TenantByName(_ context.Context, name string) (tenants.Tenant, error) {
	if name != "acme" {
		return tenants.Tenant{}, absent()
	}
	return f.acme(), nil
}

func (f *fakeTenants) Tenants(_ context.Context, p tenants.Page) ([]tenants.Tenant, error) {
	f.w.note("list tenants")
	return []tenants.Tenant{f.acme()}, nil
}

func (f *fakeTenants) aKey() tenants.Key {
	return tenants.Key{ID: theKey, Tenant: tenantA, Name: "k", Scopes: []tenants.Scope{tenants.Send}, Hash: []byte("hash-never-shown"), CreatedAt: epoch}
}

func (f *fakeTenants) CreateKey(context.Context, ids.ID, tenants.NewKey, string) (tenants.Key, string, error) {
	f.w.note("create key")
	return f.aKey(), "crl_shown_once", nil
}

func (f *fakeTenants) Keys(context.Context, ids.ID, tenants.Page) ([]tenants.Key, error) {
	f.w.note("list keys")
	return []tenants.Key{f.aKey()}, nil
}

func (f *fakeTenants) Key(_ context.Context, tenant, id ids.ID) (tenants.Key, error) {
	f.w.note("get key")
	if tenant != tenantA || id != theKey {
		return tenants.Key{}, absent()
	}
	return f.aKey(), nil
}

func (f *fakeTenants) RevokeKey(_ context.Context, tenant, id ids.ID, _ string) error {
	f.w.note("revoke key")
	if tenant != tenantA || id != theKey {
		return absent()
	}
	return nil
}

func (f *fakeTenants) CreateUserKey(context.Context, ids.ID, string, string) (tenants.UserKey, string, error) {
	f.w.note("create user key")
	return tenants.UserKey{ID: theUserKey, Name: "web", Secret: []byte("user-secret-never-shown"), CreatedAt: epoch}, "shown_once", nil
}

func (f *fakeTenants) UserKeys(context.Context, ids.ID, tenants.Page) ([]tenants.UserKey, error) {
	f.w.note("list user keys")
	return []tenants.UserKey{{ID: theUserKey, Name: "web", Secret: []byte("user-secret-never-shown"), CreatedAt: epoch}}, nil
}

func (f *fakeTenants) DeleteUserKey(_ context.Context, tenant, id ids.ID, _ string) error {
	f.w.note("delete user key")
	if tenant != tenantA || id != theUserKey {
		return absent()
	}
	return nil
}

func (f *fakeTenants) PutApp(context.Context, ids.ID, string, string) error {
	f.w.note("put app")
	return nil
}

func (f *fakeTenants) DeleteApp(_ context.Context, _ ids.ID, name, _ string) (ids.ID, error) {
	f.w.note("delete app " + name)
	return theJob, nil
}

func (f *fakeTenants) Apps(context.Context, ids.ID) ([]tenants.App, error) {
	f.w.note("list apps")
	return []tenants.App{{Name: "default", CreatedAt: epoch}}, nil
}

func aCredential() tenants.Credential {
	return tenants.Credential{Tenant: tenantA, ID: theCredential, App: "default", Channel: channels.WebPush, Qualifier: "BPublicKey", Version: 1,
		Settings: json.RawMessage(`{"public_key":"BPublicKey"}`), Status: tenants.CredentialActive, CreatedAt: epoch, UpdatedAt: epoch}
}

func (f *fakeTenants) one(what string, tenant, id ids.ID) (tenants.Credential, error) {
	f.w.note(what)
	if tenant != tenantA || id != theCredential {
		return tenants.Credential{}, absent()
	}
	return aCredential(), nil
}

func (f *fakeTenants) CountBound(context.Context, ids.ID, string, string) (tenants.Bound, error) {
	return tenants.Bound{Pair: 83, Unknown: 5, App: 100}, nil
}

func (f *fakeTenants) RehearseCredential(_ context.Context, _ ids.ID, in tenants.PutCredential) (ids.ID, tenants.Verification, error) {
	f.w.note("rehearse credential")
	v := tenants.Verification{State: tenants.Unverified, Code: "transport.timeout", At: epoch}
	if in.App == "new" {
		return 0, v, nil
	}
	return theCredential, v, nil
}

func (f *fakeTenants) VerifyCredential(_ context.Context, tenant, id ids.ID) (tenants.Credential, error) {
	c, err := f.one("verify credential", tenant, id)
	c.Verification = tenants.Verification{State: tenants.NotVerifiable, Detail: "It cannot be asked.", At: epoch}
	return c, err
}

func (f *fakeTenants) CredentialVersions(_ context.Context, tenant, id ids.ID) ([]tenants.CredentialVersion, error) {
	if _, err := f.one("versions", tenant, id); err != nil {
		return nil, err
	}
	return []tenants.CredentialVersion{
		{Version: 2, Current: true, Kept: true, Actor: "key_1", AutoRollback: true, CreatedAt: epoch, Verification: tenants.Verification{State: tenants.Unverified, Code: "transport.timeout", At: epoch}},
		{Version: 1, Settings: json.RawMessage(`{"a":1}`), CreatedAt: epoch, ProvenAt: epoch},
	}, nil
}

func (f *fakeTenants) RollbackCredential(_ context.Context, tenant, id ids.ID, in tenants.Rollback, _ string) (tenants.Credential, error) {
	f.rollback = in
	return f.one("rollback credential", tenant, id)
}

func (f *fakeTenants) PutCredential(_ context.Context, _ ids.ID, in tenants.PutCredential, _ string) (tenants.Credential, error) {
	f.w.note("put credential")
	f.input, f.put = bytes.Clone(in.Input), in
	return aCredential(), nil
}

func (f *fakeTenants) Credential(_ context.Context, tenant, id ids.ID) (tenants.Credential, error) {
	return f.one("get credential", tenant, id)
}

func (f *fakeTenants) Credentials(context.Context, ids.ID) ([]tenants.Credential, error) {
	f.w.note("list credentials")
	return f.credentials, nil
}

func (f *fakeTenants) DeleteCredential(_ context.Context, tenant, id ids.ID, _ string) error {
	_, err := f.one("delete credential", tenant, id)
	return err
}

func (f *fakeTenants) PauseCredential(_ context.Context, tenant, id ids.ID, _, _ string) (tenants.Credential, error) {
	return f.one("pause credential", tenant, id)
}

func (f *fakeTenants) ResumeCredential(_ context.Context, tenant, id ids.ID, _ string) (tenants.Credential, error) {
	return f.one("resume credential", tenant, id)
}
