package delivery_test

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
)

// newPair is two nodes of one database, each with channels of its own.
func newPair(t *testing.T, change func(*delivery.Options)) (a, b *kit) {
	t.Helper()
	if !pgtest.Postgres() {
		t.Skip("SQLite has one node")
	}
	a = newKit(t, func(o *delivery.Options) {
		if change != nil {
			change(o)
		}
	})
	a.close()
	a.joins = true
	a.open()
	b = &kit{t: t, ctx: a.ctx, ring: a.ring, url: a.url, tenant: a.tenant, joins: true,
		channels: map[channels.Kind]*fakeChannel{}, ids: ids.NewGenerator(2, time.Now), opts: a.opts}
	b.opts.IDs, b.opts.Channels = b.ids, map[channels.Kind]channels.Channel{}
	for _, kind := range channels.Kinds() {
		b.channels[kind] = &fakeChannel{kind: kind, news: make(chan struct{}, 1)}
		b.opts.Channels[kind] = b.channels[kind]
	}
	b.open()
	t.Cleanup(b.close)
	return a, b
}

// soon is when both nodes must know: a second or so, and much more on a machine
// that is busy.
const soon = 20 * time.Second

func TestAGateStopsAllNodes(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, nil)
	a.credential(channels.FCM, "")
	b.engine.CredentialsChanged(b.tenant)
	a.device("alice", "a", channels.FCM, nil)
	until := time.Now().Add(time.Hour)
	a.channels[channels.FCM].answer(always(channels.Result{Outcome: channels.Throttled, Code: "quota", Scope: channels.ScopeCredential, NotBefore: until}))
	waits := func(v delivery.View) bool {
		return v.State == delivery.Pending && v.DueAt.After(time.Now().Add(time.Minute)) // whether it looks again before or not
	}
	r := a.post(toUser("alice"))
	a.until(r.Notification, r.Deliveries[0].Target, "to wait", waits)

	for give := time.Now().Add(soon); ; {
		require.True(t, time.Now().Before(give), "the other node does not hear of the gate")
		r := b.post(toUser("alice"))
		v := b.until(r.Notification, r.Deliveries[0].Target, "to be sent or to wait", func(v delivery.View) bool {
			return v.State == delivery.Sent || waits(v)
		})
		if v.State == delivery.Pending {
			require.Zero(t, v.Attempts)
			break
		}
	}
	sent := len(b.channels[channels.FCM].attempts())
	r = b.post(toUser("alice"))
	b.until(r.Notification, r.Deliveries[0].Target, "to wait", waits)
	require.Len(t, b.channels[channels.FCM].attempts(), sent)
	a.sound()
}

// TestWhatThreeUsersAreToldStopsAllNodes: the evidence of one node is enough for all.
func TestWhatThreeUsersAreToldStopsAllNodes(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, nil)
	require.NoError(t, a.store.UpdateTenant(a.ctx, tenants.Tenant{ID: a.tenant, Name: "acme", UpdatedAt: time.Now()}, tenants.Change{Actor: "test", Action: "tenant.update"}))
	a.credential(channels.WebPush, "")
	b.engine.CredentialsChanged(b.tenant)
	a.channels[channels.WebPush].answer(always(tooFast(channels.WebPush, time.Hour, time.Now())))
	waits := func(v delivery.View) bool { return v.State == delivery.Pending && v.DueAt.After(time.Now()) }
	a.browser("fine", "", "")
	for i, give := 0, time.Now().Add(soon); ; i++ {
		require.True(t, time.Now().Before(give), "the other node does not hear of the gate")
		user := fmt.Sprint("limited-", i) // while the gate is open, each is news
		a.browser(user, "", "")
		r := a.post(toUser(user))
		a.until(r.Notification, r.Deliveries[0].Target, "to wait", waits)
		if i < 2 {
			continue
		}
		r = b.post(toUser("fine"))
		v := b.until(r.Notification, r.Deliveries[0].Target, "to be sent or to wait", func(v delivery.View) bool {
			return v.State == delivery.Sent || waits(v)
		})
		if v.State == delivery.Pending {
			require.Empty(t, v.Attempts)
			return
		}
	}
}

func TestTheBreakerOpensOnAllNodes(t *testing.T) {
	t.Parallel()
	a, b := newPair(t, nil)
	c := a.credential(channels.FCM, "")
	b.engine.CredentialsChanged(b.tenant)
	a.device("alice", "good", channels.FCM, nil)
	// Ten verdicts of each node are too few for it to tell; twenty are enough.
	const each = 9
	user := func(node, i int) string { return fmt.Sprintf("user-%d-%d", node, i) }
	var list []devices.Device
	for n := range 2 {
		for i := range each + 1 {
			list = append(list, a.device(user(n, i), user(n, i), channels.FCM, nil))
		}
	}
	for _, k := range []*kit{a, b} {
		k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
		k.channels[channels.FCM].answer(always(channels.Result{Outcome: channels.Gone, Code: "unregistered"}))
	}
	for i := range each {
		for n, k := range []*kit{a, b} {
			k.ends(k.post(toUser(user(n, i))), 0, delivery.Dropped, delivery.Gone)
		}
	}
	require.Eventually(t, func() bool {
		return a.engine.BreakerOpen(c.ID, 1) && b.engine.BreakerOpen(c.ID, 1)
	}, soon, 5*time.Millisecond)
	for n, k := range []*kit{a, b} {
		k.ends(k.post(toUser(user(n, each))), 0, delivery.Held, delivery.InDoubt)
	}
	for _, d := range list {
		require.Eventually(t, func() bool {
			now, err := a.store.Device(a.ctx, a.tenant, d.ID)
			return err == nil && now.Status == devices.Suspect
		}, soon, 5*time.Millisecond, "what was retired is in doubt, whichever node did it")
	}
	a.sound()
}

func TestTheUrgentLimitIsOfAllNodes(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	a, b := newPair(t, func(o *delivery.Options) {
		o.UrgentRate, o.Now = 10, func() time.Time { return time.Unix(0, clock.Load()) }
	})
	a.device("alice", "a", channels.FCM, nil)
	urgent := toUser("alice")
	urgent.Urgent = true
	spend := func(k *kit, most int) {
		for range most {
			k.post(urgent)
		}
		require.Equal(t, problem.Throttled, k.refused(urgent).Code)
	}
	comes := func(k *kit, limit float64) {
		require.Eventually(t, func() bool { return k.engine.UrgentLimit(k.tenant) == limit }, soon, 5*time.Millisecond)
	}
	spend(a, 20)
	clock.Add(int64(time.Second))
	comes(b, 5)
	spend(b, 10) // two seconds' worth of its half
	clock.Add(int64(time.Second))
	comes(a, 5)
	comes(b, 5)

	// One that has left leaves its part to the other.
	b.close()
	clock.Add(int64(time.Second))
	comes(a, 10)
}
