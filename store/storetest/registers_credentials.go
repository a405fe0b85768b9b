package storetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func credentialTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"VAPIDPair/ASecondOneIsARotation":   secondPairIsARotation,
		"VAPIDPair/SubscriptionsAreCounted": countsSubscriptions,
		"VAPIDPair/ALearnedKeyIsKept":       keepsALearnedKey,
		"VAPIDPair/WhatEarlierVersionsDid":  wrongPairsOfBefore,
		"Credential/IsReadBack":             credentialIsReadBack,
		"Credential/Versions":               credentialVersions,
		"Credential/Qualifiers":             credentialQualifiers,
		"Credential/TwoFirstPuts":           twoFirstPuts,
		"Credential/ReadsAgree":             readsAgree,
		"Credential/PutEndsHolds":           putEndsHolds,
		"Credential/PauseAndResume":         pausesCredentials,
		"Credential/IsDeleted":              deletesCredentials,
		"Credential/RecoversByItself":       recovers,
	}
}

func credentialIsReadBack(k *kit) {
	now := k.Clock.Now()
	c, err := k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "ipad", Channel: channels.APNs},
		channels.Credential{Settings: json.RawMessage(`{"team":"T"}`), Secret: []byte("p8"), Qualifier: "sandbox", ExpiresAt: now.Add(time.Hour)}, tenants.PutOptions{Rotate: true}, change("credential.put"))
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
	_, res := k.hold(1, delivery.Hold{Subject: first.ID, Version: 1}, delivery.HoldCredential, delivery.CredentialDenied, "fcm.denied")
	require.True(k, res.Opened)
	k.Clock.Advance(time.Second)
	next, err := k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: channels.FCM},
		channels.Credential{Settings: json.RawMessage(`{"project":"q"}`), Secret: []byte("two")}, tenants.PutOptions{Rotate: true}, change("credential.put"))
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

// twoFirstPuts puts a credential that is not there yet from several sides at once.
// Whoever comes second makes the next version, or is told that somebody was there.
func twoFirstPuts(k *kit) {
	for round := range 4 {
		qualifier := "q" + strconv.Itoa(round)
		const n = 8
		var (
			errs  [n]error
			wg    sync.WaitGroup
			start = make(chan struct{})
		)
		for i := range n {
			wg.Go(func() {
				<-start
				mine := strconv.Itoa(i)
				_, errs[i] = k.putAs(qualifier, `{"by":"`+mine+`"}`, mine, time.Time{})
			})
		}
		close(start)
		wg.Wait()
		var puts []string // whose were taken
		for i, err := range errs {
			if err == nil {
				puts = append(puts, strconv.Itoa(i))
				continue
			}
			k.code(problem.Conflict, err)
		}
		list, err := k.Store.Credentials(k.ctx, k.tenant)
		k.ok(err)
		require.Len(k, list, round+1)
		require.Equal(k, len(puts), list[round].Version)
		opened, err := k.Store.OpenCredential(k.ctx, k.tenant, list[round].ID)
		k.ok(err)
		require.Contains(k, puts, string(opened.Secret))
		require.JSONEq(k, `{"by":"`+string(opened.Secret)+`"}`, string(opened.Settings), "the settings are of another put than the secret")
	}
}

// readsAgree: a credential is read alone, in a list and with its secret, and is
// the same each time, however often it was put.
func readsAgree(k *kit) {
	k.credential(channels.FCM, "")
	k.credential(channels.APNs, "")
	start := k.Clock.Now()
	for version, expires := range []time.Time{start.Add(time.Hour), {}, start.Add(48 * time.Hour), {}} {
		version++
		k.Clock.Advance(time.Minute)
		settings, secret := fmt.Sprintf(`{"version":%d}`, version), fmt.Sprintf("secret-%d", version)
		put, err := k.putAs("sandbox", settings, secret, expires)
		k.ok(err)
		require.Equal(k, tenants.Credential{Tenant: k.tenant, ID: put.ID, App: "default", Channel: channels.APNs, Qualifier: "sandbox", Version: version,
			Settings: json.RawMessage(settings), Status: tenants.CredentialActive,
			CreatedAt: start.Add(time.Minute), UpdatedAt: k.Clock.Now(), ExpiresAt: expires}, put)
		k.credential(channels.APNs, "production") // a new version of its neighbour

		alone, err := k.Store.Credential(k.ctx, k.tenant, put.ID)
		k.ok(err)
		require.Equal(k, put, alone)
		list, err := k.Store.Credentials(k.ctx, k.tenant)
		k.ok(err)
		at := slices.IndexFunc(list, func(c tenants.Credential) bool { return c.ID == put.ID })
		require.GreaterOrEqual(k, at, 0)
		require.Equal(k, put, list[at])
		require.Len(k, list, 4)
		opened, err := k.Store.OpenCredential(k.ctx, k.tenant, put.ID)
		k.ok(err)
		require.Equal(k, channels.Credential{ID: int64(put.ID), Version: put.Version, Settings: put.Settings, Secret: []byte(secret),
			Qualifier: put.Qualifier, ExpiresAt: put.ExpiresAt}, opened)
	}
}

