package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

func tenancyTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Tenancy/AnothersIDIsNotFound":    anothersIDIsNotFound,
		"Tenancy/ListsAreOnesOwn":         listsAreOnesOwn,
		"Tenancy/AClaimOfAnotherIsNoHelp": anothersClaim,
	}
}

// anothersIDIsNotFound calls everything that takes a tenant and an id with the
// id of another tenant's row, and sees that row unchanged.
func anothersIDIsNotFound(k *kit) {
	d, e, c := k.device("alice", "a"), k.endpoint(), k.credential(channels.FCM, "")
	key, userKey := k.key(k.tenant), k.userKey()
	a := k.accepted(2)
	dead := k.claim()[0]
	k.dies(dead)
	job := k.newJob(k.tenant)
	mine := k.tenant
	other := k.newTenant("other")
	k.tenant = other

	who, now, ctx, s := change("test"), k.Clock.Now(), k.ctx, k.Store
	stolen := e
	stolen.Tenant, stolen.URL = other, "https://evil.example"
	for name, call := range map[string]func() error{
		"Notification":  func() error { _, err := s.Notification(ctx, other, a.ID); return err },
		"Delivery":      func() error { _, err := s.Delivery(ctx, other, a.ID, dead.Target); return err },
		"Content":       func() error { _, err := s.Content(ctx, other, a.ID); return err },
		"Cancel":        func() error { _, err := s.Cancel(ctx, other, a.ID, now); return err },
		"Replay":        func() error { return k.replay(dead.Row) },
		"Device":        func() error { _, err := s.Device(ctx, other, d.ID); return err },
		"DeviceHistory": func() error { _, err := s.DeviceHistory(ctx, other, d.ID); return err },
		"UpdateDevice":  func() error { _, err := s.UpdateDevice(ctx, other, d.ID, devices.Patch{Locale: new("de")}); return err },
		"DeleteDevice":  func() error { return s.DeleteDevice(ctx, other, d.ID, "", "key_test") },
		"DeleteAddress": func() error {
			return s.DeleteAddress(ctx, other, devices.AddressKey{App: d.App, Channel: d.Channel, Address: "a"}, "", "key_test")
		},
		"Endpoint":         func() error { _, err := s.Endpoint(ctx, other, e.ID); return err },
		"UpdateEndpoint":   func() error { return s.UpdateEndpoint(ctx, stolen, e.UpdatedAt, webhooks.Edit{Actor: "test"}) },
		"DeleteEndpoint":   func() error { return s.DeleteEndpoint(ctx, other, e.ID, "test") },
		"RevokeKey":        func() error { return s.RevokeKey(ctx, other, key.ID, now, who) },
		"DeleteUserKey":    func() error { return s.DeleteUserKey(ctx, other, userKey.ID, who) },
		"Credential":       func() error { _, err := s.Credential(ctx, other, c.ID); return err },
		"OpenCredential":   func() error { _, err := s.OpenCredential(ctx, other, c.ID); return err },
		"DeleteCredential": func() error { return s.DeleteCredential(ctx, other, c.ID, who) },
		"PauseCredential":  func() error { _, err := s.PauseCredential(ctx, other, c.ID, "", who); return err },
		"ResumeCredential": func() error { _, err := s.ResumeCredential(ctx, other, c.ID, who); return err },
		"Recover":          func() error { return s.RecoverCredential(ctx, other, c.ID) },
		"Job":              func() error { _, err := s.Job(ctx, other, job.ID); return err },
		"CancelJob":        func() error { _, err := s.CancelJob(ctx, other, job.ID, "test"); return err },
	} {
		err := call()
		require.Error(k, err, name)
		require.Equal(k, problem.NotFound, problem.CodeOf(err), "%s: %v", name, err)
	}
	there, err := s.ResolveScheduled(ctx, delivery.Part{Accepted: delivery.Accepted{ID: a.ID, Tenant: other}})
	k.ok(err)
	require.False(k, there)
	_, err = s.PutCredential(ctx, tenants.Credential{Tenant: other, ID: c.ID, App: c.App, Channel: c.Channel},
		channels.Credential{Settings: []byte("{}"), Secret: []byte("x")}, tenants.PutOptions{Rotate: true}, who)
	k.ok(err)

	k.tenant = mine
	require.Equal(k, job, k.job(job))
	k.is(dead.Row, delivery.Dead, delivery.Rejected)
	view, err := s.Notification(ctx, mine, a.ID)
	k.ok(err)
	require.False(k, view.Canceled)
	require.Equal(k, d, k.status(d, devices.Active))
	gotE, err := s.Endpoint(ctx, mine, e.ID)
	k.ok(err)
	require.Equal(k, e, gotE)
	gotC, err := s.Credential(ctx, mine, c.ID)
	k.ok(err)
	require.Equal(k, c, gotC)
	gotK, err := s.Key(ctx, key.ID)
	k.ok(err)
	require.Equal(k, key, gotK)
	_, err = s.UserKey(ctx, userKey.ID)
	k.ok(err)
	require.Empty(k, k.holds())
}

