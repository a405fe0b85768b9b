package storetest

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/webhooks"
)

func fanOutTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"FanOut/StoresEachPartOnce":       fanOutStoresEachPartOnce,
		"FanOut/IsOvertakenByWhatIsNewer": fanOutIsOvertaken,
		"FanOut/ThatLedNowhereSaysSo":     fanOutLedNowhere,
		"FanOut/OfWhichTenantsTakeTurns":  fanOutTurns,
		"FanOut/IsCanceledHalfway":        fanOutIsCanceledHalfway,
		"FanOut/Waits":                    fanOutWaits,
		"Lookup/OfOneUserGoesOn":          lookupOfOneUser,
		"Lookup/OfManyUsersStops":         lookupOfManyUsers,
		"Lookup/OfSubscribersGoesOn":      lookupOfSubscribers,
	}
}

// fanOut accepts one that is due.
func (k *kit) fanOut() delivery.Accepted {
	k.Helper()
	return k.accepted(0, func(a *delivery.Accepted) { a.Scheduled = true })
}

// part is what a part of it stores.
func (k *kit) part(a delivery.Accepted, at delivery.FanOut, next *delivery.FanOut, targets ...ids.ID) delivery.Part {
	k.Helper()
	a.Rows = k.notification(targets...).Rows
	for i := range a.Rows {
		a.Rows[i].Notification = a.ID
	}
	return delivery.Part{Accepted: a, At: at, Next: next, IfNothing: delivery.Skip{Reason: delivery.SkipNoDevice}}
}

func (k *kit) resolve(p delivery.Part) bool {
	k.Helper()
	there, err := k.Store.ResolveScheduled(k.ctx, p)
	k.ok(err)
	return there
}

func (k *kit) due(at time.Time, limit int) []delivery.Scheduled {
	k.Helper()
	list, err := k.Store.DueScheduled(k.ctx, at, limit)
	k.ok(err)
	return list
}

func (k *kit) notificationNow(id ids.ID) delivery.NotificationView {
	k.Helper()
	v, err := k.Store.Notification(k.ctx, k.tenant, id)
	k.ok(err)
	return v
}

func fanOutStoresEachPartOnce(k *kit) {
	a := k.fanOut()
	require.True(k, k.notificationNow(a.ID).FansOut)
	require.False(k, k.notificationNow(a.ID).Scheduled)
	require.Zero(k, k.due(k.Clock.Now(), 10)[0].FanOut)
	require.Empty(k, k.due(k.Clock.Now(), 10), "it is somebody's")

	begin, second := delivery.FanOut{}, delivery.FanOut{Stage: delivery.FanOutUsers, Left: 3, After: 5}
	first := k.part(a, begin, &second, 1, 2)
	first.Skips = []delivery.Skip{{User: "bob", Reason: delivery.SkipNoDevice}}
	require.True(k, k.resolve(first))
	require.False(k, k.resolve(first), "it has come further")
	found := k.due(k.Clock.Now(), 10)
	require.Len(k, found, 1, "what follows is due at once")
	require.Equal(k, second, found[0].FanOut)

	last := k.part(a, second, nil, 2, 3)
	last.Skips = []delivery.Skip{{User: "carol", Reason: delivery.SkipNoDevice}}
	require.True(k, k.resolve(last), "a target that an earlier part has is left alone")
	require.False(k, k.resolve(last))
	v := k.notificationNow(a.ID)
	require.False(k, v.FansOut)
	require.Equal(k, map[delivery.State]int{delivery.Pending: 3}, v.Counts)
	require.Equal(k, []delivery.Skip{{User: "bob", Reason: delivery.SkipNoDevice}, {User: "carol", Reason: delivery.SkipNoDevice}}, v.Skips)
	require.Len(k, k.claim(), 3)
	require.Empty(k, k.due(k.Clock.Now().Add(time.Hour), 10))
}

func fanOutIsOvertaken(k *kit) {
	before := k.acceptKeyed("score", 7)
	k.Clock.Advance(time.Second)
	a := k.fanOut()
	k.Clock.Advance(time.Second)
	newer := k.acceptKeyed("score", 8)
	k.Clock.Advance(time.Second)

	begin, next := delivery.FanOut{Stage: delivery.FanOutUsers, Left: 2}, delivery.FanOut{Stage: delivery.FanOutUsers, Left: 1}
	p := k.part(a, begin, nil, 7, 8)
	for i := range p.Rows {
		p.Rows[i].OrderKey = k.orderKey("score")
	}
	require.False(k, k.resolve(p))
	require.True(k, k.resolve(k.part(a, delivery.FanOut{}, &begin, 1)))
	p.Next = &next
	require.True(k, k.resolve(p))
	k.superseded(before, p.Rows[0])
	k.is(p.Rows[0], delivery.Pending, delivery.NoReason)
	require.Equal(k, a.ID, k.newest(p.Rows[0]))
	k.superseded(p.Rows[1], newer)
	k.is(newer, delivery.Pending, delivery.NoReason)
	require.Equal(k, newer.Notification, k.newest(newer))
}

