package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/webhooks"
)

// waiting stores a notification to targets that is due in an hour.
func (k *kit) waiting(lane delivery.Lane, kind channels.Kind, targets ...ids.ID) delivery.Accepted {
	k.Helper()
	a := k.notification(targets...)
	a.Lane = lane
	for i := range a.Rows {
		r := &a.Rows[i]
		r.Lane, r.Channel, r.DueAt, r.ExpiresAt = lane, kind, k.Clock.Now().Add(time.Hour-time.Duration(a.ID%1000)*time.Millisecond), k.Clock.Now().Add(24*time.Hour)
	}
	k.accept(a)
	k.Clock.Advance(time.Millisecond)
	return a
}

// released makes the job that brings forward what waits for an endpoint.
func (k *kit) released(e webhooks.Endpoint, release bool) {
	k.Helper()
	if release {
		was := e.UpdatedAt
		e.UpdatedAt = e.UpdatedAt.Add(time.Second)
		k.ok(k.Store.UpdateEndpoint(k.ctx, e, was, webhooks.Edit{Actor: "test", Release: true}))
		return
	}
	w := k.wait(channels.Webhook, e.ID, "", 0)
	k.notes(delivery.NoteWait{Wait: w, URL: e.URL})
	_, err := k.Store.EndWait(k.ctx, w, k.Clock.Now(), false)
	k.ok(err)
	k.Clock.Advance(time.Millisecond)
}

// brings takes the next step of the job that brings forward; 0: there is none.
func (k *kit) brings() (n int, end bool) {
	k.Helper()
	k.Clock.Advance(time.Second)
	now := k.Clock.Now()
	j, _, err := k.Store.ClaimJob(k.ctx, jobs.ClaimOrder{Kinds: []jobs.Kind{jobs.BringForward}, Now: now, Lease: now.Add(time.Minute), Claim: int64(k.IDs.Next())})
	k.ok(err)
	require.NotZero(k, j.ID)
	p, err := k.Store.BringForwardStep(k.ctx, j)
	k.ok(err)
	return p.Done, p.End
}

func (k *kit) claimsOf(lane delivery.Lane) []delivery.Claimed {
	k.Helper()
	return k.claim(func(o *delivery.ClaimOrder) { o.Lane = lane })
}

func bringsUrgentThenOldest(k *kit) {
	e := k.endpoint()
	var all []ids.ID
	for range 12 {
		all = append(all, k.waiting(delivery.Regular, channels.Webhook, e.ID).ID)
	}
	urgent := k.waiting(delivery.Urgent, channels.Webhook, e.ID)
	k.released(e, false)
	n, _ := k.brings()
	require.Equal(k, 1, n)
	got := k.claimsOf(delivery.Urgent)
	require.Len(k, got, 1)
	require.Equal(k, urgent.ID, got[0].Notification)
	require.Empty(k, k.claim())
	k.sends(got[0])
	n, _ = k.brings()
	require.Equal(k, 12, n, "twice ten, as far as there are some")
	require.Len(k, k.claim(), 12)
	_ = all
}

func bringsTwiceAsMany(k *kit) {
	e := k.endpoint()
	var all []ids.ID
	for range 100 {
		all = append(all, k.waiting(delivery.Regular, channels.Webhook, e.ID).ID)
	}
	k.released(e, false)
	for _, want := range []int{10, 20, 40, 30} {
		n, end := k.brings()
		require.Equal(k, want, n)
		require.False(k, end)
		n, _ = k.brings()
		require.Zero(k, n, "the last are under way")
		got := k.claim()
		require.Len(k, got, want)
		for _, c := range got {
			require.Contains(k, all[:want], c.Notification, "the oldest first")
			k.sends(c)
		}
		all = all[want:]
	}
	n, end := k.brings()
	require.True(k, end)
	require.Zero(k, n)
}

func bringStopsAtNewTrouble(k *kit) {
	e := k.endpoint()
	for range 30 {
		k.waiting(delivery.Regular, channels.Webhook, e.ID)
	}
	k.released(e, false)
	n, _ := k.brings()
	require.Equal(k, 10, n)
	failed := k.claim()
	require.Len(k, failed, 10)
	for _, c := range failed {
		k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now().Add(time.Minute), Spent: 1},
			Attempt: k.attempt(c.Row, channels.Retry, "no")})
	}
	n, _ = k.brings()
	require.Equal(k, 10, n, "no more than before, and not those that have failed since")
	k.notes(delivery.NoteWait{Wait: k.wait(channels.Webhook, e.ID, "", 0), URL: e.URL})
	k.Clock.Advance(30 * time.Second)
	n, end := k.brings()
	require.True(k, end)
	require.Zero(k, n)
	require.Len(k, k.claim(), 10)
}

