package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/tenants"
	"github.com/carillonhq/carillon/webhooks"
)

func waitTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Wait/LastsUntilASuccess":      waitLasts,
		"Wait/IsOfWhatThereIs":         waitIsOfWhatThereIs,
		"Wait/OfACredentialIsReleased": waitOfACredentialIsReleased,
		"Wait/OfAnEndpointIsReleased":  waitOfAnEndpointIsReleased,
		"Wait/GoesWithItsSubject":      waitGoesWithItsSubject,
		"Wait/IsForgotten":             waitIsForgotten,
		"Wait/IsKeptWithTheDelivery":   waitIsKeptWithTheDelivery,
		"Wait/ThatIsOverPutsOffNobody": waitThatIsOver,
	}
}

func (k *kit) waits() []delivery.Wait {
	k.Helper()
	list, err := k.Store.FirstWaits(k.ctx, k.tenant, 100)
	k.ok(err)
	for i := range list {
		require.NotZero(k, list[i].ID)
		list[i].ID = 0
	}
	return list
}

// wait is trouble of a scope that is noted now.
func (k *kit) wait(kind channels.Kind, subject ids.ID, origin string, lasts time.Duration) delivery.Wait {
	now := k.Clock.Now().UTC()
	w := delivery.Wait{Tenant: k.tenant, Subject: subject, Origin: origin, Channel: kind, Cause: delivery.WaitThrottled, Detail: "too fast", Since: now, NotedAt: now}
	if lasts != 0 {
		w.Until = now.Add(lasts)
	}
	return w
}

func (k *kit) notes(w delivery.NoteWait) (began, current bool) {
	k.Helper()
	began, current, err := k.Store.PutWait(k.ctx, w)
	k.ok(err)
	return began, current
}

// brought lists the specs of the jobs that bring forward.
func (k *kit) brought() (out []string) {
	k.Helper()
	list, err := k.Store.Jobs(k.ctx, k.tenant, jobs.Query{Kind: jobs.BringForward, Limit: 100})
	k.ok(err)
	for _, j := range list {
		out = append(out, string(j.Spec))
	}
	return out
}

func waitLasts(k *kit) {
	c := k.credential(channels.WebPush, "key")
	const origin = "https://push.example"
	w := k.wait(channels.WebPush, c.ID, origin, time.Minute)
	began, current := k.notes(delivery.NoteWait{Wait: w, Version: 1})
	require.True(k, began && current)
	require.Equal(k, []delivery.Wait{w}, k.waits())
	one, there, err := k.Store.Wait(k.ctx, k.tenant, c.ID, origin)
	k.ok(err)
	one.ID = 0
	require.True(k, there)
	require.Equal(k, w, one)
	_, there, err = k.Store.Wait(k.ctx, k.tenant, c.ID, "")
	k.ok(err)
	require.False(k, there)

	k.Clock.Advance(time.Second)
	sooner := k.wait(channels.WebPush, c.ID, origin, time.Second)
	sooner.Cause, sooner.Detail, sooner.LastSuccess = delivery.WaitUnreachable, "refused", w.Since.Add(-time.Hour)
	began, current = k.notes(delivery.NoteWait{Wait: sooner, Version: 1})
	require.True(k, !began && current, "it is the same trouble")
	want := sooner
	want.Since, want.Until = w.Since, w.Until
	require.Equal(k, []delivery.Wait{want}, k.waits(), "the later end counts")

	end := func(began time.Time, look bool) bool {
		ended, err := k.Store.EndWait(k.ctx, w, began, look)
		k.ok(err)
		return ended
	}
	require.False(k, end(w.NotedAt, true), "a success that began before the newest failure")
	require.False(k, end(k.Clock.Now(), false), "what was under way opens nothing")
	k.Clock.Advance(time.Minute)
	require.True(k, end(k.Clock.Now(), false))
	require.False(k, end(k.Clock.Now(), false))
	require.Empty(k, k.waits())
	require.Len(k, k.brought(), 1)
	require.Contains(k, k.brought()[0], `"push_service":"`+origin+`"`)

	k.notes(delivery.NoteWait{Wait: k.wait(channels.WebPush, c.ID, origin, time.Hour), Version: 1})
	require.True(k, end(k.Clock.Now(), true), "somebody was let through")
	require.Len(k, k.brought(), 1, "there is a job that does it already")
}

