package delivery_test

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"testing"
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

func TestDeliversToEveryChannelOfAUser(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.credential(channels.APNs, "")
	k.device("alice", "token-1", channels.FCM, nil)
	k.device("alice", "aa", channels.APNs, nil)
	k.endpoint(func(e *webhooks.Endpoint) { e.User = "alice" })

	r := k.post(toUser("alice"))
	require.Len(t, r.Deliveries, 3)
	require.Empty(t, r.Skips)
	for i := range r.Deliveries {
		v := k.ends(r, i, delivery.Sent, delivery.NoReason)
		require.Len(t, v.Attempts, 1)
		require.Equal(t, channels.Accepted, v.Attempts[0].Outcome)
		require.Equal(t, 1, v.Spent)
	}
	k.sound()
}

func TestRetriesUntilItSucceeds(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	k.channels[channels.FCM].answer(func(_ context.Context, _ channels.Credential, _ channels.Target, l channels.Life) channels.Result {
		if l.Attempt < 3 {
			return channels.Result{Outcome: channels.Retry, Code: "fcm.unavailable", Status: 503, Floor: 10 * time.Second}
		}
		return accepted()
	})
	v := k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	require.Len(t, v.Attempts, 3)
	require.Equal(t, 3, v.Spent)
	for i, a := range v.Attempts {
		require.Equal(t, i+1, a.Number)
	}
	require.Equal(t, "fcm.unavailable", v.Attempts[0].Code)
}

func TestExhaustedBecomesADeadLetterThatCanBeReplayed(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.endpoint(func(e *webhooks.Endpoint) { e.EventTypes = []string{"order.shipped"} })
	hook := k.channels[channels.Webhook]
	hook.answer(always(channels.Result{Outcome: channels.Retry, Code: "webhook.status", Status: 500}))
	r := k.post(delivery.Request{Type: "order.shipped", Data: json.RawMessage(`{"a":1}`)})
	require.Len(t, r.Deliveries, 1)
	v := k.ends(r, 0, delivery.Dead, delivery.Exhausted)
	require.Equal(t, 4, v.Spent)
	require.Len(t, v.Attempts, 4)

	dead, err := k.store.DeadLetters(k.ctx, k.tenant, delivery.Query{Limit: 10})
	require.NoError(t, err)
	require.Len(t, dead, 1)

	hook.answer(always(accepted()))
	require.NoError(t, k.engine.Replay(k.ctx, k.tenant, r.Notification, r.Deliveries[0].Target, "test"))
	v = k.ends(r, 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, 2, v.Round)
	require.Equal(t, 1, v.Spent)
	require.Len(t, v.Attempts, 5)
	sends := hook.attempts()
	require.Equal(t, sends[0].Delivery, sends[4].Delivery, "a replay keeps the ids")

	require.NoError(t, k.engine.Replay(k.ctx, k.tenant, r.Notification, r.Deliveries[0].Target, "test"), "its receiver may have lost it")
	v = k.until(r.Notification, r.Deliveries[0].Target, "to be sent again", func(v delivery.View) bool { return v.Round == 3 && v.State == delivery.Sent })
	require.Equal(t, 1, v.Spent)
	sends = hook.attempts()
	require.Equal(t, sends[0].Delivery, sends[5].Delivery)

	k.credential(channels.FCM, "")
	k.device("alice", "a", channels.FCM, nil)
	r = k.post(toUser("alice"))
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	err = k.engine.Replay(k.ctx, k.tenant, r.Notification, r.Deliveries[0].Target, "test")
	require.Equal(t, problem.Conflict, problem.CodeOf(err), "a person would see it twice")
	k.sound()
}

