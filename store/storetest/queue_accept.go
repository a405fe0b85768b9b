package storetest

import (
	"strconv"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

func acceptTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Accept/IsReadBack":               acceptIsReadBack,
		"Accept/IdempotencyReplays":       idempotencyReplays,
		"Accept/IdempotencyMismatch":      idempotencyMismatch,
		"Accept/IdempotencyEnds":          idempotencyEnds,
		"Accept/IdempotencyIsScoped":      idempotencyIsScoped,
		"Accept/EqualKeysAtOnce":          equalKeysAtOnce,
		"Accept/BatchIsAllOrNothing":      batchIsAllOrNothing,
		"Accept/OneFailureHurtsNobody":    oneFailureHurtsNobody,
		"Accept/SkipsMakeUsers":           skipsMakeUsers,
		"Resolve/UsersDevicesEndpoints":   resolves,
		"Resolve/NothingOfAnotherTenant":  resolvesNothingOfOthers,
		"Resolve/UserWithoutDevice":       resolvesUsersWithoutDevice,
		"Content/IsNotFoundWhereNoneWas":  contentNotFound,
		"Accept/UnfinishedIsCountedUpTo":  unfinishedIsCounted,
		"Accept/BornLeasedIsNotClaimable": bornLeased,
	}
}

func acceptIsReadBack(k *kit) {
	d := k.device("alice", "a")
	a := k.notification(d.ID, k.IDs.Next())
	a.Type, a.Lane, a.AtMostOnce = "order.shipped", delivery.Urgent, true
	for i := range a.Rows {
		a.Rows[i].Lane = a.Lane
	}
	a.Rows[0].UserID, a.Rows[0].Epoch = d.UserID, d.Epoch
	a.Skips = []delivery.Skip{{User: "bob", Channel: channels.APNs, Reason: delivery.SkipNoDevice}, {Target: 99, Reason: delivery.SkipUnknownTarget}}
	k.accept(a)

	n, err := k.Store.Notification(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.Equal(k, delivery.NotificationView{ID: a.ID, Type: a.Type, CreatedAt: a.CreatedAt, Content: []byte(body),
		Counts: map[delivery.State]int{delivery.Pending: 2}, Skips: a.Skips}, n)
	v := k.view(a.Rows[0])
	require.Equal(k, delivery.View{Notification: a.ID, Target: d.ID, Channel: channels.FCM, User: "alice", App: "default", State: delivery.Pending,
		DueAt: a.Rows[0].DueAt, ExpiresAt: a.Rows[0].ExpiresAt, Round: 1, CreatedAt: a.ID.Time(), UpdatedAt: a.CreatedAt}, v)
	list := k.claim(func(o *delivery.ClaimOrder) { o.Lane = delivery.Urgent })
	require.Len(k, list, 2)
	require.True(k, list[0].AtMostOnce)
}

func (k *kit) batch(key string, hash byte, answer string, list ...delivery.Accepted) delivery.Batch {
	return delivery.Batch{Tenant: k.tenant, Accepted: list, Answer: delivery.Answer{Status: 202, Body: []byte(answer)},
		Idempotency: &delivery.Idempotency{Principal: 7, Route: "POST /v1/notifications", Key: key, BodyHash: [32]byte{hash}},
		ExpiresAt:   k.Clock.Now().Add(24 * time.Hour)}
}

func (k *kit) absent(id ids.ID) {
	k.Helper()
	_, err := k.Store.Notification(k.ctx, k.tenant, id)
	k.code(problem.NotFound, err)
}

func idempotencyReplays(k *kit) {
	first, second := k.notification(1), k.notification(1)
	stored, err := k.Store.Accept(k.ctx, k.batch("key", 1, "first", first))
	k.ok(err)
	require.Nil(k, stored)
	want := delivery.Answer{Status: 202, Body: []byte("first"), Replayed: true}

	stored, err = k.Store.Accept(k.ctx, k.batch("key", 1, "second", second))
	k.ok(err)
	require.Equal(k, &want, stored)
	k.absent(second.ID)

	got, found, err := k.Store.Stored(k.ctx, k.tenant, *k.batch("key", 1, "").Idempotency)
	k.ok(err)
	require.True(k, found)
	require.Equal(k, want, got)
	_, found, err = k.Store.Stored(k.ctx, k.tenant, *k.batch("other", 1, "").Idempotency)
	k.ok(err)
	require.False(k, found)
}

func idempotencyMismatch(k *kit) {
	other := k.notification(1)
	_, err := k.Store.Accept(k.ctx, k.batch("key", 1, "first", k.notification(1)))
	k.ok(err)
	_, err = k.Store.Accept(k.ctx, k.batch("key", 2, "second", other))
	k.code(problem.IdempotencyMismatch, err)
	k.absent(other.ID)
	_, _, err = k.Store.Stored(k.ctx, k.tenant, *k.batch("key", 2, "").Idempotency)
	k.code(problem.IdempotencyMismatch, err)
}

func idempotencyEnds(k *kit) {
	_, err := k.Store.Accept(k.ctx, k.batch("key", 1, "first", k.notification(1)))
	k.ok(err)
	k.Clock.Advance(24 * time.Hour)
	_, found, err := k.Store.Stored(k.ctx, k.tenant, *k.batch("key", 1, "").Idempotency)
	k.ok(err)
	require.False(k, found)
	// Not purged yet, and used again with another body.
	next := k.notification(1)
	stored, err := k.Store.Accept(k.ctx, k.batch("key", 2, "next", next))
	k.ok(err)
	require.Nil(k, stored)
	got, found, err := k.Store.Stored(k.ctx, k.tenant, *k.batch("key", 2, "").Idempotency)
	k.ok(err)
	require.True(k, found)
	require.Equal(k, "next", string(got.Body))
}

func idempotencyIsScoped(k *kit) {
	other := k.newTenant("other")
	b := k.batch("key", 1, "first", k.notification(1))
	_, err := k.Store.Accept(k.ctx, b)
	k.ok(err)
	for name, edit := range map[string]func(*delivery.Batch){
		"tenant": func(b *delivery.Batch) {
			b.Tenant = other
			b.Accepted[0].Tenant = other
			b.Accepted[0].Rows[0].Tenant = other
		},
		"principal": func(b *delivery.Batch) { b.Idempotency.Principal = 8 },
		"route":     func(b *delivery.Batch) { b.Idempotency.Route = "POST /v1/batch" },
		"key":       func(b *delivery.Batch) { b.Idempotency.Key = "KEY" },
	} {
		b := k.batch("key", 2, "another", k.notification(1))
		edit(&b)
		stored, err := k.Store.Accept(k.ctx, b)
		k.ok(err)
		require.Nil(k, stored, name)
	}
}

func equalKeysAtOnce(k *kit) {
	const n = 64
	answers := make([]string, n)
	var wg sync.WaitGroup
	for i := range n {
		own := "answer " + strconv.Itoa(i)
		b := k.batch("key", 1, own, k.notification(1))
		wg.Go(func() {
			stored, err := k.Store.Accept(k.ctx, b)
			switch {
			case err != nil:
				answers[i] = err.Error()
			case stored == nil:
				answers[i] = own
			default:
				answers[i] = string(stored.Body)
			}
		})
	}
	wg.Wait()
	for _, a := range answers {
		require.Equal(k, answers[0], a)
	}
	list, err := k.Store.Deliveries(k.ctx, k.tenant, delivery.Query{Limit: 100})
	k.ok(err)
	require.Len(k, list, 1)
}

func batchIsAllOrNothing(k *kit) {
	good, bad := k.notification(1), k.notification(2, 2) // the same target twice cannot be stored
	_, err := k.Store.Accept(k.ctx, k.batch("key", 1, "answer", good, bad))
	require.Error(k, err)
	k.absent(good.ID)
	k.absent(bad.ID)
	_, found, err := k.Store.Stored(k.ctx, k.tenant, *k.batch("key", 1, "").Idempotency)
	k.ok(err)
	require.False(k, found, "the key is free again")
}

func oneFailureHurtsNobody(k *kit) {
	const n = 60
	list := make([]delivery.Accepted, n)
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range list {
		list[i] = k.notification(1)
		if i%10 == 5 {
			list[i] = k.notification(2, 2)
		}
		wg.Go(func() { _, errs[i] = k.Store.Accept(k.ctx, delivery.Batch{Tenant: k.tenant, Accepted: list[i : i+1]}) })
	}
	wg.Wait()
	for i := range list {
		if i%10 == 5 {
			require.Error(k, errs[i])
			k.absent(list[i].ID)
			continue
		}
		k.ok(errs[i])
		k.is(list[i].Rows[0], delivery.Pending, delivery.NoReason)
	}
}

func skipsMakeUsers(k *kit) {
	for range 2 {
		a := k.notification()
		a.Skips = []delivery.Skip{{User: "ghost", Reason: delivery.SkipUnknownUser}}
		k.accept(a)
	}
	list, err := k.Store.UserNotifications(k.ctx, k.tenant, "ghost", 0, 10)
	k.ok(err)
	require.Len(k, list, 2)
	r, err := k.Store.Resolve(k.ctx, k.tenant, delivery.Lookup{To: delivery.To{Users: []string{"ghost"}}, Limit: delivery.MaxLookup})
	k.ok(err)
	require.Len(k, r.Users, 1, "a user exists from first sight")
}

func resolves(k *kit) {
	a1, a2 := k.device("alice", "a1", token(channels.Activity, "order-7")), k.device("alice", "a2")
	b1 := k.device("bob", "b1")
	named := k.endpoint(func(e *webhooks.Endpoint) { e.EventTypes = []string{} })
	bound := k.endpoint(func(e *webhooks.Endpoint) { e.User = "alice" })
	unbound := k.endpoint()
	k.endpoint(func(e *webhooks.Endpoint) { e.User = "carol" })

	r, err := k.Store.Resolve(k.ctx, k.tenant, delivery.Lookup{Limit: delivery.MaxLookup, To: delivery.To{
		Users: []string{"alice", "nobody"}, Devices: []ids.ID{b1.ID, 12345}, Endpoints: []ids.ID{named.ID, 6789}}})
	k.ok(err)
	require.Equal(k, map[string]ids.ID{"alice": a1.UserID}, r.Users)
	require.Equal(k, []ids.ID{a1.ID, a2.ID, b1.ID}, idsOf(r.Devices, func(d devices.Device) ids.ID { return d.ID }))
	want := a1
	want.StatusAt, want.CreatedAt, want.UpdatedAt = time.Time{}, time.Time{}, time.Time{}
	require.Equal(k, want, r.Devices[0], "what routing and sending need of it")
	id := func(e delivery.BoundEndpoint) ids.ID { return e.ID }
	require.ElementsMatch(k, []ids.ID{named.ID, bound.ID}, idsOf(r.Endpoints, id))
	for _, e := range r.Endpoints {
		require.Empty(k, e.Secrets)
		if e.ID == bound.ID {
			require.Equal(k, a1.UserID, e.UserID)
			require.Equal(k, "alice", e.User)
		}
	}
	r, err = k.Store.Resolve(k.ctx, k.tenant, delivery.Lookup{Subscribers: true, Limit: delivery.MaxLookup})
	k.ok(err)
	require.Equal(k, []ids.ID{named.ID, unbound.ID}, idsOf(r.Endpoints, id))
	require.Empty(k, r.Devices)
}

func idsOf[T any](list []T, id func(T) ids.ID) []ids.ID {
	out := make([]ids.ID, len(list))
	for i, x := range list {
		out[i] = id(x)
	}
	return out
}

func resolvesNothingOfOthers(k *kit) {
	d, e := k.device("alice", "a"), k.endpoint()
	other := k.newTenant("other")
	r, err := k.Store.Resolve(k.ctx, other, delivery.Lookup{Subscribers: true, Limit: delivery.MaxLookup,
		To: delivery.To{Users: []string{"alice"}, Devices: []ids.ID{d.ID}, Endpoints: []ids.ID{e.ID}}})
	k.ok(err)
	require.Empty(k, r.Users)
	require.Empty(k, r.Devices)
	require.Empty(k, r.Endpoints)
}

func resolvesUsersWithoutDevice(k *kit) {
	d := k.device("alice", "a")
	k.ok(k.Store.DeleteDevice(k.ctx, k.tenant, d.ID, "", "key_test"))
	r, err := k.Store.Resolve(k.ctx, k.tenant, delivery.Lookup{To: delivery.To{Users: []string{"alice"}}, Limit: delivery.MaxLookup})
	k.ok(err)
	require.Equal(k, map[string]ids.ID{"alice": d.UserID}, r.Users)
}

func contentNotFound(k *kit) {
	_, err := k.Store.Content(k.ctx, k.tenant, 5)
	k.code(problem.NotFound, err)
	a := k.accepted(1)
	got, err := k.Store.Content(k.ctx, k.tenant, a.ID)
	k.ok(err)
	require.Equal(k, body, string(got))
}

func unfinishedIsCounted(k *kit) {
	k.accepted(5)
	a := k.notification()
	a.Scheduled, a.SendAt = true, k.Clock.Now().Add(time.Hour)
	k.accept(a)
	count := func(now time.Time) delivery.Unfinished {
		all, err := k.Store.Unfinished(k.ctx, now)
		k.ok(err)
		return all[k.tenant]
	}
	require.Equal(k, delivery.Unfinished{Due: 5, Stored: 6}, count(k.Clock.Now()), "what is scheduled is not due")
	require.Equal(k, delivery.Unfinished{Stored: 6}, count(k.Clock.Now().Add(-time.Hour)), "nor is what is for later")
	claimed := k.claim()
	require.Equal(k, delivery.Unfinished{Stored: 6}, count(k.Clock.Now()), "what is in hand has had its turn")
	for _, c := range claimed {
		k.sends(c)
	}
	require.Equal(k, delivery.Unfinished{Stored: 1}, count(k.Clock.Now()))
}

func bornLeased(k *kit) {
	claim := int64(k.IDs.Next())
	a := k.accepted(1, func(a *delivery.Accepted) {
		r := &a.Rows[0]
		r.State, r.Claim, r.DueAt = delivery.Sending, claim, k.Clock.Now().Add(time.Minute)
	})
	require.Empty(k, k.claim())
	k.sends(delivery.Claimed{Row: a.Rows[0]})
	k.is(a.Rows[0], delivery.Sent, delivery.NoReason)
}
