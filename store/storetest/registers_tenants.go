package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func tenantTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Tenant/IsReadBack":      tenantIsReadBack,
		"Tenant/NameIsTaken":     tenantNameIsTaken,
		"Tenant/Lists":           listsTenants,
		"Key/IsReadBack":         keyIsReadBack,
		"Key/Lists":              listsKeys,
		"Key/IsRevokedForGood":   revokesKeys,
		"Key/LastUseGrows":       touchesKeys,
		"UserKey/IsReadBack":     userKeyIsReadBack,
		"App/ExistsFromTheStart": apps,
	}
}

func tenantIsReadBack(k *kit) {
	jitter := 0.1
	t := tenants.Tenant{ID: k.IDs.Next(), Name: "other", Title: "Other & Sons", CreatedAt: k.Clock.Now(), UpdatedAt: k.Clock.Now(), Settings: tenants.Settings{
		Retry: map[channels.Kind]tenants.RetryPolicy{channels.FCM: {Delays: []int64{1, 2}, Jitter: &jitter}},
		TTL:   map[channels.Kind]int64{channels.Webhook: 60}, Origins: []string{"https://app.example.com"}}}
	k.ok(k.Store.CreateTenant(k.ctx, t, change("tenant.create")))
	got, err := k.Store.Tenant(k.ctx, t.ID)
	k.ok(err)
	require.Equal(k, t, got)
	k.Clock.Advance(time.Second)
	t.Title, t.Settings, t.UpdatedAt = "Sons", tenants.Settings{}, k.Clock.Now()
	k.ok(k.Store.UpdateTenant(k.ctx, t, change("tenant.update")))
	got, err = k.Store.TenantByName(k.ctx, "other")
	k.ok(err)
	require.Equal(k, t, got)

	t.ID = 4711
	k.code(problem.NotFound, k.Store.UpdateTenant(k.ctx, t, change("tenant.update")))
	_, err = k.Store.Tenant(k.ctx, t.ID)
	k.code(problem.NotFound, err)
	_, err = k.Store.TenantByName(k.ctx, "nobody")
	k.code(problem.NotFound, err)
}

func tenantNameIsTaken(k *kit) {
	id := k.IDs.Next()
	k.code(problem.Conflict, k.Store.CreateTenant(k.ctx, tenants.Tenant{ID: id, Name: "acme"}, change("tenant.create")))
	_, err := k.Store.Tenant(k.ctx, id)
	k.code(problem.NotFound, err)
	list, err := k.Store.Apps(k.ctx, id)
	k.ok(err)
	require.Empty(k, list)
}

func listsTenants(k *kit) {
	want := []ids.ID{k.tenant, k.newTenant("b"), k.newTenant("a")}
	id := func(t tenants.Tenant) ids.ID { return t.ID }
	list, err := k.Store.Tenants(k.ctx, tenants.Page{Limit: 2})
	k.ok(err)
	require.Equal(k, want[:2], idsOf(list, id))
	list, err = k.Store.Tenants(k.ctx, tenants.Page{Limit: 2, After: want[1]})
	k.ok(err)
	require.Equal(k, want[2:], idsOf(list, id))
}

func (k *kit) key(tenant ids.ID) tenants.Key {
	k.Helper()
	x := tenants.Key{ID: k.IDs.Next(), Tenant: tenant, Name: "ci", Scopes: []tenants.Scope{tenants.Send, tenants.Read}, Hash: []byte("hash"),
		CreatedAt: k.Clock.Now(), ExpiresAt: k.Clock.Now().Add(time.Hour)}
	k.ok(k.Store.CreateKey(k.ctx, x, change("key.create")))
	return x
}

func keyIsReadBack(k *kit) {
	for _, tenant := range []ids.ID{k.tenant, 0} {
		x := k.key(tenant)
		got, err := k.Store.Key(k.ctx, x.ID)
		k.ok(err)
		require.Equal(k, x, got)
	}
	_, err := k.Store.Key(k.ctx, 4711)
	k.code(problem.NotFound, err)
}

func listsKeys(k *kit) {
	a, b, c := k.key(k.tenant), k.key(k.tenant), k.key(k.tenant)
	k.key(0)
	id := func(x tenants.Key) ids.ID { return x.ID }
	list, err := k.Store.Keys(k.ctx, k.tenant, tenants.Page{Limit: 2})
	k.ok(err)
	require.Equal(k, []ids.ID{c.ID, b.ID}, idsOf(list, id))
	list, err = k.Store.Keys(k.ctx, k.tenant, tenants.Page{Limit: 2, After: b.ID})
	k.ok(err)
	require.Equal(k, []ids.ID{a.ID}, idsOf(list, id))
}

func revokesKeys(k *kit) {
	x := k.key(k.tenant)
	at := k.Clock.Now().Add(time.Second)
	for i := range 2 {
		k.ok(k.Store.RevokeKey(k.ctx, k.tenant, x.ID, at.Add(time.Duration(i)*time.Hour), change("key.revoke")))
		got, err := k.Store.Key(k.ctx, x.ID)
		k.ok(err)
		require.Equal(k, at, got.RevokedAt)
	}
	k.code(problem.NotFound, k.Store.RevokeKey(k.ctx, k.tenant, 4711, at, change("key.revoke")))
}

func touchesKeys(k *kit) {
	x := k.key(k.tenant)
	at := k.Clock.Now().Add(time.Hour)
	k.ok(k.Store.TouchKey(k.ctx, x.ID, at))
	k.ok(k.Store.TouchKey(k.ctx, x.ID, at.Add(-time.Minute)))
	got, err := k.Store.Key(k.ctx, x.ID)
	k.ok(err)
	require.Equal(k, at, got.LastUsedAt)
}

func (k *kit) userKey() tenants.UserKey {
	k.Helper()
	x := tenants.UserKey{ID: k.IDs.Next(), Tenant: k.tenant, Name: "backend", Secret: []byte("user-key-secret"), CreatedAt: k.Clock.Now()}
	k.ok(k.Store.CreateUserKey(k.ctx, x, change("user_key.create")))
	return x
}

func userKeyIsReadBack(k *kit) {
	a, b := k.userKey(), k.userKey()
	got, err := k.Store.UserKey(k.ctx, a.ID)
	k.ok(err)
	require.Equal(k, a, got)
	list, err := k.Store.UserKeys(k.ctx, k.tenant, tenants.Page{Limit: 10})
	k.ok(err)
	require.Len(k, list, 2)
	require.Equal(k, b.ID, list[0].ID)
	require.Empty(k, list[0].Secret)
	k.ok(k.Store.DeleteUserKey(k.ctx, k.tenant, a.ID, change("user_key.delete")))
	k.code(problem.NotFound, k.Store.DeleteUserKey(k.ctx, k.tenant, a.ID, change("user_key.delete")))
	_, err = k.Store.UserKey(k.ctx, a.ID)
	k.code(problem.NotFound, err)
}

func apps(k *kit) {
	for range 2 { // again: no error
		k.ok(k.Store.PutApp(k.ctx, tenants.App{Tenant: k.tenant, Name: "ipad", CreatedAt: k.Clock.Now()}, change("app.put")))
		k.Clock.Advance(time.Second)
	}
	list, err := k.Store.Apps(k.ctx, k.tenant)
	k.ok(err)
	require.Len(k, list, 2)
	require.Equal(k, "default", list[0].Name)
	require.Equal(k, "ipad", list[1].Name)
	require.Equal(k, list[0].CreatedAt, list[1].CreatedAt)
}