func TestAGoneDeviceIsRetiredOnceTheCredentialIsProven(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.FCM, "")
	k.device("alice", "good", channels.FCM, nil)
	bad := k.device("bob", "bad", channels.FCM, nil)
	k.channels[channels.FCM].answer(func(_ context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		if t.Address == "bad" {
			return channels.Result{Outcome: channels.Gone, Code: "fcm.unregistered", Status: 404}
		}
		return accepted()
	})
	// Unproven: the verdict is in doubt.
	first := k.post(toUser("bob"))
	v := k.ends(first, 0, delivery.Held, delivery.InDoubt)
	require.NotZero(t, v.HoldID)
	d, err := k.store.Device(k.ctx, k.tenant, bad.ID)
	require.NoError(t, err)
	require.Equal(t, devices.Suspect, d.Status)
	holds, err := k.store.Holds(k.ctx, k.tenant)
	require.NoError(t, err)
	require.Len(t, holds, 1)
	require.Equal(t, delivery.HoldDoubt, holds[0].Scope)
	require.Equal(t, c.ID, holds[0].Subject)
	require.Equal(t, 1, holds[0].Held)

	// A success of the same version confirms it.
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	k.ends(first, 0, delivery.Dropped, delivery.Gone)
	require.Eventually(t, func() bool {
		d, err := k.store.Device(k.ctx, k.tenant, bad.ID)
		return err == nil && d.Status == devices.Retired && d.Reason == "fcm.unregistered"
	}, 10*time.Second, time.Millisecond)

	// Now the device is not a target any more, and the skip says why.
	r := k.post(toUser("bob"))
	require.Empty(t, r.Deliveries)
	require.Equal(t, []delivery.Skip{{User: "bob", Reason: delivery.SkipRetired}}, r.Skips)
	k.sound()
}

func TestAWrongAPNsEnvironmentRetiresNothing(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.APNs, "")
	k.channels[channels.APNs].answer(always(channels.Result{Outcome: channels.Gone, Doubtful: true, Code: "apns.bad_device_token", Status: 400}))
	var list []devices.Device
	for i := range 15 {
		list = append(list, k.device("user-"+strconv.Itoa(i), "aa"+strconv.Itoa(i), channels.APNs, nil))
	}
	for range 2 {
		for i := range list {
			k.ends(k.post(toUser("user-"+strconv.Itoa(i))), 0, delivery.Held, delivery.InDoubt)
		}
	}
	for _, d := range list {
		now, err := k.store.Device(k.ctx, k.tenant, d.ID)
		require.NoError(t, err)
		require.Equal(t, devices.Suspect, now.Status, "suspect, but not retired")
	}
	k.sound()

	// The right credential reverses the doubt: everything is sent after all.
	k.channels[channels.APNs].answer(always(accepted()))
	k.credential(channels.APNs, "")
	require.Eventually(t, func() bool {
		list, err := k.store.Deliveries(k.ctx, k.tenant, delivery.Query{State: delivery.Sent, Limit: 100})
		return err == nil && len(list) == 30
	}, 10*time.Second, 5*time.Millisecond)
	for _, d := range list {
		now, err := k.store.Device(k.ctx, k.tenant, d.ID)
		require.NoError(t, err)
		require.Equal(t, devices.Active, now.Status)
	}
	k.sound()
}

func TestDeniedHoldsTheCredentialUntilItIsReplaced(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	k.channels[channels.FCM].answer(always(channels.Result{Outcome: channels.Denied, Scope: channels.ScopeCredential, Code: "fcm.denied", Status: 403, Detail: "No permission."}))
	k.channels[channels.FCM].says(channels.Result{Outcome: channels.Denied, Code: "fcm.denied"})
	first := k.post(toUser("alice"))
	v := k.ends(first, 0, delivery.Held, delivery.CredentialDenied)
	require.Zero(t, v.Spent, "our own fault spends no attempt")
	got, err := k.store.Credential(k.ctx, k.tenant, c.ID)
	require.NoError(t, err)
	require.Equal(t, tenants.CredentialPaused, got.Status)

	require.Eventually(t, func() bool { // held before any request, once the engine has seen the hold
		before := len(k.channels[channels.FCM].attempts())
		k.ends(k.post(toUser("alice")), 0, delivery.Held, delivery.CredentialDenied)
		return len(k.channels[channels.FCM].attempts()) == before
	}, 10*time.Second, 10*time.Millisecond)

	k.channels[channels.FCM].answer(always(accepted()))
	k.credential(channels.FCM, "")
	k.ends(first, 0, delivery.Sent, delivery.NoReason)
	holds, err := k.store.Holds(k.ctx, k.tenant)
	require.NoError(t, err)
	for _, h := range holds {
		require.NotEqual(t, delivery.Open, h.Ending)
	}
	k.sound()
}

