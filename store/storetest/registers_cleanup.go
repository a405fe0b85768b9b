package storetest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

func upkeepTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Upkeep/StaleDevices":           retiresStale,
		"Upkeep/StaleByTenant":          retiresStaleByTenant,
		"Upkeep/ASuccessIsASignOfLife":  keepsTheSuccessful,
		"Upkeep/ExpiredSecrets":         dropsExpiredSecrets,
		"Upkeep/ReplacedCredentials":    dropsReplacedCredentials,
		"Upkeep/RevokedAndExpiredKeys":  dropsOldKeys,
		"Upkeep/EndedActivities":        dropsEndedActivities,
		"Upkeep/NothingOfADeletedOwner": upkeepPassesOverDeleted,
	}
}

func (k *kit) retireStale(after time.Duration) int {
	k.Helper()
	n, err := k.Store.RetireStale(k.ctx, after, k.Clock.Now())
	k.ok(err)
	return n
}

func retiresStale(k *kit) {
	const after = 60 * day
	silent := k.device("alice", "silent")
	seen := k.device("alice", "seen")
	k.Clock.Advance(after)
	require.Zero(k, k.retireStale(after), "not before the time is over")
	later := k.device("bob", "later")
	k.device("alice", "seen") // registers again
	k.Clock.Advance(time.Millisecond)
	require.Zero(k, k.retireStale(0), "0 is never")
	require.Equal(k, 1, k.retireStale(after))
	d := k.status(silent, devices.Retired)
	require.Equal(k, "stale", d.Reason)
	k.status(seen, devices.Active)
	k.status(later, devices.Active)
	require.Zero(k, k.retireStale(after))
	again := k.register("alice", "silent")
	require.Equal(k, silent.ID, again.Device.ID, "it may come back")
	require.Equal(k, devices.Active, again.Device.Status)
}

func retiresStaleByTenant(k *kit) {
	usual := k.tenant
	never, sooner := k.newTenant("never"), k.newTenant("sooner")
	k.settings(never, tenants.Settings{StaleAfter: new(int64)})
	k.settings(sooner, tenants.Settings{StaleAfter: ms(31 * day)})
	made := map[ids.ID]devices.Device{}
	for _, tenant := range []ids.ID{usual, never, sooner} {
		k.tenant = tenant
		made[tenant] = k.device("alice", "token")
	}
	look := func(tenant ids.ID, want devices.Status) {
		k.tenant = tenant
		k.status(made[tenant], want)
	}
	k.Clock.Advance(32 * day)
	require.Equal(k, 1, k.retireStale(60*day))
	look(sooner, devices.Retired)
	k.Clock.Advance(60 * day)
	require.Equal(k, 1, k.retireStale(60*day))
	look(usual, devices.Retired)
	look(never, devices.Active)
}

func keepsTheSuccessful(k *kit) {
	served, failing := k.device("alice", "served"), k.device("alice", "failing")
	k.Clock.Advance(50 * day)
	k.send(requestTo("alice"), served, failing)
	for _, c := range k.claim() {
		if c.Target == served.ID {
			k.sends(c)
		} else {
			k.dies(c)
		}
	}
	k.Clock.Advance(11 * day)
	require.Equal(k, 1, k.retireStale(60*day))
	k.status(served, devices.Active)
	k.status(failing, devices.Retired)
	k.Clock.Advance(50 * day) // the success is too long ago
	require.Equal(k, 1, k.retireStale(60*day))
	k.status(served, devices.Retired)
}

func dropsExpiredSecrets(k *kit) {
	now := k.Clock.Now()
	key := func(b byte) []byte { return append(make([]byte, 31), b) }
	e := k.endpoint(func(e *webhooks.Endpoint) {
		e.Secrets = []webhooks.Secret{{Key: key(1), CreatedAt: now}, {Key: key(2), CreatedAt: now, ExpiresAt: now.Add(time.Hour)},
			{Key: key(3), CreatedAt: now, ExpiresAt: now.Add(day)}}
	})
	plain := k.endpoint()
	drop := func() int {
		n, err := k.Store.DropExpiredSecrets(k.ctx, k.Clock.Now())
		k.ok(err)
		return n
	}
	require.Zero(k, drop())
	k.Clock.Advance(time.Hour)
	require.Equal(k, 1, drop())
	got, err := k.Store.Endpoint(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.Equal(k, []webhooks.Secret{e.Secrets[0], e.Secrets[2]}, got.Secrets)
	require.Equal(k, e.UpdatedAt, got.UpdatedAt, "it is no change of the endpoint")
	require.Zero(k, drop())
	k.Clock.Advance(day)
	require.Equal(k, 1, drop())
	got, err = k.Store.Endpoint(k.ctx, k.tenant, plain.ID)
	k.ok(err)
	require.Equal(k, plain, got)
}

func dropsReplacedCredentials(k *kit) {
	k.credential(channels.FCM, "") // replaced at once
	k.credential(channels.FCM, "")
	k.Clock.Advance(29 * day)
	c := k.credential(channels.FCM, "") // what was in use until now may be gone back to
	sealed := func() (empty int) {
		for _, row := range k.Dump(k.T)["credential_versions"].Rows {
			if len(row["sealed"].([]byte)) == 0 {
				empty++
			}
		}
		return empty
	}
	drop := func() int {
		n, err := k.Store.DropReplacedCredentials(k.ctx, k.Clock.Now().Add(-30*day), 100)
		k.ok(err)
		return n
	}
	require.Zero(k, drop())
	k.Clock.Advance(day + time.Millisecond)
	require.Equal(k, 1, drop())
	require.Equal(k, 1, sealed())
	require.Zero(k, drop())
	k.Clock.Advance(30 * day)
	require.Equal(k, 1, drop())
	k.Clock.Advance(300 * day)
	require.Zero(k, drop(), "the newest is used")
	require.Equal(k, 2, sealed())
	secret, err := k.Store.OpenCredential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, []byte("credential-secret"), secret.Secret)
}

