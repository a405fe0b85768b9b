package delivery_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/tenants"
)

// tooFast is "too fast" without a word about whose limit it is, as a channel has it.
func tooFast(kind channels.Kind, wait time.Duration, now time.Time) channels.Result {
	r := channels.Result{Outcome: channels.Throttled, Status: 429, Code: kind.String() + ".throttled", NotBefore: now.Add(wait), Wider: channels.ScopeCredential}
	if kind == channels.WebPush {
		r.Wider = channels.ScopeOrigin
	}
	return r
}

// slowKit is a kit with a clock of its own, a tenant that leaves all waits to the
// providers, and no randomness: what waits for a gate is due when it opens.
type slowKit struct {
	*kit
	clock *handClock
	kind  channels.Kind
	fake  *fakeChannel
}

func newSlowKit(t *testing.T, kind channels.Kind) *slowKit {
	t.Helper()
	clock := newHandClock()
	k := &slowKit{clock: clock, kind: kind, kit: newKitAt(t, clock.now, func(o *delivery.Options) { o.Jitter = func() float64 { return 0 } })}
	k.fake = k.channels[kind]
	require.NoError(t, k.store.UpdateTenant(k.ctx, tenants.Tenant{ID: k.tenant, Name: "acme", UpdatedAt: time.Now()}, tenants.Change{Actor: "test", Action: "tenant.update"}))
	k.credential(kind, "")
	return k
}

func (k *slowKit) add(user string) {
	k.t.Helper()
	k.device(user, "https://push.example/"+user, k.kind, nil)
}

// limits makes the provider tell users whose name begins with one of these that they
// are too fast; everybody else is served.
func (k *slowKit) limits(wait time.Duration, names ...string) {
	k.fake.answer(func(_ context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		for _, n := range names {
			if strings.HasPrefix(t.Address, "https://push.example/"+n) {
				return tooFast(k.kind, wait, k.clock.now())
			}
		}
		return accepted()
	})
}

// to sends to a user for two days, and returns what has become of it once it was
// attempted or put off.
func (k *slowKit) to(user string) delivery.View {
	k.t.Helper()
	r := toUser(user)
	ttl := int64(48 * 60 * 60)
	r.TTL = &ttl
	began := k.clock.now()
	got := k.post(r)
	return k.until(got.Notification, got.Deliveries[0].Target, "to be attempted or to wait", func(v delivery.View) bool {
		return v.State == delivery.Sent || v.State == delivery.Pending && v.DueAt.After(began)
	})
}

// opens is how long what is sent to a user waits, unattempted.
func (k *slowKit) opens(user string) time.Duration {
	k.t.Helper()
	v := k.to(user)
	require.Empty(k.t, v.Attempts)
	return v.DueAt.Sub(k.clock.now())
}

func eachProvider(t *testing.T, f func(t *testing.T, kind channels.Kind)) {
	t.Helper()
	for _, kind := range []channels.Kind{channels.WebPush, channels.FCM} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			f(t, kind)
		})
	}
}

// TestOneLimitedDeviceDelaysNobodyElse: it waits for the day that its answer asks for,
// and the others of its provider are sent to at once.
func TestOneLimitedDeviceDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	eachProvider(t, func(t *testing.T, kind channels.Kind) {
		k := newSlowKit(t, kind)
		const day = 24 * time.Hour
		k.limits(day, "limited")
		k.add("limited")
		v := k.to("limited")
		require.Len(t, v.Attempts, 1)
		require.Equal(t, lookEvery, v.DueAt.Sub(k.clock.now()), "a provider may say more than it means")
		for i := range 20 {
			user := fmt.Sprint("fine-", i)
			k.add(user)
			require.Equal(t, delivery.Sent, k.to(user).State)
		}
		require.Equal(t, lookEvery, k.opens("limited"), "whatever is sent to it waits as long")
		require.Len(t, k.fake.attempts(), 21)

		k.limits(0, "nobody")
		k.clock.advance(lookEvery)
		v = k.until(v.Notification, v.Target, "to be sent", func(v delivery.View) bool { return v.State == delivery.Sent })
		require.Len(t, v.Attempts, 2, "a lie costs minutes, and drops nothing")
		k.sound()
	})
}

