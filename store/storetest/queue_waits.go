package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
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