func dropsOldKeys(k *kit) {
	create := func(expires time.Time) tenants.Key {
		x := tenants.Key{ID: k.IDs.Next(), Tenant: k.tenant, Name: "key", Scopes: []tenants.Scope{tenants.Send}, Hash: make([]byte, 32),
			CreatedAt: k.Clock.Now(), ExpiresAt: expires}
		k.ok(k.Store.CreateKey(k.ctx, x, change("key.create")))
		return x
	}
	kept, revoked, expiring := create(time.Time{}), create(time.Time{}), create(k.Clock.Now().Add(day))
	k.ok(k.Store.RevokeKey(k.ctx, k.tenant, revoked.ID, k.Clock.Now(), change("key.revoke")))
	drop := func() int {
		n, err := k.Store.DropOldKeys(k.ctx, k.Clock.Now().Add(-30*day), 100)
		k.ok(err)
		return n
	}
	k.Clock.Advance(30 * day)
	require.Zero(k, drop())
	k.Clock.Advance(time.Millisecond)
	require.Equal(k, 1, drop())
	_, err := k.Store.Key(k.ctx, revoked.ID)
	k.code(problem.NotFound, err)
	k.Clock.Advance(day)
	require.Equal(k, 1, drop())
	_, err = k.Store.Key(k.ctx, expiring.ID)
	k.code(problem.NotFound, err)
	k.Clock.Advance(1000 * day)
	require.Zero(k, drop())
	_, err = k.Store.Key(k.ctx, kept.ID)
	k.ok(err)
}

func dropsEndedActivities(k *kit) {
	ends := func(at time.Time) func(*devices.Device) {
		return func(d *devices.Device) { d.ExpiresAt = at }
	}
	now := k.Clock.Now()
	ended := k.device("alice", "ended", token(channels.Activity, "a"), ends(now.Add(time.Hour)))
	renewed := k.device("alice", "renewed", token(channels.Activity, "b"), ends(now.Add(time.Hour)))
	browser := k.device("alice", "browser", ends(now.Add(time.Hour)))
	call := k.device("alice", "call", token(channels.VoIP, ""))
	k.device("alice", "renewed", token(channels.Activity, "b"), ends(now.Add(3*time.Hour)))
	drop := func(ago time.Duration) int {
		n, err := k.Store.DropEndedActivities(k.ctx, k.Clock.Now().Add(-ago), 100)
		k.ok(err)
		return n
	}
	require.Zero(k, drop(0))
	k.Clock.Advance(2 * time.Hour)
	require.Zero(k, drop(time.Hour), "not yet")
	require.Equal(k, 1, drop(0))
	_, err := k.Store.Device(k.ctx, k.tenant, ended.ID)
	k.code(problem.NotFound, err)
	require.Equal(k, []string{"registered alice   key_test", "deleted  ended  engine"}, k.history(ended))
	for _, d := range []devices.Device{renewed, browser, call} {
		k.status(d, devices.Active)
	}
	k.Clock.Advance(2 * time.Hour)
	for i := range 5 {
		k.device("alice", fmt.Sprint("more", i), token(channels.Activity, fmt.Sprint(i)), ends(k.Clock.Now().Add(time.Minute)))
	}
	k.Clock.Advance(time.Hour)
	n, err := k.Store.DropEndedActivities(k.ctx, k.Clock.Now(), 4)
	k.ok(err)
	require.Equal(k, 4, n, "as many as one transaction may hold")
	require.Equal(k, 2, drop(0))
}

// upkeepPassesOverDeleted: what cannot be opened any more stops nothing.
func upkeepPassesOverDeleted(k *kit) {
	now := k.Clock.Now()
	expires := func(e *webhooks.Endpoint) {
		e.Secrets = []webhooks.Secret{{Key: make([]byte, 32), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}}
	}
	k.endpoint(expires)
	old := k.device("alice", "token")
	gone := k.tenant
	k.tenant = k.newTenant("other")
	k.endpoint(expires)
	_, err := k.Store.DeleteTenant(k.ctx, gone, change("tenant.delete"))
	k.ok(err)
	k.Clock.Advance(100 * day)
	n, err := k.Store.DropExpiredSecrets(k.ctx, k.Clock.Now())
	k.ok(err)
	require.Equal(k, 1, n)
	require.Zero(k, k.retireStale(60*day), "%d goes with its tenant", old.ID)
	n, err = k.Store.Purge(k.ctx, delivery.DefaultRetention(), k.Clock.Now(), 100)
	k.ok(err)
	require.Equal(k, 1, n, "the time of the event that registered it is over, whosever it was")
}