func TestAMissingCredentialHoldsAndAnswersWhenItComes(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.device("alice", "token", channels.FCM, nil)
	r := k.post(toUser("alice"))
	k.ends(r, 0, delivery.Held, delivery.CredentialMissing)
	holds, err := k.store.Holds(k.ctx, k.tenant)
	require.NoError(t, err)
	require.Len(t, holds, 1)
	require.Equal(t, delivery.HoldMissing, holds[0].Scope)
	k.credential(channels.FCM, "")
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	k.sound()
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	change := tenants.Change{Actor: "test", Action: "credential.pause"}
	_, err := k.store.PauseCredential(k.ctx, k.tenant, c.ID, "maintenance", change)
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	r := k.post(toUser("alice"))
	k.ends(r, 0, delivery.Held, delivery.CredentialPaused)
	require.Empty(t, k.channels[channels.FCM].attempts())
	_, err = k.store.ResumeCredential(k.ctx, k.tenant, c.ID, change)
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	k.sound()
}

func TestTheDeadlineIsNeverOverstepped(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.device("alice", "token", channels.FCM, nil)
	k.endpoint(func(e *webhooks.Endpoint) { e.User = "alice" })
	k.channels[channels.Webhook].answer(always(channels.Result{Outcome: channels.Throttled, NotBefore: time.Now().Add(time.Hour), Code: "webhook.throttled", Status: 429}))
	ttl := int64(1)
	req := toUser("alice")
	req.TTL = &ttl
	r := k.post(req)
	for i, d := range r.Deliveries {
		if d.Channel == channels.Webhook {
			k.ends(r, i, delivery.Dead, delivery.Expired)
		} else { // held for want of a credential; the deadline passes all the same
			k.ends(r, i, delivery.Dropped, delivery.Expired)
		}
	}
	k.sound()
}

func TestADeviceThatChangedHandsIsNotServed(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	c := k.credential(channels.FCM, "")
	old := k.device("alice", "phone", channels.FCM, nil)
	change := tenants.Change{Actor: "test", Action: "credential.pause"}
	_, err := k.store.PauseCredential(k.ctx, k.tenant, c.ID, "", change)
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	r := k.post(toUser("alice"))
	k.ends(r, 0, delivery.Held, delivery.CredentialPaused)

	now := k.device("bob", "phone", channels.FCM, nil)
	require.Equal(t, old.ID, now.ID)
	require.Equal(t, old.Epoch+1, now.Epoch)
	_, err = k.store.ResumeCredential(k.ctx, k.tenant, c.ID, change)
	require.NoError(t, err)
	k.engine.CredentialsChanged(k.tenant)
	k.ends(r, 0, delivery.Dropped, delivery.Rebound)
	require.Empty(t, k.channels[channels.FCM].attempts())

	got := k.post(toUser("alice"))
	require.Empty(t, got.Deliveries)
	require.Equal(t, delivery.SkipNoDevice, got.Skips[0].Reason)
	k.sound()
}

func TestOneInstallationGetsOneDelivery(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.credential(channels.APNs, "")
	same := func(d *devices.Device) { d.InstallationID = "phone-1"; d.Target.OS = "ios" }
	k.device("alice", "fcm-token", channels.FCM, same)
	apns := k.device("alice", "aa", channels.APNs, same)

	r := k.post(toUser("alice"))
	require.Len(t, r.Deliveries, 1)
	require.Equal(t, apns.ID, r.Deliveries[0].Target, "APNs comes before FCM")

	only := toUser("alice")
	only.Channels = []channels.Kind{channels.FCM}
	require.Equal(t, channels.FCM, k.post(only).Deliveries[0].Channel)

	// A new token of the installation takes the place of the old one.
	next := k.device("alice", "bb", channels.APNs, same)
	require.Equal(t, apns.ID, next.ID)
	require.Len(t, k.post(toUser("alice")).Deliveries, 1)
}