func fanOutLedNowhere(k *kit) {
	a := k.fanOut()
	next := delivery.FanOut{Stage: delivery.FanOutUsers, Left: 1}
	require.True(k, k.resolve(k.part(a, delivery.FanOut{}, &next)))
	require.Empty(k, k.notificationNow(a.ID).Skips)
	require.True(k, k.resolve(k.part(a, next, nil)))
	require.Equal(k, []delivery.Skip{{Reason: delivery.SkipNoDevice}}, k.notificationNow(a.ID).Skips)

	b := k.fanOut()
	require.True(k, k.resolve(k.part(b, delivery.FanOut{}, &next, 1)))
	require.True(k, k.resolve(k.part(b, next, nil)))
	require.Empty(k, k.notificationNow(b.ID).Skips)
}

func fanOutTurns(k *kit) {
	for range 30 {
		k.fanOut()
	}
	greedy := k.tenant
	var late []ids.ID
	for n := range 3 {
		k.tenant = k.newTenant(fmt.Sprint("late-", n))
		late = append(late, k.tenant)
		k.Clock.Advance(time.Second)
		k.fanOut()
		k.fanOut()
	}
	count := map[ids.ID]int{}
	for _, m := range k.due(k.Clock.Now(), 8) {
		count[m.Tenant]++
	}
	require.Equal(k, map[ids.ID]int{greedy: 2, late[0]: 2, late[1]: 2, late[2]: 2}, count)

	// Where there are more tenants than a round has room for, the next one goes on.
	for _, tenant := range late {
		k.tenant = tenant
		k.fanOut()
	}
	seen := map[ids.ID]bool{}
	for range 2 {
		for _, m := range k.due(k.Clock.Now(), 2) {
			require.False(k, seen[m.Tenant])
			seen[m.Tenant] = true
		}
	}
	require.Len(k, seen, 4)
}

func fanOutIsCanceledHalfway(k *kit) {
	a := k.fanOut()
	next := delivery.FanOut{Stage: delivery.FanOutUsers, Left: 1}
	require.True(k, k.resolve(k.part(a, delivery.FanOut{}, &next, 1, 2)))
	n, err := k.Store.Cancel(k.ctx, k.tenant, a.ID, k.Clock.Now())
	k.ok(err)
	require.Equal(k, 2, n)
	require.False(k, k.resolve(k.part(a, next, nil, 3)))
	v := k.notificationNow(a.ID)
	require.True(k, v.Canceled)
	require.False(k, v.FansOut)
	require.Equal(k, map[delivery.State]int{delivery.Dropped: 2}, v.Counts)
}

func fanOutWaits(k *kit) {
	k.fanOut()
	now := k.Clock.Now()
	m := k.due(now, 1)[0]
	k.ok(k.Store.DelayScheduled(k.ctx, m, now.Add(time.Minute)))
	require.Empty(k, k.due(now.Add(time.Minute-time.Millisecond), 10))
	require.Len(k, k.due(now.Add(time.Minute), 10), 1)
}

func lookupOfOneUser(k *kit) {
	var want, got []ids.ID
	for n := range 7 {
		want = append(want, k.device("alice", fmt.Sprint("phone-", n)).ID)
		if n%3 == 0 {
			want = append(want, k.endpoint(func(e *webhooks.Endpoint) { e.User = "alice" }).ID)
		}
		k.device("bob", fmt.Sprint("another-", n))
	}
	l := delivery.Lookup{To: delivery.To{Users: []string{"alice"}}, Paged: true, Limit: 2}
	for range want {
		r, err := k.Store.Resolve(k.ctx, k.tenant, l)
		k.ok(err)
		require.LessOrEqual(k, max(len(r.Devices), len(r.Endpoints)), 2)
		page := idsOf(r.Devices, func(d devices.Device) ids.ID { return d.ID })
		page = append(page, idsOf(r.Endpoints, func(e delivery.BoundEndpoint) ids.ID { return e.ID })...)
		for _, id := range page {
			require.Greater(k, id, l.After)
			require.True(k, r.Through == 0 || id <= r.Through)
		}
		got = append(got, page...)
		if l.After = r.Through; l.After == 0 {
			break
		}
	}
	require.ElementsMatch(k, want, got)
}

func lookupOfManyUsers(k *kit) {
	for n := range 5 {
		k.device(fmt.Sprint("user-", n), fmt.Sprint("phone-", n))
	}
	l := delivery.Lookup{To: delivery.To{Users: []string{"user-0", "user-1", "user-2", "user-3", "user-4"}}, Limit: 4}
	r, err := k.Store.Resolve(k.ctx, k.tenant, l)
	k.ok(err)
	require.NotZero(k, r.Through)
	l.Limit = 5
	r, err = k.Store.Resolve(k.ctx, k.tenant, l)
	k.ok(err)
	require.Zero(k, r.Through)
	require.Len(k, r.Devices, 5)
}

func lookupOfSubscribers(k *kit) {
	var want, got []ids.ID
	for n := range 9 {
		e := k.endpoint(func(e *webhooks.Endpoint) {
			if n%3 == 1 {
				e.User = "alice"
			}
		})
		if e.User == "" {
			want = append(want, e.ID)
		}
	}
	l := delivery.Lookup{Subscribers: true, Limit: 2}
	for range 9 {
		r, err := k.Store.Resolve(k.ctx, k.tenant, l)
		k.ok(err)
		require.LessOrEqual(k, len(r.Endpoints), 2)
		got = append(got, idsOf(r.Endpoints, func(e delivery.BoundEndpoint) ids.ID { return e.ID })...)
		if l.After = r.Through; l.After == 0 {
			break
		}
	}
	require.Equal(k, want, got)
}
