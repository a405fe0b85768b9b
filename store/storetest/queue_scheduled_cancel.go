package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

func commandTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Cancel/DropsWhatWaits":          cancelDrops,
		"Cancel/TakesAMarkerBack":        cancelTakesScheduledBack,
		"Cancel/KeepsWhatEnded":          cancelKeepsWhatEnded,
		"Replay/IsANewRound":             replays,
		"Replay/RefusesWhatIsNotDead":    replayRefuses,
		"Replay/OfACanceledNotification": replayRevives,
		"Replay/OfAWebhookThatEnded":     replayResendsWebhooks,
		"SendNow/WhatIsPending":          sendsNow,
		"Marker/IsUnfoldedOnce":          resolvesOnce,
		"Marker/DueInOrder":              scheduledInOrder,
	}
}

func cancelDrops(k *kit) {
	a := k.accepted(3)
	list := k.claim(func(o *delivery.ClaimOrder) { o.Limit = 2 })
	k.finish(delivery.Finish{Row: list[0].Row, Hold: delivery.Hold{App: "default", Channel: channels.FCM},
		Transition: delivery.Transition{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing}})
	n, err := k.Store.Cancel(k.ctx, k.tenant, a.ID, k.Clock.Now())
	k.ok(err)
	require.Equal(k, 2, n, "one pending, one held; one is being sent")
	require.Zero(k, k.is(list[0].Row, delivery.Dropped, delivery.Canceled).HoldID)
	k.is(list[1].Row, delivery.Sending, delivery.NoReason)
	view, err := k.Store.Notification(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.True(k, view.Canceled)
	require.Equal(k, map[delivery.State]int{delivery.Dropped: 2, delivery.Sending: 1}, view.Counts)
	n, err = k.Store.Cancel(k.ctx, k.tenant, a.ID, k.Clock.Now())
	k.ok(err)
	require.Zero(k, n)
	_, err = k.Store.Cancel(k.ctx, k.tenant, 4711, k.Clock.Now())
	k.code(problem.NotFound, err)
}

// marker accepts a notification for later.
func (k *kit) scheduled(at time.Time) delivery.Accepted {
	k.Helper()
	return k.accepted(0, func(a *delivery.Accepted) { a.Scheduled, a.SendAt, a.Type, a.AtMostOnce = true, at, "x", true })
}

func cancelTakesScheduledBack(k *kit) {
	at := k.Clock.Now().Add(time.Hour)
	a := k.scheduled(at)
	_, err := k.Store.Cancel(k.ctx, k.tenant, a.ID, k.Clock.Now())
	k.ok(err)
	due, err := k.Store.DueScheduled(k.ctx, at, 10)
	k.ok(err)
	require.Empty(k, due)
	a.Rows = k.notification(1).Rows
	there, err := k.Store.ResolveScheduled(k.ctx, delivery.Part{Accepted: a})
	k.ok(err)
	require.False(k, there)
	view, err := k.Store.Notification(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.True(k, view.Canceled)
	require.False(k, view.Scheduled)
	require.Empty(k, view.Counts)
}

func cancelKeepsWhatEnded(k *kit) {
	a := k.accepted(2)
	list := k.claim()
	k.sends(list[0])
	k.dies(list[1])
	n, err := k.Store.Cancel(k.ctx, k.tenant, a.ID, k.Clock.Now())
	k.ok(err)
	require.Zero(k, n)
	k.is(list[0].Row, delivery.Sent, delivery.NoReason)
	k.is(list[1].Row, delivery.Dead, delivery.Rejected)
}

func (k *kit) replay(r delivery.Row) error {
	return k.Store.Replay(k.ctx, k.tenant, r.Notification, r.Target, k.Clock.Now(),
		func(req delivery.Request, kind channels.Kind) time.Duration {
			require.Equal(k, "content-of-the-notification", req.Title)
			require.Equal(k, channels.FCM, kind)
			return 2 * time.Hour
		}, "test")
}

func replays(k *kit) {
	k.accepted(1)
	c := k.claim()[0]
	k.dies(c)
	k.Clock.Advance(10 * time.Hour)
	k.ok(k.replay(c.Row))
	v := k.is(c.Row, delivery.Pending, delivery.NoReason)
	require.Equal(k, 2, v.Round)
	require.Zero(k, v.Spent)
	require.Equal(k, k.Clock.Now(), v.DueAt)
	require.Equal(k, k.Clock.Now().Add(2*time.Hour), v.ExpiresAt)
	again := k.claim()[0]
	require.Equal(k, 1, again.Attempts, "attempts are counted over all rounds")
	k.sends(again)
	require.Len(k, k.is(c.Row, delivery.Sent, delivery.NoReason).Attempts, 2)
}

// replayResendsWebhooks: a receiver may have lost what it took, or said 410 too early.
func replayResendsWebhooks(k *kit) {
	again := func(r delivery.Row) error {
		return k.Store.Replay(k.ctx, k.tenant, r.Notification, r.Target, k.Clock.Now(), func(delivery.Request, channels.Kind) time.Duration { return time.Hour }, "test")
	}
	k.accepted(4, onWebhook)
	list := k.claim()
	k.code(problem.Conflict, again(list[0].Row))
	k.sends(list[0])
	for i, why := range []delivery.Reason{delivery.Gone, delivery.Canceled, delivery.Erased} {
		k.finish(delivery.Finish{Row: list[i+1].Row, Transition: delivery.Transition{State: delivery.Dropped, Reason: why}})
	}
	for i, c := range list {
		if i == 3 {
			k.code(problem.Conflict, again(c.Row))
			continue
		}
		k.ok(again(c.Row))
		v := k.is(c.Row, delivery.Pending, delivery.NoReason)
		require.Equal(k, 2, v.Round)
		require.Equal(k, k.Clock.Now().Add(time.Hour), v.ExpiresAt)
		k.code(problem.Conflict, again(c.Row))
	}
	require.Len(k, k.claim(), 3)
}

// sendsNow makes due what waits, and says why it does not.
func sendsNow(k *kit) {
	a := k.accepted(1)
	row := a.Rows[0]
	now := func() error {
		return k.Store.SendNow(k.ctx, k.tenant, row.Notification, row.Target, k.Clock.Now(), "test")
	}
	c := k.claim()[0]
	require.False(k, c.Asked)
	k.code(problem.Conflict, now())
	put := func(t delivery.Transition, h delivery.Hold) {
		k.finish(delivery.Finish{Row: c.Row, Transition: t, Hold: h, ExpiresAt: k.Clock.Now().Add(24 * time.Hour)})
	}
	put(delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now().Add(time.Hour), Spent: 1}, delivery.Hold{})
	require.Empty(k, k.claim())
	k.ok(now())
	c = k.claim()[0]
	require.True(k, c.Asked)
	require.Equal(k, 1, c.Spent)
	put(delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now()}, delivery.Hold{})
	c = k.claim()[0]
	require.False(k, c.Asked, "once")
	put(delivery.Transition{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing}, delivery.Hold{App: "default", Channel: channels.FCM})
	require.ErrorContains(k, now(), k.holds()[0].ID.Format(ids.Hold))
	k.put(channels.FCM, "")
	k.ended(10)
	k.Clock.Advance(24 * time.Hour)
	require.ErrorContains(k, now(), "expires")
	c = k.claim()[0]
	k.dies(c)
	require.ErrorContains(k, now(), "replay")
	row.Target++
	k.code(problem.NotFound, now())
}

