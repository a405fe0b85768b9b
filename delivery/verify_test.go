package delivery_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// TestCredentialsAreVerifiedEveryDay: what its provider refuses by then is held before
// a user misses something, and the state is written down.
func TestCredentialsAreVerifiedEveryDay(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, func(o *delivery.Options) { o.VerifyEvery = 5 * time.Millisecond })
	good, bad := k.credential(channels.FCM, ""), k.credential(channels.APNs, "")
	k.channels[channels.APNs].says(channels.Result{Outcome: channels.Denied, Code: "apns.bad_certificate", Detail: "It has expired."})
	clock.advance(23 * time.Hour)
	require.Zero(t, k.channels[channels.FCM].asked())
	clock.advance(4 * time.Hour)
	state := func(c tenants.Credential) tenants.Credential {
		got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
		require.NoError(t, err)
		return got
	}
	eventually(t, "both are verified", func() bool {
		clock.advance(time.Second) // to the next round
		return state(good).Verification.State == tenants.Verified && state(bad).Verification.State == tenants.Refused
	})
	eventually(t, "the refused one is held", func() bool { return len(k.holdsOf(delivery.HoldCredential)) == 1 })
	require.Equal(t, tenants.CredentialPaused, state(bad).Status)
	require.Equal(t, tenants.CredentialActive, state(good).Status)
	require.Equal(t, 1, k.channels[channels.FCM].asked(), "once a day")
	k.sound()
}

// TestATenantsProvidersThatHangKeepNoOtherWaiting: of those there is one at a time.
func TestATenantsProvidersThatHangKeepNoOtherWaiting(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, func(o *delivery.Options) { o.VerifyEvery = 5 * time.Millisecond })
	answer := make(chan struct{})
	k.channels[channels.APNs].hangs(answer)
	defer close(answer)
	for i := range 20 {
		k.inApp(fmt.Sprint("app", i), channels.APNs)
	}
	k.tenant = k.newTenant("other")
	c := k.inApp("default", channels.FCM)
	clock.advance(27 * time.Hour)
	eventually(t, "the other tenant's is verified", func() bool {
		clock.advance(time.Second) // to the next round
		got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
		require.NoError(t, err)
		return got.Verification.State == tenants.Verified
	})
	_, most := k.channels[channels.APNs].beingAsked()
	require.Equal(t, 1, most)
}

// TestWhatCannotBeVerifiedIsTriedAgainSoon: a provider that is down for a minute, and a
// credential that cannot be opened, keep no other waiting and are no state for a day.
func TestWhatCannotBeVerifiedIsTriedAgainSoon(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, func(o *delivery.Options) { o.VerifyEvery = 5 * time.Millisecond })
	fcm := k.channels[channels.FCM]
	fcm.says(channels.Result{Outcome: channels.Retry, Code: "transport.timeout"})
	away := k.credential(channels.FCM, "")
	damaged, err := k.store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "another", Channel: channels.APNs},
		channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte("damaged")}, tenants.PutOptions{}, tenants.Change{Actor: "test", Action: "credential.put"})
	require.NoError(t, err)
	state := func(c tenants.Credential) tenants.Verification {
		got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
		require.NoError(t, err)
		return got.Verification
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		eventually(t, what, func() bool {
			clock.advance(time.Second)
			return ok()
		})
	}
	clock.advance(27 * time.Hour)
	until("both were looked at", func() bool {
		return state(away).State == tenants.Unverified && state(damaged).State == tenants.Unverified
	})
	require.Equal(t, "transport.timeout", state(away).Code)
	require.Equal(t, "credential_unreadable", state(damaged).Code)
	require.Empty(t, k.holdsOf(delivery.HoldCredential), "nobody has refused anything")
	fcm.says(channels.Result{})
	clock.advance(time.Hour)
	until("it is verified now", func() bool { return state(away).State == tenants.Verified })
}

