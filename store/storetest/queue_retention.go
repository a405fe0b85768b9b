package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

func purgeTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Purge/ContentOfSent":         purgesContentOfSent,
		"Purge/ContentOfDead":         purgesContentOfDead,
		"Purge/BehindWhatIsKept":      purgesBehindWhatIsKept,
		"Purge/SensitiveContent":      purgesSensitive,
		"Purge/RowsWithAllTheirParts": purgesRows,
		"Purge/NothingUnfinished":     purgesNothingUnfinished,
		"Purge/ScheduledCountsLater":  purgesScheduledLater,
		"Purge/IdempotencyKeys":       purgesIdempotency,
		"Purge/EmptyHolds":            purgesEmptyHolds,
		"Purge/InBounds":              purgesInBounds,
		"Purge/EachTenantsOwnTime":    purgesByTenant,
		"Purge/RowsBeforeContent":     purgesRowsBeforeContent,
	}
}

const day = 24 * time.Hour

// purge removes what there is to remove, and counts it.
func (k *kit) purge() (total int) {
	k.Helper()
	for {
		n, err := k.Store.Purge(k.ctx, delivery.DefaultRetention(), k.Clock.Now(), 1000)
		k.ok(err)
		if total += n; n == 0 {
			return total
		}
	}
}

func (k *kit) content(id ids.ID, want bool) {
	k.Helper()
	_, err := k.Store.Content(k.ctx, k.tenant, id)
	if want {
		k.ok(err)
	} else {
		k.code(problem.NotFound, err)
	}
}

func purgesContentOfSent(k *kit) {
	a := k.accepted(1)
	k.sends(k.claim()[0])
	k.Clock.Advance(day)
	require.Zero(k, k.purge())
	k.content(a.ID, true)
	k.Clock.Advance(time.Millisecond)
	require.Equal(k, 1, k.purge())
	k.content(a.ID, false)
	view, err := k.Store.Notification(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.Nil(k, view.Content)
	k.is(a.Rows[0], delivery.Sent, delivery.NoReason)
}

func purgesContentOfDead(k *kit) {
	a := k.accepted(2)
	list := k.claim()
	k.sends(list[0])
	k.dies(list[1])
	k.Clock.Advance(30 * day)
	require.Zero(k, k.purge())
	k.content(a.ID, true)
	k.ok(k.replay(list[1].Row))
	k.dies(k.claim()[0])
	k.Clock.Advance(time.Hour) // what was kept is looked at again by then
	k.purge()
	k.content(a.ID, false)
	k.code(problem.Conflict, k.replay(list[1].Row))
}

func purgesSensitive(k *kit) {
	sensitive := func(a *delivery.Accepted) { a.Sensitive = true }
	waits, over := k.accepted(1, sensitive), k.accepted(2, sensitive)
	later := k.accepted(0, func(a *delivery.Accepted) {
		a.Sensitive, a.Scheduled, a.SendAt = true, true, k.Clock.Now().Add(40*day)
	})
	for _, c := range k.claim() {
		if c.Notification == over.ID {
			k.sends(c)
		}
	}
	view, err := k.Store.Notification(k.ctx, k.tenant, over.ID)
	k.ok(err)
	require.Nil(k, view.Content, "never read back")
	require.Equal(k, 1, k.purge())
	k.content(over.ID, false)
	k.content(waits.ID, true)
	k.Clock.Advance(39 * day)
	k.purge()
	k.content(later.ID, true)
}

func purgesRows(k *kit) {
	a := k.accepted(1)
	skipped := k.accepted(0, func(a *delivery.Accepted) { a.Skips = []delivery.Skip{{User: "bob", Reason: delivery.SkipUnknownUser}} })
	c := k.claim()[0]
	k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now(), Spent: 1}, Attempt: k.attempt(c.Row, channels.Retry, "busy")})
	k.sends(k.claim()[0])
	k.Clock.Advance(30 * day)
	k.purge()
	require.Len(k, k.view(a.Rows[0]).Attempts, 2)
	k.Clock.Advance(time.Millisecond)
	require.Equal(k, 5, k.purge(), "a delivery, an older attempt, a skip and two notifications; the content went before")
	k.absent(a.ID)
	k.absent(skipped.ID)
	_, err := k.Store.Delivery(k.ctx, k.tenant, c.Notification, c.Target)
	k.code(problem.NotFound, err)
	list, err := k.Store.UserNotifications(k.ctx, k.tenant, "bob", 0, 10)
	k.ok(err)
	require.Empty(k, list)
	require.Zero(k, k.purge())
}

