package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
)

func replayTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"WalkDead/InTheOrderOfDeath": walksInOrder,
		"WalkDead/LooksAtSoMany":     walksSoFar,
		"WalkDead/Filters":           walkFilters,
		"WalkDead/WebhooksThatEnded": walksWebhooksThatEnded,
		"ReplayDead/CountsWhyNot":    replayWhyNot,
		"ReplayDead/Uncancels":       replayUncancels,
	}
}

func (k *kit) walk(w delivery.DeadWalk) delivery.DeadPage {
	k.Helper()
	if w.Before.IsZero() {
		w.Before = k.Clock.Now().Add(time.Hour)
	}
	if w.Look == 0 {
		w.Look = 100
	}
	if w.Want == 0 {
		w.Want = 100
	}
	p, err := k.Store.WalkDead(k.ctx, k.tenant, w)
	k.ok(err)
	return p
}

func targets(p delivery.DeadPage) (out []ids.ID) {
	for _, d := range p.Letters {
		out = append(out, d.Target)
	}
	return out
}

func walksInOrder(k *kit) {
	first := k.dead(1)[0]
	k.Clock.Advance(time.Second)
	second := k.Clock.Now()
	same := k.dead(3) // at one moment: ordered by their ids
	k.Clock.Advance(time.Second)
	third := k.Clock.Now()
	last := k.dead(1)[0]
	p := k.walk(delivery.DeadWalk{})
	require.Equal(k, []ids.ID{first.Target, same[0].Target, same[1].Target, same[2].Target, last.Target}, targets(p))
	require.True(k, p.End)
	require.Equal(k, delivery.DeadLetter{Notification: last.Notification, Target: last.Target, Channel: channels.FCM, State: delivery.Dead, DiedAt: third}, p.Letters[4])

	var all []ids.ID // page by page, in the middle of the same moment too
	for after, end := (delivery.Cursor{}), false; !end; {
		p := k.walk(delivery.DeadWalk{After: after, Look: 2})
		all = append(all, targets(p)...)
		after, end = p.Next, p.End
	}
	require.Equal(k, targets(p), all)
	require.Equal(k, p.Next, k.walk(delivery.DeadWalk{After: p.Next}).Next, "where there is nothing more the place stays")

	require.Equal(k, []ids.ID{first.Target}, targets(k.walk(delivery.DeadWalk{Before: second})))
	require.Len(k, k.walk(delivery.DeadWalk{Filter: delivery.DeadFilter{Since: second}}).Letters, 4)
	require.Len(k, k.walk(delivery.DeadWalk{Filter: delivery.DeadFilter{Since: second, Until: third}}).Letters, 3)
	require.Len(k, k.walk(delivery.DeadWalk{Filter: delivery.DeadFilter{Until: third.Add(time.Hour)}, Before: third}).Letters, 4, "the nearer end counts")
	k.tenant = k.newTenant("other")
	require.Empty(k, k.walk(delivery.DeadWalk{}).Letters)
}

func walksSoFar(k *kit) {
	none := delivery.DeadFilter{Reason: delivery.Crashed}
	rows := k.dead(5)
	p := k.walk(delivery.DeadWalk{Filter: none, Look: 3})
	require.Empty(k, p.Letters)
	require.False(k, p.End)
	require.Equal(k, rows[2].Target, p.Next.Target, "it goes on behind what it has looked at")
	p = k.walk(delivery.DeadWalk{Filter: none, Look: 3, After: p.Next})
	require.True(k, p.End)
	require.Equal(k, rows[4].Target, p.Next.Target)

	p = k.walk(delivery.DeadWalk{Want: 2})
	require.Equal(k, []ids.ID{rows[0].Target, rows[1].Target}, targets(p))
	require.False(k, p.End)
	require.Equal(k, rows[1].Target, p.Next.Target)
	p = k.walk(delivery.DeadWalk{Want: 5})
	require.Len(k, p.Letters, 5)
	require.True(k, p.End)
}

func walkFilters(k *kit) {
	alice := k.device("alice", "a")
	bob := k.device("bob", "b", func(d *devices.Device) { d.App = "other" })
	hook := k.endpoint()
	one := func(target, user ids.ID, kind string) delivery.Row {
		k.Helper()
		return k.dead(1, func(a *delivery.Accepted) {
			a.Type, a.Rows[0].Target, a.Rows[0].UserID = kind, target, user
			if target == hook.ID {
				a.Rows[0].Channel = channels.Webhook
			}
		})[0]
	}
	a, b := one(alice.ID, alice.UserID, "order.shipped"), one(bob.ID, bob.UserID, "")
	h := one(hook.ID, 0, "order.shipped")
	require.Len(k, k.walk(delivery.DeadWalk{}).Letters, 3)
	for name, x := range map[string]struct {
		filter delivery.DeadFilter
		want   []delivery.Row
	}{
		"reason":         {delivery.DeadFilter{Reason: delivery.Rejected}, []delivery.Row{a, b, h}},
		"another reason": {delivery.DeadFilter{Reason: delivery.Exhausted}, nil},
		"channel":        {delivery.DeadFilter{Channel: channels.FCM}, []delivery.Row{a, b}},
		"app":            {delivery.DeadFilter{App: "other"}, []delivery.Row{b}},
		"default app":    {delivery.DeadFilter{App: "default"}, []delivery.Row{a}},
		"user":           {delivery.DeadFilter{User: "alice"}, []delivery.Row{a}},
		"unknown user":   {delivery.DeadFilter{User: "nobody"}, nil},
		"endpoint":       {delivery.DeadFilter{Endpoint: hook.ID}, []delivery.Row{h}},
		"no endpoint":    {delivery.DeadFilter{Endpoint: alice.ID}, nil},
		"notification":   {delivery.DeadFilter{Notification: b.Notification}, []delivery.Row{b}},
		"type":           {delivery.DeadFilter{Type: "order.shipped"}, []delivery.Row{a, h}},
		"all of it": {delivery.DeadFilter{Reason: delivery.Rejected, Channel: channels.FCM, App: "default", User: "alice", Notification: a.Notification,
			Type: "order.shipped", Since: k.Clock.Now(), Until: k.Clock.Now().Add(time.Second)}, []delivery.Row{a}},
		"what does not go together": {delivery.DeadFilter{User: "alice", App: "other"}, nil},
	} {
		var want []ids.ID
		for _, r := range x.want {
			want = append(want, r.Target)
		}
		p := k.walk(delivery.DeadWalk{Filter: x.filter})
		require.ElementsMatch(k, want, targets(p), name)
		require.True(k, p.End, name)
	}
}