// TestWhatIsRefusedOnRequestIsHeld: as what is refused when it is verified every day.
func TestWhatIsRefusedOnRequestIsHeld(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.FCM, "")
	k.engine.CredentialRefused(k.tenant, c.ID, 2, "No.")
	require.Empty(t, k.holdsOf(delivery.HoldCredential), "of another version")
	k.engine.CredentialRefused(k.tenant, c.ID, 1, "No.")
	require.Equal(t, "No.", k.holdsOf(delivery.HoldCredential)[0].Detail[:3])
}

// TestGoingBackIsMadeUpFor: where the node that held the new version was stopped before
// it went back.
func TestGoingBackIsMadeUpFor(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.ProbeEvery = time.Millisecond })
	k.channels[channels.FCM].says(channels.Result{Outcome: channels.Denied, Code: "denied"})
	put := func(secret string, o tenants.PutOptions) tenants.Credential {
		c, err := k.store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: channels.FCM},
			channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte(secret)}, o, tenants.Change{Actor: "test", Action: "credential.put"})
		require.NoError(t, err)
		return c
	}
	put("good", tenants.PutOptions{})
	c := put("bad", tenants.PutOptions{AutoRollback: true})
	opened, err := k.store.RefuseCredential(k.ctx, delivery.Hold{Tenant: k.tenant, Scope: delivery.HoldCredential, Subject: c.ID, Version: 2,
		Reason: delivery.CredentialDenied, Detail: "No.", Since: time.Now()})
	require.NoError(t, err)
	require.True(t, opened)
	k.engine.CredentialsChanged(k.tenant)
	eventually(t, "it has gone back", func() bool {
		c, err = k.store.Credential(k.ctx, k.tenant, c.ID)
		require.NoError(t, err)
		return c.Version == 3
	})
	require.Equal(t, tenants.CredentialActive, c.Status)
}

// TestANewVersionThatIsRefusedGoesBack: where whoever put it asked for that. Nobody
// misses anything.
func TestANewVersionThatIsRefusedGoesBack(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	fcm := k.channels[channels.FCM]
	fcm.answer(func(_ context.Context, c channels.Credential, _ channels.Target, _ channels.Life) channels.Result {
		if string(c.Secret) == "bad" {
			return refusedBy(channels.ScopeCredential)
		}
		return accepted()
	})
	put := func(secret string, o tenants.PutOptions) tenants.Credential {
		c, err := k.store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: channels.FCM},
			channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte(secret)}, o, tenants.Change{Actor: "test", Action: "credential.put"})
		require.NoError(t, err)
		k.engine.CredentialsChanged(k.tenant)
		return c
	}
	put("good", tenants.PutOptions{})
	k.device("alice", "phone", channels.FCM, nil)
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	fcm.says(channels.Result{Outcome: channels.Denied, Code: "denied"})
	c := put("bad", tenants.PutOptions{AutoRollback: true})
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
	require.NoError(t, err)
	require.Equal(t, 3, got.Version)
	require.Equal(t, tenants.CredentialActive, got.Status)
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	k.sound()
}

// TestOneThatCannotGoBackIsReported: the log says so, and of whom.
func TestOneThatCannotGoBackIsReported(t *testing.T) {
	t.Parallel()
	log := &lines{}
	k := newKit(t, func(o *delivery.Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	c, err := k.store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "default", Channel: channels.FCM},
		channels.Credential{Settings: json.RawMessage(`{}`), Secret: []byte("bad")}, tenants.PutOptions{AutoRollback: true}, tenants.Change{Actor: "test", Action: "credential.put"})
	require.NoError(t, err)
	k.engine.CredentialRefused(k.tenant, c.ID, 1, "No.")
	require.Equal(t, 1, log.count("there is none to go back to although auto_rollback was asked for"))
	require.Equal(t, 2, log.count("tenant.name=acme tenant.id="+k.tenant.Format(ids.Tenant)), "the refusal, and that")
}

// TestTheLogNamesTenantsOneWay: as people know them, with the id beside it.
func TestTheLogNamesTenantsOneWay(t *testing.T) {
	t.Parallel()
	for _, pattern := range []string{"*.go", "../jobs/*.go", "../store/*/*.go", "../api/*.go", "../cmd/carillon/*.go"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NotRegexp(t, `"tenant", int64\(|slog\.Int64\("tenant"`, string(text), name)
		}
	}
}