// lookEvery is how long a device is left alone at most, whatever its provider says.
const lookEvery = 10 * time.Minute

// TestADeviceThatIsLimitedForEverDelaysNobodyElse: however often it is asked, and
// whether others are served in between or not.
func TestADeviceThatIsLimitedForEverDelaysNobodyElse(t *testing.T) {
	t.Parallel()
	eachProvider(t, func(t *testing.T, kind channels.Kind) {
		k := newSlowKit(t, kind)
		k.limits(time.Second, "limited")
		k.add("limited")
		k.device("limited", "https://push.example/limited-too", kind, nil)
		k.add("limited-as-well")
		k.add("fine")
		waiting := []delivery.Receipt{k.post(toUser("limited")), k.post(toUser("limited-as-well"))}
		asked := 0
		for i := range 30 {
			for _, r := range waiting {
				for _, d := range r.Deliveries {
					k.until(r.Notification, d.Target, "to be told so again", func(v delivery.View) bool { return v.DueAt.After(k.clock.now()) })
				}
			}
			asked += 3
			if i%5 == 4 { // they have been alone for a while
				require.Equal(t, delivery.Sent, k.to("fine").State)
				asked++
			}
			require.Len(t, k.fake.attempts(), asked)
			k.clock.advance(16 * time.Second) // later than so soon that a gate of theirs closes for longer
		}
	})
}

// TestAProviderThatIsTooSlowForAllIsLeftAlone: three users are enough to tell, and
// while it goes on it is asked more and more seldom.
func TestAProviderThatIsTooSlowForAllIsLeftAlone(t *testing.T) {
	t.Parallel()
	eachProvider(t, func(t *testing.T, kind channels.Kind) {
		k := newSlowKit(t, kind)
		k.limits(24*time.Hour, "")
		users := 0
		next := func() string {
			users++
			user := fmt.Sprint("user-", users)
			k.add(user)
			return user
		}
		var last delivery.View
		told := k.to(next())
		require.Equal(t, lookEvery, k.opens("user-1"), "who was told so is not believed for a day")
		for _, wait := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second, 80 * time.Second} {
			require.Len(t, told.Attempts, 1)
			for range 2 {
				require.Len(t, k.to(next()).Attempts, 1)
			}
			last = k.to(next())
			require.Empty(t, last.Attempts)
			require.Equal(t, wait, last.DueAt.Sub(k.clock.now()))
			if wait < 80*time.Second {
				k.clock.advance(wait)
				told = k.until(last.Notification, last.Target, "to be asked", func(v delivery.View) bool { return len(v.Attempts) == 1 })
			}
		}
		k.limits(0, "nobody")
		k.clock.advance(80 * time.Second)
		k.until(last.Notification, last.Target, "to be sent", func(v delivery.View) bool { return v.State == delivery.Sent })
		require.Equal(t, delivery.Sent, k.to(next()).State)
		k.limits(time.Second, "user")
		require.Len(t, k.to(next()).Attempts, 1)
		require.Len(t, k.to(next()).Attempts, 1)
		k.add("new")
		require.Equal(t, delivery.Sent, k.to("new").State, "it is over: two are no evidence again")
		k.sound()
	})
}

// TestUsersWhoAreLimitedOneByOneDelayNobodyTwice: when a gate opens, one more who is
// limited does not close it again.
func TestUsersWhoAreLimitedOneByOneDelayNobodyTwice(t *testing.T) {
	t.Parallel()
	eachProvider(t, func(t *testing.T, kind channels.Kind) {
		k := newSlowKit(t, kind)
		k.limits(24*time.Hour, "limited")
		for i := range 3 {
			user := fmt.Sprint("limited-", i)
			k.add(user)
			require.Len(t, k.to(user).Attempts, 1)
		}
		k.add("fine")
		require.Equal(t, 10*time.Second, k.opens("fine"))
		k.clock.advance(10 * time.Second)
		for i := range 2 {
			user := fmt.Sprint("limited-too-", i)
			k.add(user)
			require.Len(t, k.to(user).Attempts, 1)
		}
		require.Equal(t, delivery.Sent, k.to("fine").State)
		k.sound()
	})
}
