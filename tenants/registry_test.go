package tenants_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func TestTenants(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, err := b.CreateTenant(t.Context(), "", "Made", tenants.Settings{}, "cli")
	require.NoError(t, err)
	require.Equal(t, made.ID.Format(ids.Tenant), made.Name)
	_, err = b.CreateTenant(t.Context(), "acme", "Acme", tenants.Settings{}, "cli")
	require.NoError(t, err)
	_, err = b.CreateTenant(t.Context(), "acme", "Acme", tenants.Settings{}, "cli")
	require.Equal(t, problem.Conflict, problem.CodeOf(err))

	put, created, err := b.PutTenant(t.Context(), "other", "Other", tenants.Settings{}, "cli")
	require.NoError(t, err)
	require.True(t, created)
	before, err := b.TenantByName(t.Context(), "other")
	require.NoError(t, err)
	require.Equal(t, put, before)

	again, created, err := b.PutTenant(t.Context(), "other", "Another", tenants.Settings{Origins: []string{"https://a.example"}}, "cli")
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, put.ID, again.ID)
	require.Equal(t, []ids.ID{put.ID}, b.changed)
	after, err := b.TenantByName(t.Context(), "other")
	require.NoError(t, err)
	require.Equal(t, "Another", after.Title, "the change is seen at once")

	renamed, created, err := b.PutTenant(t.Context(), made.Name, "Renamed", tenants.Settings{}, "cli")
	require.NoError(t, err)
	require.False(t, created, "a made name can be put when it exists")
	require.Equal(t, made.ID, renamed.ID)
	list, err := b.Tenants(t.Context(), tenants.Page{Limit: 10})
	require.NoError(t, err)
	require.Len(t, list, 3)
	for _, name := range []string{"nobody", "Not a name", ""} {
		_, err = b.TenantByName(t.Context(), name)
		require.Equal(t, problem.NotFound, problem.CodeOf(err))
	}
}

func TestATenantIsReadOnceIn5Seconds(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, err := b.CreateTenant(t.Context(), "acme", "", tenants.Settings{}, "cli")
	require.NoError(t, err)
	read := func() {
		for range 3 {
			byName, err := b.TenantByName(t.Context(), "acme")
			require.NoError(t, err)
			byID, err := b.Tenant(t.Context(), made.ID)
			require.NoError(t, err)
			require.Equal(t, byName, byID)
		}
	}
	read()
	require.Equal(t, 1, b.store.count("Tenant"))
	b.clock.forward(5 * time.Second)
	read()
	require.Equal(t, 2, b.store.count("Tenant"))
}

func TestPutTenantMeetsAnotherWhoMakesIt(t *testing.T) {
	t.Parallel()
	b := setup(t)
	raced := &racing{memory: b.store, other: tenants.Tenant{ID: 99, Name: "acme"}}
	svc := tenants.NewRegistry(tenants.Options{Store: raced, IDs: ids.NewGenerator(2, b.clock.now), Now: b.clock.now})
	got, created, err := svc.PutTenant(t.Context(), "acme", "Acme", tenants.Settings{}, "cli")
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, ids.ID(99), got.ID)
	require.Equal(t, "Acme", b.store.tenants[99].Title)
}

// racing makes a tenant of the same name right before the caller does.
type racing struct {
	*memory
	other tenants.Tenant
}

func (r *racing) CreateTenant(ctx context.Context, t tenants.Tenant, c tenants.Change) error {
	r.memory.tenants[r.other.ID] = r.other
	return r.memory.CreateTenant(ctx, t, c)
}

func TestNewTenantsAreChecked(t *testing.T) {
	t.Parallel()
	b := setup(t)
	bad := tenants.Settings{Origins: []string{"*"}}
	_, err := b.CreateTenant(t.Context(), "Acme Inc", strings.Repeat("x", 201), bad, "cli")
	require.Equal(t, []string{"name", "settings.origins[0]", "title"}, paths(faults(t, err)))
	_, err = b.CreateTenant(t.Context(), "ten_mine", "", tenants.Settings{}, "cli")
	require.Equal(t, []string{"name"}, paths(faults(t, err)))
	_, _, err = b.PutTenant(t.Context(), "", "", tenants.Settings{}, "cli")
	require.Equal(t, []string{"name"}, paths(faults(t, err)))

	_, err = b.CreateTenant(t.Context(), "acme", "", tenants.Settings{}, "cli")
	require.NoError(t, err)
	_, _, err = b.PutTenant(t.Context(), "acme", "a\tb", bad, "cli")
	require.Equal(t, []string{"settings.origins[0]", "title"}, paths(faults(t, err)))
	require.Empty(t, b.changed)
}

func TestApps(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.NoError(t, b.PutApp(t.Context(), 7, "ios-app", "cli"))
	require.Equal(t, []string{"name"}, paths(faults(t, b.PutApp(t.Context(), 7, "-", "cli"))))
	apps, err := b.Apps(t.Context(), 7)
	require.NoError(t, err)
	require.Equal(t, []tenants.App{{Tenant: 7, Name: "ios-app", CreatedAt: epoch}}, apps)
}

func TestADeletedTenantIsForgottenAtOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	made, err := b.CreateTenant(t.Context(), "acme", "", tenants.Settings{}, "cli")
	require.NoError(t, err)
	_, secret, err := b.CreateKey(t.Context(), made.ID, tenants.NewKey{Name: "k", Scopes: []tenants.Scope{tenants.Send}}, "cli")
	require.NoError(t, err)
	_, err = b.Authenticate(t.Context(), secret)
	require.NoError(t, err)
	_, err = b.TenantByName(t.Context(), "acme")
	require.NoError(t, err)

	gone, err := b.DeleteTenant(t.Context(), "acme", "key_1")
	require.NoError(t, err)
	require.True(t, gone.Deleting())
	require.Equal(t, []ids.ID{made.ID}, b.changed)
	changes := b.store.made()
	require.Equal(t, tenants.Change{Actor: "key_1", Action: "tenant.delete"}, changes[len(changes)-1])
	for id, k := range b.store.keys { // as a store does
		k.RevokedAt = epoch
		b.store.keys[id] = k
	}
	_, err = b.Authenticate(t.Context(), secret)
	require.Equal(t, problem.Unauthenticated, problem.CodeOf(err), "the key is read anew")
	shown, err := b.TenantByName(t.Context(), "acme")
	require.NoError(t, err)
	require.True(t, shown.Deleting(), "the tenant is read anew")
	_, err = b.DeleteTenant(t.Context(), "nobody", "key_1")
	require.Equal(t, problem.NotFound, problem.CodeOf(err))

	// The name is free in the end, and stands for the new tenant at once.
	delete(b.store.tenants, made.ID)
	again, err := b.CreateTenant(t.Context(), "acme", "", tenants.Settings{}, "cli")
	require.NoError(t, err)
	found, err := b.TenantByName(t.Context(), "acme")
	require.NoError(t, err)
	require.Equal(t, again.ID, found.ID)
}