func purgesNothingUnfinished(k *kit) {
	a := k.accepted(3)
	list := k.claim(func(o *delivery.ClaimOrder) { o.Limit = 2 })
	k.finish(delivery.Finish{Row: list[0].Row, Hold: delivery.Hold{App: "default", Channel: channels.FCM},
		Transition: delivery.Transition{State: delivery.Held, Reason: delivery.CredentialMissing, Hold: delivery.HoldMissing}})
	m := k.scheduled(k.Clock.Now().Add(time.Hour))
	k.Clock.Advance(400 * day)
	require.Zero(k, k.purge())
	k.content(a.ID, true)
	k.content(m.ID, true)
	view, err := k.Store.Notification(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.Equal(k, map[delivery.State]int{delivery.Pending: 1, delivery.Sending: 1, delivery.Held: 1}, view.Counts)
	// An old delivery that ends now is kept for its time from now on.
	k.sends(k.claim()[0])
	require.Equal(k, 1, k.purge(), "the hold has nothing to hold any more")
	k.Clock.Advance(30 * day)
	require.Zero(k, k.purge())
	k.Clock.Advance(time.Millisecond)
	require.Equal(k, 1, k.purge())
}

func purgesEmptyHolds(k *kit) {
	c := k.credential(channels.FCM, "")
	missing, _ := k.hold(1, delivery.Hold{App: "ipad", Channel: channels.APNs}, delivery.HoldMissing, delivery.CredentialMissing, "")
	denied, _ := k.hold(2, delivery.Hold{Subject: c.ID}, delivery.HoldCredential, delivery.CredentialDenied, "denied")
	k.Clock.Advance(2 * day)
	list := k.claim() // both are at their deadline
	require.Len(k, list, 2)
	for _, x := range list {
		k.finish(delivery.Finish{Row: x.Row, Transition: delivery.Transition{State: delivery.Dropped, Reason: delivery.Expired}})
	}
	k.is(missing, delivery.Dropped, delivery.Expired)
	k.is(denied, delivery.Dropped, delivery.Expired)
	k.purge()
	holds := k.holds()
	require.Len(k, holds, 1)
	require.Equal(k, delivery.HoldCredential, holds[0].Scope, "a pause stands until somebody ends it")
	k.hold(1, delivery.Hold{App: "ipad", Channel: channels.APNs}, delivery.HoldMissing, delivery.CredentialMissing, "")
	k.purge()
	require.Len(k, k.holds(), 2, "one that holds something stands")
}

// purgesScheduledLater: an id tells when a notification was accepted, but what
// was scheduled far ahead is kept from when it was sent.
func purgesScheduledLater(k *kit) {
	at := k.Clock.Now().Add(60 * day)
	a, empty := k.scheduled(at), k.scheduled(at)
	k.Clock.Advance(60 * day)
	a.Rows = k.notification(1).Rows
	a.Rows[0].Notification = a.ID
	empty.Skips = []delivery.Skip{{User: "bob", Reason: delivery.SkipNoDevice}}
	for _, x := range []delivery.Accepted{a, empty} {
		there, err := k.Store.ResolveScheduled(k.ctx, delivery.Part{Accepted: x})
		k.ok(err)
		require.True(k, there)
	}
	c := k.claim()[0]
	k.dies(c)
	k.purge()
	k.Clock.Advance(29 * day)
	k.purge()
	k.ok(k.replay(c.Row))
	k.sends(k.claim()[0])
	view, err := k.Store.Notification(k.ctx, k.tenant, empty.ID)
	k.ok(err)
	require.Len(k, view.Skips, 1)
	k.Clock.Advance(2 * day)
	k.purge()
	k.absent(empty.ID)
	k.is(a.Rows[0], delivery.Sent, delivery.NoReason)
	k.Clock.Advance(30 * day)
	k.purge()
	k.absent(a.ID)
}

func purgesIdempotency(k *kit) {
	_, err := k.Store.Accept(k.ctx, k.batch("key", 1, "answer", k.notification()))
	k.ok(err)
	k.Clock.Advance(day - time.Millisecond)
	require.Zero(k, k.purge())
	k.Clock.Advance(time.Millisecond)
	require.Equal(k, 1, k.purge())
}

func purgesInBounds(k *kit) {
	const n, tries = 25, 4
	for range n {
		k.accepted(1)
	}
	for range tries {
		for _, c := range k.claim() {
			k.finish(delivery.Finish{Row: c.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now(), Spent: 1}, Attempt: k.attempt(c.Row, channels.Retry, "busy")})
		}
	}
	for _, c := range k.claim() {
		k.sends(c)
	}
	k.Clock.Advance(31 * day)
	total := 0
	for {
		removed, err := k.Store.Purge(k.ctx, delivery.DefaultRetention(), k.Clock.Now(), 10)
		k.ok(err)
		require.LessOrEqual(k, removed, 50, "ten of each kind at most")
		if total += removed; removed == 0 {
			break
		}
	}
	require.Equal(k, (3+tries)*n, total, "contents, deliveries, notifications, and every attempt though there are more of them")
}