func TestEnvironmentIsLearned(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.APNs, "")
	d := k.device("alice", "aa", channels.APNs, func(d *devices.Device) { d.Target.Environment = channels.Auto })
	k.channels[channels.APNs].answer(func(_ context.Context, _ channels.Credential, _ channels.Target, l channels.Life) channels.Result {
		if l.Renewed != channels.RenewGateway {
			return channels.Result{Outcome: channels.Retry, Renew: channels.RenewGateway, Code: "apns.bad_device_token", Status: 400}
		}
		return channels.Result{Outcome: channels.Accepted, Environment: channels.Sandbox, Status: 200}
	})
	v := k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, 1, v.Spent, "the other gateway costs no attempt")
	got, err := k.store.Device(k.ctx, k.tenant, d.ID)
	require.NoError(t, err)
	require.Equal(t, channels.Sandbox, got.Target.Environment)
}

func TestIdempotency(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	post := func(body byte) (delivery.Answer, error) {
		return k.engine.Accept(k.ctx, delivery.Submission{
			Tenant: k.tenant, Requests: []delivery.Request{toUser("alice")},
			Idempotency: &delivery.Idempotency{Principal: 7, Route: "POST /v1/notifications", Key: "k", BodyHash: [32]byte{body}},
			Render: func(r []delivery.Receipt) (int, []byte, error) {
				return 202, []byte(r[0].Notification.Format(ids.Notification)), nil
			},
		})
	}
	const n = 64
	var wg sync.WaitGroup
	answers := make([]string, n)
	for i := range n {
		wg.Go(func() {
			a, err := post(1)
			if err == nil {
				answers[i] = string(a.Body)
			}
		})
	}
	wg.Wait()
	for _, a := range answers {
		require.Equal(t, answers[0], a)
	}
	id, err := ids.Parse(ids.Notification, answers[0])
	require.NoError(t, err)
	list, err := k.store.Deliveries(k.ctx, k.tenant, delivery.Query{Limit: 100})
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, id, list[0].Notification)
	_, err = post(2)
	require.Equal(t, problem.IdempotencyMismatch, problem.CodeOf(err))
	k.sound()
}

func TestScheduledIsResolvedWhenDueAndCanBeCanceled(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	r := toUser("alice")
	r.SendAt = time.Now().Add(time.Hour)
	got := k.post(r)
	require.True(t, got.Scheduled)
	require.Empty(t, got.Deliveries)
	view, err := k.store.Notification(k.ctx, k.tenant, got.Notification)
	require.NoError(t, err)
	require.True(t, view.Scheduled)
	n, err := k.engine.Cancel(k.ctx, k.tenant, got.Notification)
	require.NoError(t, err)
	require.Zero(t, n)
	view, err = k.store.Notification(k.ctx, k.tenant, got.Notification)
	require.NoError(t, err)
	require.True(t, view.Canceled)
	require.False(t, view.Scheduled)

	soon := toUser("bob")
	soon.SendAt = time.Now().Add(500 * time.Millisecond)
	k.device("bob", "token", channels.FCM, nil)
	early := k.post(soon)
	v := k.ends(early, 0, delivery.Sent, delivery.NoReason)
	require.False(t, v.Attempts[0].At.Before(soon.SendAt.Truncate(time.Millisecond)))
	k.sound()
}

func TestCancelDropsWhatWaits(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.device("alice", "token", channels.FCM, nil)
	r := k.post(toUser("alice"))
	k.ends(r, 0, delivery.Held, delivery.CredentialMissing)
	n, err := k.engine.Cancel(k.ctx, k.tenant, r.Notification)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	k.ends(r, 0, delivery.Dropped, delivery.Canceled)
	k.sound()
}