func bringKeepsWhatWasAsked(k *kit) {
	e := k.endpoint()
	put := func() {
		k.Clock.Advance(2 * time.Hour)
		for i, c := range k.claim() {
			o := channels.Retry
			if i == 0 {
				o = channels.Throttled
			}
			k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now().Add(time.Hour)}, Attempt: k.attempt(c.Row, o, "no")})
		}
		k.Clock.Advance(time.Second)
	}
	k.waiting(delivery.Regular, channels.Webhook, e.ID)
	k.waiting(delivery.Regular, channels.Webhook, e.ID)
	put()
	k.released(e, false)
	n, _ := k.brings()
	require.Equal(k, 1, n, "the other was told itself when to come")
	for _, c := range k.claim() {
		k.sends(c)
	}
	_, end := k.brings()
	require.True(k, end)
	k.released(e, true)
	n, _ = k.brings()
	require.Equal(k, 1, n, "a person says otherwise")
}

// progress is the total, done and skipped of the jobs that bring forward, newest first.
func (k *kit) progress() (out [][3]int) {
	k.Helper()
	list, err := k.Store.Jobs(k.ctx, k.tenant, jobs.Query{Kind: jobs.BringForward, Limit: 100})
	k.ok(err)
	for _, j := range list {
		out = append(out, [3]int{j.Total, j.Done, j.Skipped})
	}
	return out
}

func bringTellsHowFarItIs(k *kit) {
	e := k.endpoint()
	for range 30 {
		k.waiting(delivery.Regular, channels.Webhook, e.ID)
	}
	k.waiting(delivery.Urgent, channels.Webhook, e.ID)
	k.waiting(delivery.Regular, channels.Webhook, k.IDs.Next())
	k.released(e, false)
	require.Equal(k, [][3]int{{}}, k.progress(), "nobody has counted yet")
	k.brings()
	require.Equal(k, [][3]int{{31, 1, 0}}, k.progress())
	k.sends(k.claimsOf(delivery.Urgent)[0])
	k.brings()
	require.Equal(k, [][3]int{{31, 21, 0}}, k.progress())
	for _, c := range k.claim() {
		k.sends(c)
	}
	k.Clock.Advance(2 * time.Hour)
	_, end := k.brings()
	require.True(k, end)
	require.Equal(k, [][3]int{{31, 21, 10}}, k.progress(), "the others have got due by themselves")
}

func bringBeginsAnew(k *kit) {
	e := k.endpoint()
	for range 30 {
		k.waiting(delivery.Regular, channels.Webhook, e.ID)
	}
	k.released(e, false)
	n, _ := k.brings()
	require.Equal(k, 10, n)
	for _, c := range k.claim() { // it fails again, and that ends, before the next step
		k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now().Add(2 * time.Hour)}, Attempt: k.attempt(c.Row, channels.Retry, "no")})
	}
	k.Clock.Advance(time.Millisecond)
	k.released(e, false)
	require.Equal(k, [][3]int{{}, {30, 10, 0}}, k.progress())
	n, end := k.brings()
	require.True(k, end && n == 0 || !end && n == 10)
	m, other := k.brings()
	require.True(k, n+m == 10 && end != other, "the older one ends")
	for range 10 {
		for _, c := range k.claim() {
			k.sends(c)
		}
		if _, end = k.brings(); end {
			break
		}
	}
	require.True(k, end)
	require.Equal(k, [][3]int{{30, 30, 0}, {30, 10, 0}}, k.progress())
}

func bringsItsScope(k *kit) {
	const a, b = "https://a.example", "https://b.example"
	push := func(app, address, key string) ids.ID {
		return k.device("alice", address, func(d *devices.Device) {
			d.App, d.Channel = app, channels.WebPush
			d.Target.Kind, d.VAPIDKey = channels.Subscription, key
		}).ID
	}
	c := k.credential(channels.WebPush, "key")
	bound, unbound, elsewhere, other := push("default", a+"/1", "key"), push("default", a+"/2", ""), push("default", b+"/3", "key"), push("default", a+"/4", "other")
	phone := k.device("alice", "phone").ID
	k.waiting(delivery.Regular, channels.WebPush, bound, unbound, elsewhere, other)
	k.waiting(delivery.Regular, channels.FCM, phone)
	k.waiting(delivery.Regular, channels.Webhook, k.endpoint().ID)
	w := k.wait(channels.WebPush, c.ID, a, time.Minute)
	k.notes(delivery.NoteWait{Wait: w, Version: 1})
	ended, err := k.Store.EndWait(k.ctx, w, k.Clock.Now(), true)
	k.ok(err)
	require.True(k, ended)
	k.brings()
	var got []ids.ID
	for _, c := range k.claim() {
		got = append(got, c.Target)
		k.sends(c)
	}
	require.ElementsMatch(k, []ids.ID{bound, unbound}, got)
	_, end := k.brings()
	require.True(k, end)

	_, err = k.Store.ResumeCredential(k.ctx, k.tenant, c.ID, change("credential.resume"))
	k.ok(err)
	k.brings()
	got = nil
	for _, c := range k.claim() {
		got = append(got, c.Target)
	}
	require.Equal(k, []ids.ID{elsewhere}, got)
}
