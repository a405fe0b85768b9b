package storetest

import (
	"encoding/json"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func credentialTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Credential/IsReadBack":       credentialIsReadBack,
		"Credential/Versions":         credentialVersions,
		"Credential/Qualifiers":       credentialQualifiers,
		"Credential/TwoFirstPuts":     twoFirstPuts,
		"Credential/PutEndsHolds":     putEndsHolds,
		"Credential/PauseAndResume":   pausesCredentials,
		"Credential/IsDeleted":        deletesCredentials,
		"Credential/RecoversByItself": recovers,
	}
}

func credentialIsReadBack(k *kit) {
	now := k.Clock.Now()
	c, err := k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "ipad", Channel: channels.APNs},
		channels.Credential{Settings: json.RawMessage(`{"team":"T"}`), Secret: []byte("p8"), Qualifier: "sandbox", ExpiresAt: now.Add(time.Hour)}, change("credential.put"))
	k.ok(err)
	require.Equal(k, tenants.Credential{Tenant: k.tenant, ID: c.ID, App: "ipad", Channel: channels.APNs, Qualifier: "sandbox", Version: 1,
		Settings: json.RawMessage(`{"team":"T"}`), Status: tenants.CredentialActive, CreatedAt: now, UpdatedAt: now, ExpiresAt: now.Add(time.Hour)}, c)
	got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, c, got)
	opened, err := k.Store.OpenCredential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, channels.Credential{ID: int64(c.ID), Version: 1, Settings: c.Settings, Secret: []byte("p8"), Qualifier: "sandbox", ExpiresAt: c.ExpiresAt}, opened)
	list, err := k.Store.Apps(k.ctx, k.tenant)
	k.ok(err)
	require.Len(k, list, 2, "the app came with it")
}

func credentialVersions(k *kit) {
	first := k.credential(channels.FCM, "")
	_, err := k.Store.PauseCredential(k.ctx, k.tenant, first.ID, "wrong key", change("credential.pause"))
	k.ok(err)
	k.Clock.Advance(time.Second)
	next, err := k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: channels.FCM},
		channels.Credential{Settings: json.RawMessage(`{"project":"q"}`), Secret: []byte("two")}, change("credential.put"))
	k.ok(err)
	require.Equal(k, first.ID, next.ID)
	require.Equal(k, 2, next.Version)
	require.Equal(k, tenants.CredentialActive, next.Status)
	require.Empty(k, next.Reason)
	require.Equal(k, first.CreatedAt, next.CreatedAt)
	opened, err := k.Store.OpenCredential(k.ctx, k.tenant, next.ID)
	k.ok(err)
	require.Equal(k, 2, opened.Version)
	require.Equal(k, "two", string(opened.Secret))
}

func credentialQualifiers(k *kit) {
	var want []ids.ID
	for _, q := range []string{"", "production", "sandbox"} {
		want = append(want, k.credential(channels.APNs, q).ID)
	}
	want = append(want, k.credential(channels.FCM, "").ID)
	list, err := k.Store.Credentials(k.ctx, k.tenant)
	k.ok(err)
	require.Equal(k, want, idsOf(list, func(c tenants.Credential) ids.ID { return c.ID }))
}

func twoFirstPuts(k *kit) {
	const n = 16
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { _, errs[i] = k.put(channels.FCM, "") })
	}
	wg.Wait()
	puts := 0
	for _, err := range errs {
		if err == nil {
			puts++
			continue
		}
		k.code(problem.Conflict, err)
	}
	list, err := k.Store.Credentials(k.ctx, k.tenant)
	k.ok(err)
	require.Len(k, list, 1)
	require.Equal(k, puts, list[0].Version)
	_, err = k.Store.OpenCredential(k.ctx, k.tenant, list[0].ID)
	k.ok(err)
}

func putEndsHolds(k *kit) {
	missing := delivery.Hold{App: "default", Channel: channels.APNs, Qualifier: "production"}
	k.hold(1, missing, delivery.HoldMissing, delivery.CredentialMissing, "")
	other := missing
	other.App = "ipad"
	k.hold(2, other, delivery.HoldMissing, delivery.CredentialMissing, "")
	c := k.credential(channels.FCM, "")
	k.hold(3, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "denied")
	k.hold(4, delivery.Hold{Subject: c.ID, Version: 1}, delivery.HoldDoubt, delivery.InDoubt, "gone")
	endings := func() (out []delivery.Ending) {
		for _, h := range k.holds() {
			out = append(out, h.Ending)
		}
		return out
	}
	require.Equal(k, []delivery.Ending{delivery.Open, delivery.Open, delivery.Open, delivery.Open}, endings())
	k.credential(channels.APNs, "")
	require.Equal(k, []delivery.Ending{delivery.Resume, delivery.Open, delivery.Open, delivery.Open}, endings())
	k.credential(channels.FCM, "")
	require.Equal(k, []delivery.Ending{delivery.Resume, delivery.Open, delivery.Resume, delivery.Reverse}, endings())
}

func pausesCredentials(k *kit) {
	c := k.credential(channels.FCM, "")
	for range 2 {
		got, err := k.Store.PauseCredential(k.ctx, k.tenant, c.ID, "moving", change("credential.pause"))
		k.ok(err)
		require.Equal(k, tenants.CredentialPaused, got.Status)
		require.Equal(k, "moving", got.Reason)
		require.Len(k, k.holds(), 1)
	}
	require.Equal(k, delivery.CredentialPaused, k.holds()[0].Reason)
	row, _ := k.hold(1, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialPaused, "")
	k.is(row, delivery.Held, delivery.CredentialPaused)
	for range 2 {
		got, err := k.Store.ResumeCredential(k.ctx, k.tenant, c.ID, change("credential.resume"))
		k.ok(err)
		require.Equal(k, tenants.CredentialActive, got.Status)
		require.Empty(k, got.Reason)
	}
	k.ended(10)
	k.is(row, delivery.Pending, delivery.NoReason)
}

func deletesCredentials(k *kit) {
	c := k.credential(channels.FCM, "")
	row, _ := k.hold(1, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "denied")
	k.ok(k.Store.DeleteCredential(k.ctx, k.tenant, c.ID, change("credential.delete")))
	k.code(problem.NotFound, k.Store.DeleteCredential(k.ctx, k.tenant, c.ID, change("credential.delete")))
	_, err := k.Store.OpenCredential(k.ctx, k.tenant, c.ID)
	k.code(problem.NotFound, err)
	k.ended(10)
	k.is(row, delivery.Pending, delivery.NoReason)
	next := k.credential(channels.FCM, "")
	require.NotEqual(k, c.ID, next.ID)
	require.Equal(k, 1, next.Version)
}

func recovers(k *kit) {
	c := k.credential(channels.FCM, "")
	row, _ := k.hold(1, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "denied")
	doubt, _ := k.hold(2, delivery.Hold{Subject: c.ID, Version: 1}, delivery.HoldDoubt, delivery.InDoubt, "gone")
	k.ok(k.Store.RecoverCredential(k.ctx, k.tenant, c.ID))
	k.ended(10)
	k.is(row, delivery.Pending, delivery.NoReason)
	k.is(doubt, delivery.Held, delivery.InDoubt)
	got, err := k.Store.Credential(k.ctx, k.tenant, c.ID)
	k.ok(err)
	require.Equal(k, tenants.CredentialActive, got.Status)
}