func TestStopCostsNoAttempt(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	began := make(chan struct{})
	var once sync.Once
	k.channels[channels.FCM].answer(func(ctx context.Context, _ channels.Credential, _ channels.Target, _ channels.Life) channels.Result {
		once.Do(func() { close(began) })
		<-ctx.Done()
		return channels.FromTransport(ctx, ctx.Err(), true)
	})
	r := k.post(toUser("alice"))
	<-began
	ctx, cancel := context.WithCancel(k.ctx)
	cancel()
	require.NoError(t, k.engine.Stop(ctx))
	v, err := k.store.Delivery(k.ctx, k.tenant, r.Notification, r.Deliveries[0].Target)
	require.NoError(t, err)
	require.Equal(t, delivery.Pending, v.State)
	require.Zero(t, v.Spent)
	require.True(t, v.Last.Ambiguous)
	require.NoError(t, k.store.Close())

	k.channels[channels.FCM].answer(always(accepted()))
	k.open()
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
}

func TestTakeover(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	k.device("bob", "token-2", channels.FCM, nil)
	// Leases of a process that died: rows that were born leased and never finished.
	hang := make(chan struct{})
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		<-hang
		return channels.Result{Outcome: channels.Rejected, Code: "late"}
	})
	r := k.post(toUser("alice"))
	once := toUser("bob")
	once.OnAmbiguous = delivery.OnAmbiguousStop
	r2 := k.post(once)
	require.Eventually(t, func() bool { return len(k.channels[channels.FCM].attempts()) == 2 }, 10*time.Second, time.Millisecond)
	k.channels[channels.FCM].answer(always(accepted()))
	_, err := k.store.LapseLeases(k.ctx)
	require.NoError(t, err)
	v := k.ends(r, 0, delivery.Sent, delivery.NoReason)
	require.True(t, v.Unknown)
	require.Equal(t, 1, v.Takeovers)
	require.Len(t, v.Attempts, 2)
	require.Equal(t, channels.Unknown, v.Attempts[0].Outcome)
	require.Equal(t, 1, v.Spent, "a takeover spends no attempt")
	k.ends(r2, 0, delivery.Dead, delivery.Ambiguous)
	close(hang) // the late writer's claim is lost: its word changes nothing
	require.NoError(t, k.engine.Stop(k.ctx))
	v, err = k.store.Delivery(k.ctx, k.tenant, r.Notification, r.Deliveries[0].Target)
	require.NoError(t, err)
	require.Equal(t, delivery.Sent, v.State)
	k.sound()
}

func TestOverflowIsBornPendingAndFullIsRefused(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.LaneSize = 1; o.Workers = 1; o.MaxBacklog = 1 })
	k.credential(channels.FCM, "")
	k.device("alice", "token", channels.FCM, nil)
	hang := make(chan struct{})
	k.channels[channels.FCM].answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		<-hang
		return accepted()
	})
	var (
		all []delivery.Receipt
		p   *problem.Error
	)
	for p == nil && len(all) < 10 { // one is being sent, one is in the lane, and the rest waits
		_, err := k.engine.Accept(k.ctx, delivery.Submission{Tenant: k.tenant, Requests: []delivery.Request{toUser("alice")},
			Render: func(rs []delivery.Receipt) (int, []byte, error) { all = append(all, rs[0]); return 202, nil, nil }})
		if err != nil {
			require.ErrorAs(t, err, &p)
		}
	}
	require.NotNil(t, p)
	require.NotEmpty(t, all)
	require.Equal(t, problem.Throttled, p.Code)
	require.Positive(t, p.RetryAfter)
	close(hang)
	for _, r := range all {
		k.ends(r, 0, delivery.Sent, delivery.NoReason)
	}
	k.sound()
}

func TestUrgentIsRationed(t *testing.T) {
	t.Parallel()
	k := newKit(t, func(o *delivery.Options) { o.UrgentRate = 1 })
	urgent := toUser("alice")
	urgent.Urgent = true
	k.post(urgent)
	k.post(urgent)
	p := k.refused(urgent)
	require.Equal(t, problem.Throttled, p.Code)
	require.Positive(t, p.RetryAfter)
	k.post(toUser("alice"))
}