func waitIsOfWhatThereIs(k *kit) {
	c, e := k.credential(channels.FCM, ""), k.endpoint()
	for name, w := range map[string]delivery.NoteWait{
		"an old version":       {Wait: k.wait(channels.FCM, c.ID, "", time.Minute), Version: 2},
		"no credential":        {Wait: k.wait(channels.FCM, k.IDs.Next(), "", time.Minute), Version: 1},
		"another URL":          {Wait: k.wait(channels.Webhook, e.ID, "", time.Minute), URL: "https://old.example"},
		"no endpoint":          {Wait: k.wait(channels.Webhook, k.IDs.Next(), "", time.Minute), URL: e.URL},
		"an endpoint's tenant": {Wait: delivery.Wait{Tenant: k.IDs.Next(), Subject: e.ID, Channel: channels.Webhook}, URL: e.URL},
	} {
		began, current := k.notes(w)
		require.False(k, began || current, name)
	}
	require.Empty(k, k.waits())
}

func waitOfACredentialIsReleased(k *kit) {
	c := k.credential(channels.FCM, "")
	version := 1
	again := func() {
		_, current := k.notes(delivery.NoteWait{Wait: k.wait(channels.FCM, c.ID, "", time.Hour), Version: version})
		require.True(k, current)
	}
	again()
	k.credential(channels.FCM, "")
	version = 2
	require.Empty(k, k.waits(), "another version")
	require.Equal(k, []string{`{"credential":"` + c.ID.Format(ids.Credential) + `","released":true}`}, k.brought())
	again()
	_, err := k.Store.ResumeCredential(k.ctx, k.tenant, c.ID, change("credential.resume"))
	k.ok(err)
	require.Empty(k, k.waits(), "a person")
	again()
	_, err = k.Store.PauseCredential(k.ctx, k.tenant, c.ID, "", change("credential.pause"))
	k.ok(err)
	require.Len(k, k.waits(), 1)
}

func waitOfAnEndpointIsReleased(k *kit) {
	e := k.endpoint()
	note := func() {
		_, current := k.notes(delivery.NoteWait{Wait: k.wait(channels.Webhook, e.ID, "", time.Hour), URL: e.URL})
		require.True(k, current)
	}
	edit := func(release bool) {
		was := e.UpdatedAt
		k.Clock.Advance(time.Second)
		e.UpdatedAt = k.Clock.Now()
		k.ok(k.Store.UpdateEndpoint(k.ctx, e, was, webhooks.Edit{Actor: "test", Release: release}))
	}
	note()
	e.Description = "other"
	edit(false)
	require.Len(k, k.waits(), 1)
	require.Empty(k, k.brought())
	e.URL = "https://new.example"
	edit(true)
	require.Empty(k, k.waits())
	require.Equal(k, []string{`{"endpoint":"` + e.ID.Format(ids.Endpoint) + `","released":true}`}, k.brought())
}

func waitGoesWithItsSubject(k *kit) {
	c, e := k.credential(channels.FCM, ""), k.endpoint()
	k.notes(delivery.NoteWait{Wait: k.wait(channels.FCM, c.ID, "", time.Hour), Version: 1})
	k.notes(delivery.NoteWait{Wait: k.wait(channels.Webhook, e.ID, "", 0), URL: e.URL})
	require.Len(k, k.waits(), 2)
	k.ok(k.Store.DeleteEndpoint(k.ctx, k.tenant, e.ID, "test"))
	require.Len(k, k.waits(), 1)
	k.ok(k.Store.DeleteCredential(k.ctx, k.tenant, c.ID, change("credential.delete")))
	require.Empty(k, k.waits())

	k.ok(k.Store.PutApp(k.ctx, tenants.App{Tenant: k.tenant, Name: "second", CreatedAt: k.Clock.Now()}, change("app.put")))
	other, err := k.Store.PutCredential(k.ctx, tenants.Credential{Tenant: k.tenant, App: "second", Channel: channels.FCM},
		channels.Credential{Settings: []byte(`{}`), Secret: []byte("s")}, tenants.PutOptions{}, change("credential.put"))
	k.ok(err)
	k.notes(delivery.NoteWait{Wait: k.wait(channels.FCM, other.ID, "", time.Hour), Version: 1})
	require.Len(k, k.waits(), 1)
	_, err = k.Store.DeleteApp(k.ctx, k.tenant, "second", change("app.delete"))
	k.ok(err)
	require.Empty(k, k.waits())
}