func replayRefuses(k *kit) {
	k.accepted(1)
	c := k.claim()[0]
	k.code(problem.Conflict, k.replay(c.Row))
	k.sends(c)
	k.code(problem.Conflict, k.replay(c.Row))
	missing := c.Row
	missing.Target++
	k.code(problem.NotFound, k.replay(missing))
	missing.Notification++
	k.code(problem.NotFound, k.replay(missing))
}

func replayRevives(k *kit) {
	a := k.accepted(2)
	list := k.claim()
	k.dies(list[0])
	k.finish(delivery.Finish{Row: list[1].Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now().Add(time.Minute)}})
	_, err := k.Store.Cancel(k.ctx, k.tenant, a.ID, k.Clock.Now())
	k.ok(err)
	k.ok(k.replay(list[0].Row))
	c := k.claim()[0]
	require.False(k, c.Canceled)
	res := k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now()}})
	require.Equal(k, delivery.Pending, res.Written.State, "it may be tried again")
	k.is(list[1].Row, delivery.Dropped, delivery.Canceled)
}

func resolvesOnce(k *kit) {
	at := k.Clock.Now().Add(time.Hour)
	a := k.scheduled(at)
	view, err := k.Store.Notification(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.True(k, view.Scheduled)
	require.Equal(k, at, view.SendAt)
	due, err := k.Store.DueScheduled(k.ctx, at.Add(-time.Millisecond), 10)
	k.ok(err)
	require.Empty(k, due)
	due, err = k.Store.DueScheduled(k.ctx, at, 10)
	k.ok(err)
	require.Equal(k, []delivery.Scheduled{{Tenant: k.tenant, Notification: a.ID, Lane: a.Lane, SendAt: at, AtMostOnce: true, Type: "x"}}, due)

	k.Clock.Advance(time.Hour)
	d := k.device("alice", "a")
	rows := k.notification(d.ID).Rows
	rows[0].Notification = a.ID
	a.Rows, a.Skips = rows, []delivery.Skip{{User: "bob", Reason: delivery.SkipNoDevice}}
	for _, want := range []bool{true, false} {
		there, err := k.Store.ResolveScheduled(k.ctx, delivery.Part{Accepted: a})
		k.ok(err)
		require.Equal(k, want, there)
	}
	view, err = k.Store.Notification(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.False(k, view.Scheduled)
	require.Equal(k, map[delivery.State]int{delivery.Pending: 1}, view.Counts)
	require.Equal(k, a.Skips, view.Skips)
	require.True(k, k.claim()[0].AtMostOnce)
}

func scheduledInOrder(k *kit) {
	now := k.Clock.Now()
	late, early := k.scheduled(now.Add(2*time.Hour)), k.scheduled(now.Add(time.Hour))
	due, err := k.Store.DueScheduled(k.ctx, now.Add(3*time.Hour), 10)
	k.ok(err)
	require.Len(k, due, 2)
	require.Equal(k, early.ID, due[0].Notification)
	require.Equal(k, late.ID, due[1].Notification)
	due, err = k.Store.DueScheduled(k.ctx, now.Add(3*time.Hour), 10)
	k.ok(err)
	require.Empty(k, due, "they are somebody's for a while")
	due, err = k.Store.DueScheduled(k.ctx, now.Add(3*time.Hour+time.Minute), 1)
	k.ok(err)
	require.Len(k, due, 1, "then they are tried again")
}
