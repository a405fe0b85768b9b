package storetest

import (
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func deletionTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"TenantDeletion/NoRowIsLeft": noRowOfTheTenantIsLeft,
		"TenantDeletion/AtOnce":      deletesAtOnce,
		"TenantDeletion/Much":        deletesMuch,
	}
}

// noRowOfTheTenantIsLeft walks the whole database, whatever is in it.
func noRowOfTheTenantIsLeft(k *kit) {
	k.seedPerson()
	k.erase("bob")
	k.credential(channels.FCM, "")
	k.key(k.tenant)
	k.userKey()
	gone := k.tenant
	of := func(d Dump, tenant ids.ID) (out []string) {
		for name, table := range d {
			if !slices.Contains(table.Columns, "tenant_id") {
				continue
			}
			for _, row := range table.Rows {
				if row["tenant_id"] == int64(tenant) {
					out = append(out, name)
					break
				}
			}
		}
		slices.Sort(out)
		return out
	}
	before := k.dump()
	var all []string
	for name, table := range before {
		if slices.Contains(table.Columns, "tenant_id") {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	require.Equal(k, all, of(before, gone), "the seed puts a row of the tenant into every table that has some")
	require.NotEmpty(k, before["credential_versions"].Rows)

	other := k.newTenant("other")
	k.tenant = other
	k.seedPerson()
	kept := of(k.dump(), other)
	_, err := k.Store.DeleteTenant(k.ctx, gone, change("tenant.delete"))
	k.ok(err)
	k.work()
	after := k.dump()
	require.Empty(k, of(after, gone))
	require.Equal(k, kept, of(after, other))
	require.Empty(k, after["credential_versions"].Rows)
	_, err = k.Store.Tenant(k.ctx, gone)
	k.code(problem.NotFound, err)
	_, err = k.Store.TenantByName(k.ctx, "acme")
	k.code(problem.NotFound, err)
	require.NotEqual(k, gone, k.newTenant("acme"), "the name is free")
}

func deletesAtOnce(k *kit) {
	a, c := k.accepted(2), k.credential(channels.FCM, "")
	e := k.endpoint()
	hook := k.accepted(1, onWebhook, func(a *delivery.Accepted) { a.Rows[0].Target = e.ID })
	m := k.scheduled(k.Clock.Now().Add(time.Minute))
	key, userKey := k.key(k.tenant), k.userKey()
	inHand := k.claim(func(o *delivery.ClaimOrder) { o.Limit = 1 })[0]
	gone := k.tenant
	k.tenant = k.newTenant("other")
	others := k.accepted(1)
	k.tenant = gone

	t, err := k.Store.DeleteTenant(k.ctx, gone, change("tenant.delete"))
	k.ok(err)
	require.True(k, t.Deleting())
	again, err := k.Store.DeleteTenant(k.ctx, gone, change("tenant.delete"))
	k.ok(err)
	require.Equal(k, t, again)
	gotKey, err := k.Store.Key(k.ctx, key.ID)
	k.ok(err)
	require.False(k, gotKey.RevokedAt.IsZero())
	_, err = k.Store.UserKey(k.ctx, userKey.ID)
	k.code(problem.NotFound, err)
	_, err = k.Store.Content(k.ctx, gone, a.ID)
	require.Error(k, err, "content cannot be opened")
	_, err = k.Store.OpenCredential(k.ctx, gone, c.ID)
	require.Error(k, err, "credentials cannot be opened")
	_, err = k.Store.Endpoint(k.ctx, gone, e.ID)
	require.Error(k, err, "webhook secrets cannot be opened")
	_, err = k.Store.Accept(k.ctx, delivery.Batch{Tenant: gone, Accepted: []delivery.Accepted{k.notification(1)}})
	require.Error(k, err, "nothing more is accepted")
	k.code(problem.Conflict, k.Store.UpdateTenant(k.ctx, t, change("tenant.update")))
	k.code(problem.Conflict, k.Store.CreateTenant(k.ctx, tenants.Tenant{ID: k.IDs.Next(), Name: t.Name}, change("tenant.create")))

	k.Clock.Advance(2 * time.Minute)
	due, err := k.Store.DueScheduled(k.ctx, k.Clock.Now(), 10)
	k.ok(err)
	require.Empty(k, due, "%d is not resolved", m.ID)
	list := k.claim()
	require.Len(k, list, 1, "of %d nothing is claimed", hook.ID)
	require.Equal(k, others.ID, list[0].Notification)
	k.work()
	require.True(k, k.finish(delivery.Finish{Row: inHand.Row, Transition: delivery.Transition{State: delivery.Sent}}).Lost)
	require.Empty(k, k.claim())
}

func deletesMuch(k *kit) {
	for range 3 {
		k.accepted(700)
	}
	gone := k.tenant
	_, err := k.Store.DeleteTenant(k.ctx, gone, change("tenant.delete"))
	k.ok(err)
	require.Greater(k, k.work(), 3, "in batches")
	for name, table := range k.dump() {
		for _, row := range table.Rows {
			require.NotEqual(k, int64(gone), row["tenant_id"], name)
		}
	}
}