func listsAreOnesOwn(k *kit) {
	d := k.device("alice", "a")
	k.endpoint()
	c := k.credential(channels.FCM, "")
	k.key(k.tenant)
	k.userKey()
	k.hold(d.ID, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "denied")
	k.accept(func() delivery.Accepted {
		a := k.notification(d.ID)
		a.Rows[0].UserID = d.UserID
		return a
	}())
	k.dies(k.claim()[0])
	other := k.newTenant("other")
	ctx, s, page := k.ctx, k.Store, tenants.Page{Limit: 10}
	for name, count := range map[string]func() (int, error){
		"Deliveries": func() (int, error) { l, err := s.Deliveries(ctx, other, delivery.Query{Limit: 10}); return len(l), err },
		"of a user": func() (int, error) {
			l, err := s.Deliveries(ctx, other, delivery.Query{User: "alice", Limit: 10})
			return len(l), err
		},
		"DeadLetters": func() (int, error) {
			l, err := s.DeadLetters(ctx, other, delivery.Query{Limit: 10})
			return len(l), err
		},
		"UserNotifications": func() (int, error) { l, err := s.UserNotifications(ctx, other, "alice", 0, 10); return len(l), err },
		"Holds":             func() (int, error) { l, err := s.Holds(ctx, other); return len(l), err },
		"StandingHolds":     func() (int, error) { l, err := s.StandingHolds(ctx, other); return len(l), err },
		"Devices":           func() (int, error) { l, err := s.Devices(ctx, other, devices.Filter{Limit: 10}); return len(l), err },
		"Endpoints":         func() (int, error) { l, err := s.Endpoints(ctx, other, 0, 10); return len(l), err },
		"Keys":              func() (int, error) { l, err := s.Keys(ctx, other, page); return len(l), err },
		"UserKeys":          func() (int, error) { l, err := s.UserKeys(ctx, other, page); return len(l), err },
		"Credentials":       func() (int, error) { l, err := s.Credentials(ctx, other); return len(l), err },
	} {
		n, err := count()
		k.ok(err)
		require.Zero(k, n, name)
	}
	all, err := s.HoldsEndingOrDenied(ctx)
	k.ok(err)
	require.Len(k, all, 1, "the engine settles those of every tenant")
}

func anothersClaim(k *kit) {
	k.accepted(1)
	c := k.claim()[0]
	forged := c.Row
	forged.Tenant = k.newTenant("other")
	require.True(k, k.finish(delivery.Finish{Row: forged, Transition: delivery.Transition{State: delivery.Sent}}).Lost)
	require.Equal(k, []bool{false}, k.renew(time.Hour, forged))
	k.Clock.Advance(time.Minute)
	require.Len(k, k.claim(), 1)
}