// putAs puts an APNs credential with these settings and this secret.
func (k *kit) putAs(qualifier, settings, secret string, expires time.Time) (tenants.Credential, error) {
	return k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: channels.APNs},
		channels.Credential{Settings: json.RawMessage(settings), Secret: []byte(secret), Qualifier: qualifier, ExpiresAt: expires}, tenants.PutOptions{Rotate: true}, change("credential.put"))
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

func secondPairIsARotation(k *kit) {
	put := func(app, key string, rotate bool) error {
		_, err := k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: app, Channel: channels.WebPush},
			channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte("s"), Qualifier: key}, tenants.PutOptions{Rotate: rotate}, change("credential.put"))
		return err
	}
	k.ok(put("default", "first", false))
	k.code(problem.Conflict, put("default", "second", false))
	all, err := k.Store.Credentials(k.ctx, k.tenant)
	k.ok(err)
	require.Len(k, all, 1, "nothing was stored")
	k.ok(put("default", "first", false))
	k.ok(put("other", "second", false))
	k.ok(put("default", "second", true))
	k.ok(put("default", "first", false))
	k.ok(put("default", "second", false))
	has, err := k.Store.HasPair(k.ctx, k.tenant, "default", "second")
	k.ok(err)
	require.True(k, has)
	has, err = k.Store.HasPair(k.ctx, k.tenant, "other", "first")
	k.ok(err)
	require.False(k, has)
}

func (k *kit) browserWith(user, address, key string) devices.Device {
	k.Helper()
	return k.device(user, address, func(d *devices.Device) {
		d.Channel, d.Target.Kind, d.VAPIDKey = channels.WebPush, channels.Subscription, key
		d.Target.P256dh, d.Target.Auth = make([]byte, 65), make([]byte, 16)
	})
}

func countsSubscriptions(k *kit) {
	for i, key := range []string{"one", "one", "two", ""} {
		k.browserWith("alice", fmt.Sprint("https://push.example/", i), key)
	}
	k.device("alice", "a phone")
	gone := k.browserWith("bob", "https://push.example/gone", "two")
	k.Clock.Advance(time.Second)
	k.verdict(gone, delivery.DeviceRetired)
	for key, want := range map[string]tenants.Bound{"one": {Pair: 2, Unknown: 1, App: 4}, "two": {Pair: 1, Unknown: 1, App: 4}, "three": {Unknown: 1, App: 4}} {
		got, err := k.Store.CountBound(k.ctx, k.tenant, "default", key)
		k.ok(err)
		require.Equal(k, want, got)
	}
	require.Equal(k, 50, tenants.Bound{Pair: 2, App: 4}.Percent())
	require.Equal(k, 100, tenants.Bound{}.Percent())
	k.tenant = k.newTenant("other")
	got, err := k.Store.CountBound(k.ctx, k.tenant, "default", "one")
	k.ok(err)
	require.Zero(k, got)
}

func keepsALearnedKey(k *kit) {
	d := k.browserWith("alice", "https://push.example/x", "")
	learn := func(key string) {
		k.verdict(d, delivery.DeviceConfirmed, func(f *delivery.Finish) {
			f.Transition.State, f.Transition.Reason, f.LearnedKey, f.StartedAt = delivery.Sent, delivery.NoReason, key, k.Clock.Now()
		})
	}
	learn("one")
	require.Equal(k, "one", k.status(d, devices.Active).VAPIDKey)
	k.Clock.Advance(time.Second)
	require.Equal(k, "one", k.browserWith("alice", "https://push.example/x", "").VAPIDKey, "a registration that does not know")
	require.Equal(k, "two", k.browserWith("alice", "https://push.example/x", "two").VAPIDKey, "who says it is believed")
	learn("one")
	require.Equal(k, "one", k.status(d, devices.Active).VAPIDKey, "until a send shows another")
}

func wrongPairsOfBefore(k *kit) {
	d := k.browserWith("alice", "https://push.example/x", "")
	k.browserWith("alice", "https://push.example/y", "")
	k.Clock.Advance(time.Second)
	k.verdict(d, delivery.DeviceRetired, func(f *delivery.Finish) { f.Attempt.Code = "webpush.key_mismatch" })
	got, err := k.Store.WrongPairs(k.ctx)
	k.ok(err)
	require.Equal(k, map[string]int{"acme": 1}, got)
	k.runs(k.restoreJob(devices.RestoreFilter{Reason: "webpush.key_mismatch"}).ID)
	k.status(d, devices.Active)
	got, err = k.Store.WrongPairs(k.ctx)
	k.ok(err)
	require.Empty(k, got)
}