// walksWebhooksThatEnded finds what an endpoint took, or was dropped, and has it sent
// again, once.
func walksWebhooksThatEnded(k *kit) {
	hook, other := k.endpoint(), k.endpoint()
	began := k.Clock.Now()
	var sent, dropped []delivery.Row
	for i := range 6 {
		k.accept(k.notification(hook.ID), k.notification(other.ID))
		for _, c := range k.claim() {
			c.Channel = channels.Webhook
			k.Exec(k.T, "UPDATE deliveries SET channel=4 WHERE notification_id=?", int64(c.Notification))
			if i%2 == 1 && c.Target == hook.ID {
				k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Dropped, Reason: delivery.Gone}})
				dropped = append(dropped, c.Row)
				continue
			}
			k.sends(c)
			if c.Target == hook.ID {
				sent = append(sent, c.Row)
			}
		}
		k.Clock.Advance(time.Second)
	}
	notifications := func(p delivery.DeadPage) (out []ids.ID) {
		for _, d := range p.Letters {
			out = append(out, d.Notification)
		}
		return out
	}
	filter := delivery.DeadFilter{State: delivery.Sent, Endpoint: hook.ID, Since: began}
	var all []ids.ID
	for after, end := (delivery.Cursor{}), false; !end; {
		p := k.walk(delivery.DeadWalk{Filter: filter, After: after, Look: 2})
		all = append(all, notifications(p)...)
		after, end = p.Next, p.End
	}
	require.Equal(k, []ids.ID{sent[0].Notification, sent[1].Notification, sent[2].Notification}, all)
	filter.Since, filter.Until = began.Add(time.Second), began.Add(4*time.Second)
	require.Equal(k, []ids.ID{sent[1].Notification}, notifications(k.walk(delivery.DeadWalk{Filter: filter})))
	filter.State = delivery.Dropped
	p := k.walk(delivery.DeadWalk{Filter: filter})
	require.Equal(k, []ids.ID{dropped[0].Notification, dropped[1].Notification}, notifications(p))
	require.Empty(k, k.walk(delivery.DeadWalk{Filter: filter, Before: began.Add(2 * time.Second), Want: 1}).Letters[1:])

	k.newJob(k.tenant)
	j, _ := k.claimJob()
	var letters []delivery.Replayed
	for _, d := range append(p.Letters, p.Letters[0]) {
		letters = append(letters, delivery.Replayed{DeadLetter: d, ExpiresAt: k.Clock.Now().Add(time.Hour)})
	}
	var c delivery.ReplayCounts
	_, err := k.Store.ReplayDead(k.ctx, j, letters, func(x delivery.ReplayCounts) jobs.Progress { c = x; return jobs.Progress{} })
	k.ok(err)
	require.Equal(k, delivery.ReplayCounts{Replayed: 2, NotDead: 1}, c)
	for _, r := range dropped[:2] {
		require.Equal(k, 2, k.is(r, delivery.Pending, delivery.NoReason).Round)
	}
	k.is(dropped[2], delivery.Dropped, delivery.Gone)
}

func replayWhyNot(k *kit) {
	sensitive := k.dead(1, func(a *delivery.Accepted) { a.Sensitive = true })
	rows := k.dead(2)
	k.ok(k.replay(rows[0])) // by a person
	_, err := k.Store.Purge(k.ctx, delivery.DefaultRetention(), k.Clock.Now(), 100)
	k.ok(err)
	missing := rows[1]
	missing.Target++
	k.newJob(k.tenant)
	j, _ := k.claimJob()
	c, err := k.replays(j, jobs.Progress{}, rows[0], rows[1], rows[1], sensitive[0], missing)
	k.ok(err)
	require.Equal(k, delivery.ReplayCounts{Replayed: 1, NotDead: 3, Erased: 1}, c)
	require.Equal(k, 2, k.is(rows[0], delivery.Pending, delivery.NoReason).Round, "not a second time")
	require.Equal(k, 2, k.is(rows[1], delivery.Pending, delivery.NoReason).Round)
	k.is(sensitive[0], delivery.Dead, delivery.Rejected)
}

func replayUncancels(k *kit) {
	rows := k.dead(2)
	_, err := k.Store.Cancel(k.ctx, k.tenant, rows[0].Notification, k.Clock.Now())
	k.ok(err)
	k.newJob(k.tenant)
	j, _ := k.claimJob()
	_, err = k.replays(j, jobs.Progress{}, rows...)
	k.ok(err)
	for _, c := range k.claim() {
		require.False(k, c.Canceled)
	}
	view, err := k.Store.Notification(k.ctx, k.tenant, rows[0].Notification)
	k.ok(err)
	require.False(k, view.Canceled)
}
