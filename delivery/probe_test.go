package delivery_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/tenants"
)

func TestAPersonsPauseIsNotUndoneByAProbe(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.ProbeEvery = time.Millisecond })
	c := k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	fcm.says(channels.Result{Outcome: channels.Denied})
	fcm.answer(always(channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.denied"}))
	r := k.post(toUser("alice"))
	k.ends(r, 0, delivery.Held, delivery.CredentialDenied)
	_, err := k.store.PauseCredential(k.ctx, k.tenant, c.ID, "not now", tenants.Change{Actor: "bob", Action: "credential.pause"})
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	holds, err := k.store.HoldsEndingOrDenied(k.ctx)
	require.NoError(t, err)
	require.Empty(t, holds, "it is a person's hold now, which nothing probes")
	holds, err = k.store.StandingHolds(k.ctx, k.tenant)
	require.NoError(t, err)
	require.Equal(t, delivery.CredentialPaused, holds[0].Reason)
}

func TestARefusedCredentialResumesWhenAProbeSucceeds(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.ProbeEvery = time.Millisecond })
	c := k.credential(channels.FCM, "")
	verification := func() tenants.Verification {
		got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
		require.NoError(t, err)
		return got.Verification
	}
	k.device("alice", "phone", channels.FCM, nil)
	fcm := k.channels[channels.FCM]
	var refuse atomic.Bool
	refuse.Store(true)
	fcm.answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		if refuse.Load() {
			return channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.denied"}
		}
		return accepted()
	})
	fcm.says(channels.Result{Outcome: channels.Denied})
	r := k.post(toUser("alice"))
	k.ends(r, 0, delivery.Held, delivery.CredentialDenied)
	require.Equal(t, tenants.Refused, verification().State, "so that metrics and doctor say so")
	refuse.Store(false)
	fcm.says(accepted())
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, tenants.Verified, verification().State)
	k.sound()
}

// TestATenantsRefusedCredentialsAreProbedInTurn: however many it has.
func TestATenantsRefusedCredentialsAreProbedInTurn(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.ProbeEvery = 50 * time.Millisecond })
	fcm, answer := k.channels[channels.FCM], make(chan struct{})
	fcm.hangs(answer)
	const n = 10
	for i := range n {
		c := k.inApp(fmt.Sprint("app", i), channels.FCM)
		_, err := k.store.RefuseCredential(k.ctx, delivery.Hold{Tenant: k.tenant, Scope: delivery.HoldCredential, Subject: c.ID, Version: 1,
			Reason: delivery.CredentialDenied, Detail: "No.", Since: time.Now()})
		require.NoError(t, err)
		k.engine.CredentialsChanged(k.tenant)
	}
	eventually(t, "one is asked", func() bool { now, _ := fcm.beingAsked(); return now == 1 })
	close(answer)
	eventually(t, "all are", func() bool { return len(k.holdsOf(delivery.HoldCredential)) == 0 })
	_, most := fcm.beingAsked()
	require.Equal(t, 1, most)
}

func TestAPauseDuringAProbeStands(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.FCM, "")
	k.device("alice", "phone", channels.FCM, nil)
	k.channels[channels.FCM].answer(always(channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.denied"}))
	k.channels[channels.FCM].says(channels.Result{Outcome: channels.Denied})
	k.ends(k.post(toUser("alice")), 0, delivery.Held, delivery.CredentialDenied)
	_, err := k.store.PauseCredential(k.ctx, k.tenant, c.ID, "not now", tenants.Change{Actor: "bob", Action: "credential.pause"})
	require.NoError(t, err)
	require.NoError(t, k.store.RecoverCredential(k.ctx, k.tenant, c.ID)) // what a probe that was under way does
	got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
	require.NoError(t, err)
	require.Equal(t, tenants.CredentialPaused, got.Status)
}
