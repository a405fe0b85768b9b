package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

func readTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Reader/FiltersDeliveries":       filtersDeliveries,
		"Reader/PagesDeliveries":         pagesDeliveries,
		"Reader/FilteredPagesAreBounded": filteredPagesAreBounded,
		"Reader/DeadLettersByDeath":      deadLettersByDeath,
		"Reader/NotificationsOfUser":     notificationsOfUser,
	}
}

func filtersDeliveries(k *kit) {
	d := k.device("alice", "a")
	mine := k.accepted(1, func(a *delivery.Accepted) { a.Rows[0].UserID, a.Rows[0].Target = d.UserID, d.ID })
	k.Clock.Advance(time.Second)
	hook := k.accepted(1, onWebhook)
	for _, c := range k.claim() {
		if c.Notification == hook.ID {
			k.dies(c)
		}
	}
	until := k.Clock.Now()
	for name, x := range map[string]struct {
		q    delivery.Query
		want []ids.ID
	}{
		"all":          {delivery.Query{}, []ids.ID{hook.ID, mine.ID}},
		"notification": {delivery.Query{Notification: mine.ID}, []ids.ID{mine.ID}},
		"state":        {delivery.Query{State: delivery.Dead}, []ids.ID{hook.ID}},
		"reason":       {delivery.Query{Reason: delivery.Rejected}, []ids.ID{hook.ID}},
		"channel":      {delivery.Query{Channel: channels.FCM}, []ids.ID{mine.ID}},
		"user":         {delivery.Query{User: "alice"}, []ids.ID{mine.ID}},
		"nobody":       {delivery.Query{User: "nobody"}, []ids.ID{}},
		"since":        {delivery.Query{Since: until}, []ids.ID{hook.ID}},
		"until":        {delivery.Query{Until: until}, []ids.ID{mine.ID}},
	} {
		x.q.Limit = 10
		list, err := k.Store.Deliveries(k.ctx, k.tenant, x.q)
		k.ok(err)
		require.Equal(k, x.want, idsOf(list, func(v delivery.View) ids.ID { return v.Notification }), name)
	}
}

func pagesDeliveries(k *kit) {
	for range 3 {
		k.accepted(3)
	}
	var (
		seen []delivery.Cursor
		at   delivery.Cursor
	)
	for {
		list, err := k.Store.Deliveries(k.ctx, k.tenant, delivery.Query{Limit: 2, After: at})
		k.ok(err)
		if len(list) == 0 {
			break
		}
		for _, v := range list {
			at = delivery.Cursor{Notification: v.Notification, Target: v.Target}
			seen = append(seen, at)
		}
	}
	require.Len(k, seen, 9)
	for i := range seen[1:] {
		a, b := seen[i], seen[i+1]
		require.True(k, a.Notification > b.Notification || a.Notification == b.Notification && a.Target > b.Target, "newest first, each once")
	}
}

func deadLettersByDeath(k *kit) {
	k.accepted(5)
	var died []ids.ID
	for i, c := range k.claim() {
		if i%2 == 0 {
			k.Clock.Advance(time.Second) // two of them die at the same moment
		}
		k.dies(c)
		died = append(died, c.Target)
	}
	k.accepted(1)
	var (
		seen []ids.ID
		at   delivery.Cursor
	)
	for {
		list, err := k.Store.DeadLetters(k.ctx, k.tenant, delivery.Query{Limit: 2, After: at})
		k.ok(err)
		if len(list) == 0 {
			break
		}
		for _, v := range list {
			at = delivery.Cursor{At: v.UpdatedAt, Notification: v.Notification, Target: v.Target}
			seen = append(seen, v.Target)
		}
	}
	require.ElementsMatch(k, died, seen)
	require.Equal(k, died[4], seen[0], "the latest death first")
	list, err := k.Store.DeadLetters(k.ctx, k.tenant, delivery.Query{Limit: 10, Since: k.Clock.Now()})
	k.ok(err)
	require.Len(k, list, 1)
	list, err = k.Store.DeadLetters(k.ctx, k.tenant, delivery.Query{Limit: 10, Reason: delivery.Exhausted})
	k.ok(err)
	require.Empty(k, list)

	all, err := k.Store.DeadLetters(k.ctx, k.tenant, delivery.Query{Limit: 10})
	k.ok(err)
	for i, v := range all {
		list, err = k.Store.DeadLetters(k.ctx, k.tenant, delivery.Query{Limit: 10, To: delivery.Cursor{At: v.UpdatedAt, Notification: v.Notification, Target: v.Target}})
		k.ok(err)
		require.Len(k, list, i+1, "none beyond the last to be looked at")
	}
}

// filteredPagesAreBounded: a page looks at 5,000 rows, however little of them is wanted.
func filteredPagesAreBounded(k *kit) {
	wanted := k.accepted(2, onWebhook)
	for range 6 {
		k.accepted(1000)
	}
	q := delivery.Query{Channel: channels.Webhook, Limit: 10}
	to, err := k.Store.DeliveryWindow(k.ctx, k.tenant, q, false)
	k.ok(err)
	require.NotZero(k, to)
	q.To = to
	list, err := k.Store.Deliveries(k.ctx, k.tenant, q)
	k.ok(err)
	require.Empty(k, list)

	q.After = to
	q.To, err = k.Store.DeliveryWindow(k.ctx, k.tenant, q, false)
	k.ok(err)
	require.Zero(k, q.To, "it ends there")
	list, err = k.Store.Deliveries(k.ctx, k.tenant, q)
	k.ok(err)
	require.Len(k, list, 2)
	require.Equal(k, wanted.ID, list[0].Notification)

	all := delivery.Query{Limit: 500}
	seen := 0
	for {
		list, err := k.Store.Deliveries(k.ctx, k.tenant, all)
		k.ok(err)
		seen += len(list)
		if len(list) < all.Limit {
			break
		}
		all.After = delivery.Cursor{Notification: list[len(list)-1].Notification, Target: list[len(list)-1].Target}
		if all.After == to {
			require.Equal(k, 5000, seen)
		}
	}
	require.Equal(k, 6002, seen)
	for _, q := range []delivery.Query{{}, {User: "alice"}, {Notification: wanted.ID, State: delivery.Dead}} {
		end, err := k.Store.DeliveryWindow(k.ctx, k.tenant, q, false)
		k.ok(err)
		require.Zero(k, end, "nothing is passed over, or there is little")
	}
}

func notificationsOfUser(k *kit) {
	d := k.device("alice", "a")
	var want []ids.ID
	for i := range 4 {
		a := k.notification()
		if i%2 == 0 {
			a = k.notification(d.ID)
			a.Rows[0].UserID = d.UserID
		}
		a.Skips = []delivery.Skip{{User: "alice", Channel: channels.APNs, Reason: delivery.SkipNoDevice}}
		k.accept(a)
		want = append([]ids.ID{a.ID}, want...)
	}
	id := func(v delivery.NotificationView) ids.ID { return v.ID }
	list, err := k.Store.UserNotifications(k.ctx, k.tenant, "alice", 0, 3)
	k.ok(err)
	require.Equal(k, want[:3], idsOf(list, id))
	require.Equal(k, map[delivery.State]int{delivery.Pending: 1}, list[1].Counts)
	list, err = k.Store.UserNotifications(k.ctx, k.tenant, "alice", list[2].ID, 3)
	k.ok(err)
	require.Equal(k, want[3:], idsOf(list, id))
	list, err = k.Store.UserNotifications(k.ctx, k.tenant, "nobody", 0, 3)
	k.ok(err)
	require.Empty(k, list)
}
