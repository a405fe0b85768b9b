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
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/tenants"
)

// bound is a push service that takes what is signed with the key that is in the
// address of a subscription.
func (k *kit) bound() *fakeChannel {
	push := k.channels[channels.WebPush]
	push.answer(func(_ context.Context, c channels.Credential, t channels.Target, _ channels.Life) channels.Result {
		if !strings.Contains(t.Address, c.Qualifier) {
			return channels.Result{Outcome: channels.Gone, Code: "webpush.key_mismatch", Status: 403, Doubtful: true, Resubscribe: true}
		}
		return accepted()
	})
	return push
}

func (k *kit) browser(user, key, known string) devices.Device {
	k.t.Helper()
	return k.device(user, "https://push.example/"+key+"/"+user, channels.WebPush, func(d *devices.Device) { d.VAPIDKey = known })
}

func (k *kit) keyOf(d devices.Device) string {
	k.t.Helper()
	got, err := k.store.Device(k.ctx, k.tenant, d.ID)
	require.NoError(k.t, err)
	return got.VAPIDKey
}

// TestTheKeyOfASubscriptionIsLearned: by a free attempt with each pair of the app,
// and once.
func TestTheKeyOfASubscriptionIsLearned(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	push := k.bound()
	k.credential(channels.WebPush, "first")
	old := k.browser("alice", "first", "")
	k.credential(channels.WebPush, "second")
	k.credential(channels.WebPush, "third")
	v := k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, 1, v.Spent, "whatever was tried before was free")
	require.Equal(t, "first", k.keyOf(old))
	tried := len(push.attempts())
	require.LessOrEqual(t, tried, 3)
	k.ends(k.post(toUser("alice")), 0, delivery.Sent, delivery.NoReason)
	require.Len(t, push.attempts(), tried+1, "it is known now")
	require.Equal(t, devices.Active, k.statusOf(old))

	// What a client says may be wrong: then it is found out in the same way.
	wrong := k.browser("bob", "second", "third")
	k.ends(k.post(toUser("bob")), 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, "second", k.keyOf(wrong))
	k.sound()
}

// TestOldBrowsersSurviveARotation: twenty-four of them, in twelve rounds, while new
// ones are served all the time. None of them loses anything.
func TestOldBrowsersSurviveARotation(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	k.bound()
	k.credential(channels.WebPush, "old")
	const browsers = 24
	var list []devices.Device
	for i := range browsers {
		list = append(list, k.browser(fmt.Sprint("old-", i), "old", ""))
	}
	k.credential(channels.WebPush, "new")
	for range 12 {
		k.browser("new", "new", "new")
		k.ends(k.post(toUser("new")), 0, delivery.Sent, delivery.NoReason)
		for i := range browsers {
			k.ends(k.post(toUser(fmt.Sprint("old-", i))), 0, delivery.Sent, delivery.NoReason)
		}
	}
	for _, d := range list {
		require.Equal(t, devices.Active, k.statusOf(d))
		require.Equal(t, "old", k.keyOf(d))
	}
	k.sound()
}

// TestNoPairOfTheApp: a browser whose pair the app has not is in doubt by itself. No
// success of others retires it, and it is tried again when a pair is put.
func TestNoPairOfTheApp(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	push := k.bound()
	k.credential(channels.WebPush, "one")
	k.credential(channels.WebPush, "two")
	lost := k.browser("lost", "three", "")
	k.browser("fine", "two", "two")
	r := k.post(toUser("lost"))
	v := k.ends(r, 0, delivery.Held, delivery.InDoubt)
	require.Zero(t, v.Spent)
	require.Len(t, push.attempts(), 2, "one with each pair")
	require.Equal(t, devices.Suspect, k.statusOf(lost))
	for range 30 {
		k.ends(k.post(toUser("fine")), 0, delivery.Sent, delivery.NoReason)
	}
	require.Equal(t, devices.Suspect, k.statusOf(lost))
	k.ends(r, 0, delivery.Held, delivery.InDoubt)
	k.credential(channels.WebPush, "three")
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	require.Equal(t, devices.Active, k.statusOf(lost))
	require.Equal(t, "three", k.keyOf(lost))
	k.sound()
}

// TestWhatTheBrowserMadeAnewIsReached: the delivery that waits in doubt goes to the
// subscription that the browser has by then.
func TestWhatTheBrowserMadeAnewIsReached(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, nil)
	k.bound()
	k.credential(channels.WebPush, "one")
	installed := func(d *devices.Device) { d.InstallationID = "i" }
	k.device("lost", "https://push.example/elsewhere", channels.WebPush, installed)
	r := k.post(toUser("lost"))
	k.ends(r, 0, delivery.Held, delivery.InDoubt)
	clock.advance(time.Second)
	k.device("lost", "https://push.example/one", channels.WebPush, installed)
	clock.advance(time.Minute)
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	k.sound()
}

// TestABrowserOfADeletedPairIsReachedWhenItComesBack: what waits for it goes to the
// subscription that it has made with another pair.
func TestABrowserOfADeletedPairIsReachedWhenItComesBack(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	k := newKitAt(t, clock.now, nil)
	k.bound()
	old := k.credential(channels.WebPush, "old")
	installed := func(key string) func(*devices.Device) {
		return func(d *devices.Device) { d.InstallationID, d.VAPIDKey = "i", key }
	}
	k.device("late", "https://push.example/old", channels.WebPush, installed("old"))
	k.credential(channels.WebPush, "new")
	require.NoError(t, k.store.DeleteCredential(k.ctx, k.tenant, old.ID, tenants.Change{Actor: "bob", Action: "credential.delete"}))
	k.engine.CredentialsChanged(k.tenant)
	r := k.post(toUser("late"))
	k.ends(r, 0, delivery.Held, delivery.InDoubt)
	clock.advance(time.Second)
	k.device("late", "https://push.example/new", channels.WebPush, installed("new"))
	clock.advance(time.Minute)
	k.ends(r, 0, delivery.Sent, delivery.NoReason)
	k.sound()
}