func waitIsForgotten(k *kit) {
	e := k.endpoint()
	k.notes(delivery.NoteWait{Wait: k.wait(channels.Webhook, e.ID, "", 0), URL: e.URL})
	keep := delivery.Retention{SentPayload: 90 * 24 * time.Hour, DeadPayload: 90 * 24 * time.Hour, Rows: 90 * 24 * time.Hour}
	for after, want := range []int{1, 0} {
		k.Clock.Advance(7 * 24 * time.Hour)
		if after > 0 {
			k.Clock.Advance(time.Second)
		}
		_, err := k.Store.Purge(k.ctx, keep, k.Clock.Now(), 100)
		k.ok(err)
		require.Len(k, k.waits(), want)
	}
}

func waitIsKeptWithTheDelivery(k *kit) {
	a := k.accepted(1)
	row := k.claim()[0].Row
	now := k.Clock.Now().UTC()
	w := delivery.Waited{Cause: delivery.WaitThrottled, Subject: 7, Origin: "https://push.example", Detail: "too fast", Since: now.Add(-time.Minute), Until: now.Add(time.Minute), At: now}
	k.finish(delivery.Finish{Row: row, Transition: delivery.Transition{State: delivery.Pending, DueAt: now.Add(time.Second)}, Waited: w})
	require.Equal(k, w, k.view(row).Waited)
	k.Clock.Advance(time.Second)
	k.finish(delivery.Finish{Row: k.claim()[0].Row, Transition: delivery.Transition{State: delivery.Dropped, Reason: delivery.Expired}})
	require.Equal(k, w, k.view(a.Rows[0]).Waited, "it says why")
}

func waitThatIsOver(k *kit) {
	e := k.endpoint()
	w := k.wait(channels.Webhook, e.ID, "", time.Hour)
	k.notes(delivery.NoteWait{Wait: w, URL: e.URL})
	putOff := func(hasRow bool) time.Duration {
		k.accepted(1)
		row, now := k.claim()[0].Row, k.Clock.Now()
		res := k.finish(delivery.Finish{Row: row, Transition: delivery.Transition{State: delivery.Pending, DueAt: now.Add(time.Hour)},
			Waited: delivery.Waited{Subject: e.ID, Cause: delivery.WaitThrottled, At: now}, WaitHasRow: hasRow})
		due := k.view(row).DueAt
		require.True(k, due.Equal(res.Written.DueAt))
		return due.Sub(now)
	}
	require.Equal(k, time.Hour, putOff(true))
	ended, err := k.Store.EndWait(k.ctx, w, k.Clock.Now().Add(time.Hour), true)
	k.ok(err)
	require.True(k, ended)
	require.Equal(k, 2*time.Second, putOff(true), "nobody brings it forward")
	require.Equal(k, time.Hour, putOff(false), "its row is not written yet")
}

func bringForwardTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"BringForward/UrgentThenOldest":  bringsUrgentThenOldest,
		"BringForward/OnlyItsScope":      bringsItsScope,
		"BringForward/DoublesWhileSent":  bringsTwiceAsMany,
		"BringForward/StopsAtNewTrouble": bringStopsAtNewTrouble,
		"BringForward/KeepsWhatWasAsked": bringKeepsWhatWasAsked,
		"BringForward/TellsHowFarItIs":   bringTellsHowFarItIs,
		"BringForward/BeginsAnew":        bringBeginsAnew,
	}
}

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