// settings gives a tenant settings.
func (k *kit) settings(tenant ids.ID, s tenants.Settings) {
	k.Helper()
	t, err := k.Store.Tenant(k.ctx, tenant)
	k.ok(err)
	t.Settings = s
	k.ok(k.Store.UpdateTenant(k.ctx, t, change("tenant.update")))
}

func ms(d time.Duration) *int64 { n := d.Milliseconds(); return &n }

// purgesByTenant: one tenant keeps things for a shorter time than the server,
// one for a longer time, and neither changes what becomes of the others.
func purgesByTenant(k *kit) {
	usual := k.tenant
	short, long := k.newTenant("short"), k.newTenant("long")
	k.settings(short, tenants.Settings{Retention: tenants.Retention{Sent: ms(time.Hour), Dead: ms(2 * day), Rows: ms(3 * day)}})
	k.settings(long, tenants.Settings{Retention: tenants.Retention{Sent: ms(40 * day), Dead: ms(50 * day), Rows: ms(60 * day)}})
	type pair struct{ sent, dead delivery.Accepted }
	made := map[ids.ID]pair{}
	for _, tenant := range []ids.ID{usual, short, long} {
		k.tenant = tenant
		p := pair{sent: k.accepted(1), dead: k.accepted(1)}
		made[tenant] = p
		for _, c := range k.claim() {
			if c.Notification == p.sent.ID {
				k.sends(c)
			} else {
				k.dies(c)
			}
		}
	}
	// What is there at an age: content of sent, content of dead, rows.
	look := func(tenant ids.ID) (there [3]bool) {
		k.tenant = tenant
		for i, id := range []ids.ID{made[tenant].sent.ID, made[tenant].dead.ID} {
			_, err := k.Store.Content(k.ctx, tenant, id)
			there[i] = err == nil
		}
		_, err := k.Store.Notification(k.ctx, tenant, made[tenant].sent.ID)
		there[2] = err == nil
		return there
	}
	for _, want := range []struct {
		after              time.Duration
		usual, short, long [3]bool
	}{
		{2 * time.Hour, [3]bool{true, true, true}, [3]bool{false, true, true}, [3]bool{true, true, true}},
		{25 * time.Hour, [3]bool{false, true, true}, [3]bool{false, true, true}, [3]bool{true, true, true}},
		{2*day + time.Hour, [3]bool{false, true, true}, [3]bool{false, false, true}, [3]bool{true, true, true}},
		{3*day + time.Hour, [3]bool{false, true, true}, [3]bool{}, [3]bool{true, true, true}},
		{30*day + time.Hour, [3]bool{}, [3]bool{}, [3]bool{true, true, true}},
		{40*day + time.Hour, [3]bool{}, [3]bool{}, [3]bool{false, true, true}},
		{50*day + time.Hour, [3]bool{}, [3]bool{}, [3]bool{false, false, true}},
		{60*day + time.Hour, [3]bool{}, [3]bool{}, [3]bool{}},
	} {
		k.Clock.Advance(made[usual].sent.CreatedAt.Add(want.after).Sub(k.Clock.Now()))
		k.purge()
		require.Equal(k, want.usual, look(usual), "the server's, after %s", want.after)
		require.Equal(k, want.short, look(short), "shorter, after %s", want.after)
		require.Equal(k, want.long, look(long), "longer, after %s", want.after)
	}
}

// purgesRowsBeforeContent: content does not outlive the rows it belongs to.
func purgesRowsBeforeContent(k *kit) {
	k.settings(k.tenant, tenants.Settings{Retention: tenants.Retention{Sent: ms(300 * day), Rows: ms(day)}})
	a := k.accepted(1)
	k.sends(k.claim()[0])
	k.Clock.Advance(day + time.Millisecond)
	require.Equal(k, 3, k.purge(), "the delivery, the notification and its content")
	k.content(a.ID, false)
}

// purgesBehindWhatIsKept: dead letters that are kept do not stop what comes after them, and
// go when it is their turn.
func purgesBehindWhatIsKept(k *kit) {
	var dead, sent []ids.ID
	for i := range 40 {
		a := k.accepted(1)
		if c := k.claim()[0]; i < 35 {
			k.dies(c)
			dead = append(dead, a.ID)
		} else {
			k.sends(c)
			sent = append(sent, a.ID)
		}
	}
	k.Clock.Advance(25 * time.Hour)
	n, err := k.Store.Purge(k.ctx, delivery.DefaultRetention(), k.Clock.Now(), 2)
	k.ok(err)
	require.Equal(k, 2, n)
	require.Equal(k, 3, k.purge())
	for _, id := range sent {
		k.content(id, false)
	}
	for _, id := range dead {
		k.content(id, true)
	}
	k.Clock.Advance(30 * day)
	k.purge()
	for _, id := range dead {
		k.content(id, false)
	}
}
