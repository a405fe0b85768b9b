package delivery

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

// town is who and what the routing tests know: alice (1) and bob (2) with
// devices and endpoints, carol (3) with nothing.
func town() Resolution {
	device := func(id, user ids.ID, k channels.Kind, edit func(*devices.Device)) devices.Device {
		d := devices.Device{ID: id, UserID: user, User: map[ids.ID]string{1: "alice", 2: "bob"}[user], App: "default", Channel: k, Status: devices.Active,
			Epoch: 1, Target: channels.Target{Kind: channels.FCMToken, Address: "a" + strconv.Itoa(int(id))}}
		if edit != nil {
			edit(&d)
		}
		return d
	}
	endpoint := func(id, user ids.ID, types ...string) BoundEndpoint {
		return BoundEndpoint{UserID: user, Endpoint: webhooks.Endpoint{ID: id, User: map[ids.ID]string{1: "alice", 2: "bob"}[user], Status: webhooks.Active,
			URL: "https://e.example", EventTypes: types}}
	}
	return Resolution{
		Users: map[string]ids.ID{"alice": 1, "bob": 2, "carol": 3, "dave": 4, "erin": 5},
		Devices: []devices.Device{
			device(11, 1, channels.FCM, nil),
			device(12, 1, channels.APNs, nil),
			device(13, 1, channels.WebPush, func(d *devices.Device) { d.Status = devices.Suspect }),
			device(21, 2, channels.FCM, nil),
			device(22, 2, channels.APNs, func(d *devices.Device) { d.Status = devices.Retired }),
			device(41, 4, channels.FCM, func(d *devices.Device) { d.User, d.Status = "dave", devices.Retired }),
			device(42, 4, channels.WebPush, func(d *devices.Device) { d.User, d.ExpiresAt = "dave", at }),
			// Erin has one phone and one tablet: two installations, four addresses.
			device(51, 5, channels.FCM, func(d *devices.Device) { d.User, d.InstallationID = "erin", "phone" }),
			device(52, 5, channels.APNs, func(d *devices.Device) { d.User, d.InstallationID = "erin", "phone" }),
			device(53, 5, channels.FCM, func(d *devices.Device) { d.User, d.InstallationID, d.Target.Kind = "erin", "tablet", channels.FCMFid }),
			device(54, 5, channels.FCM, func(d *devices.Device) { d.User, d.InstallationID = "erin", "tablet" }),
		},
		Endpoints: []BoundEndpoint{
			endpoint(101, 1, "*"), endpoint(102, 1, "order.*"), endpoint(103, 1),
			endpoint(201, 0, "order.*"), endpoint(202, 0, "*"), endpoint(203, 0, "user.created"), endpoint(204, 0),
		},
	}
}

func TestRouting(t *testing.T) {
	t.Parallel()
	const fcm, apns, push, hook = channels.FCM, channels.APNs, channels.WebPush, channels.Webhook
	users := func(u ...string) To { return To{Users: u} }
	kinds := func(k ...channels.Kind) []channels.Kind { return k }
	for name, x := range map[string]struct {
		r     Request
		want  []ids.ID
		skips []Skip
	}{
		"all that a user has":       {r: Request{To: users("alice")}, want: []ids.ID{11, 12, 13, 101, 103}},
		"with a type":               {r: Request{To: users("alice"), Type: "order.paid"}, want: []ids.ID{11, 12, 13, 101, 102, 103}},
		"another type":              {r: Request{To: users("alice"), Type: "user.created"}, want: []ids.ID{11, 12, 13, 101, 103}},
		"one channel":               {r: Request{To: users("alice"), Channels: kinds(fcm)}, want: []ids.ID{11}},
		"two channels":              {r: Request{To: users("alice"), Channels: kinds(push, apns)}, want: []ids.ID{12, 13}},
		"a user twice":              {r: Request{To: users("alice", "alice")}, want: []ids.ID{11, 12, 13, 101, 103}},
		"retired ones do not count": {r: Request{To: users("bob")}, want: []ids.ID{21}},

		"webhook without a type":     {r: Request{To: users("alice"), Channels: kinds(hook)}, want: []ids.ID{101, 103}},
		"webhook with a type":        {r: Request{To: users("alice"), Channels: kinds(hook), Type: "order.paid"}, want: []ids.ID{101, 102, 103, 201, 202}},
		"a user without an endpoint": {r: Request{To: users("bob"), Channels: kinds(fcm, hook), Type: "order.paid"}, want: []ids.ID{21, 201, 202}},
		"nor subscribers": {r: Request{To: users("bob"), Channels: kinds(fcm, hook)}, want: []ids.ID{21},
			skips: []Skip{{User: "bob", Channel: hook, Reason: SkipNoDevice}}},

		"subscribers":          {r: Request{Type: "order.paid"}, want: []ids.ID{201, 202}},
		"a type named exactly": {r: Request{Type: "user.created"}, want: []ids.ID{202, 203}},
		"subscribers, named":   {r: Request{Type: "order.paid", Channels: kinds(hook)}, want: []ids.ID{201, 202}},
		"sensitive goes to nobody unbound": {r: Request{Type: "order.paid", Sensitive: true},
			skips: []Skip{{Target: 201, Channel: hook, Reason: SkipSensitive}, {Target: 202, Channel: hook, Reason: SkipSensitive}}},
		"sensitive goes to bound ones": {r: Request{To: users("alice"), Type: "order.paid", Sensitive: true}, want: []ids.ID{11, 12, 13, 101, 102, 103}},
		"sensitive goes to named ones": {r: Request{To: To{Endpoints: []ids.ID{201}}, Type: "order.paid", Channels: kinds(hook), Sensitive: true},
			want: []ids.ID{201}, skips: []Skip{{Target: 202, Channel: hook, Reason: SkipSensitive}}},
		"a named endpoint once":       {r: Request{To: To{Endpoints: []ids.ID{201, 201, 204}}, Type: "order.paid", Channels: kinds(hook)}, want: []ids.ID{201, 204, 202}},
		"a named endpoint of a user":  {r: Request{To: To{Users: []string{"alice"}, Endpoints: []ids.ID{101}}, Channels: kinds(hook)}, want: []ids.ID{101, 103}},
		"named though not subscribed": {r: Request{To: To{Endpoints: []ids.ID{103, 204}}, Type: "x"}, want: []ids.ID{103, 204}},
		"an unknown endpoint":         {r: Request{To: To{Endpoints: []ids.ID{999}}}, skips: []Skip{{Target: 999, Channel: hook, Reason: SkipUnknownTarget}}},

		"named devices":         {r: Request{To: To{Devices: []ids.ID{11, 21, 11}}}, want: []ids.ID{11, 21}},
		"a device and its user": {r: Request{To: To{Users: []string{"bob"}, Devices: []ids.ID{21}}}, want: []ids.ID{21}},
		"a retired device":      {r: Request{To: To{Devices: []ids.ID{22}}}, skips: []Skip{{Target: 22, Channel: apns, Reason: SkipRetired}}},
		"an expired device":     {r: Request{To: To{Devices: []ids.ID{42}}}, skips: []Skip{{Target: 42, Channel: push, Reason: SkipRetired}}},
		"an unknown device":     {r: Request{To: To{Devices: []ids.ID{999}}}, skips: []Skip{{Target: 999, Reason: SkipUnknownTarget}}},
		"a device of another channel": {r: Request{To: To{Devices: []ids.ID{11}}, Channels: kinds(apns)},
			skips: []Skip{{Target: 11, Channel: fcm, Reason: SkipNoDevice}}},

		"an unknown user":     {r: Request{To: users("nobody")}, skips: []Skip{{User: "nobody", Reason: SkipUnknownUser}}},
		"a user with nothing": {r: Request{To: users("carol")}, skips: []Skip{{User: "carol", Reason: SkipNoDevice}}},
		"a user who has lost": {r: Request{To: users("dave")}, skips: []Skip{{User: "dave", Reason: SkipRetired}}},
		"by channel": {r: Request{To: users("dave", "carol"), Channels: kinds(fcm, apns)}, skips: []Skip{
			{User: "dave", Channel: fcm, Reason: SkipRetired}, {User: "dave", Channel: apns, Reason: SkipNoDevice},
			{User: "carol", Channel: fcm, Reason: SkipNoDevice}, {User: "carol", Channel: apns, Reason: SkipNoDevice}}},
		"some reached, some not": {r: Request{To: users("bob"), Channels: kinds(fcm, apns)}, want: []ids.ID{21}, skips: []Skip{{User: "bob", Channel: apns, Reason: SkipRetired}}},

		"one delivery per installation":   {r: Request{To: users("erin")}, want: []ids.ID{52, 53}},
		"unless a channel is named":       {r: Request{To: users("erin"), Channels: kinds(fcm)}, want: []ids.ID{51, 53}},
		"the other one counts as reached": {r: Request{To: users("erin"), Channels: kinds(fcm, apns)}, want: []ids.ID{52, 53}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := choosing(chooser{req: &x.r, res: town(), now: at})
			require.NoError(t, f.refuse())
			var got []ids.ID
			for _, c := range f.choices {
				got = append(got, c.ref.Target)
				require.True(t, c.target.Exists)
				require.Equal(t, c.ref.Channel, c.target.Channel)
				require.Equal(t, c.userID, c.target.UserID)
			}
			require.Equal(t, x.want, got)
			require.Equal(t, x.skips, f.skips)
		})
	}
}

// choosing chooses from all that a request names.
func choosing(f chooser) *chooser {
	f.look = Lookup{To: f.req.To, Subscribers: f.req.wantsSubscribers()}
	f.run()
	return &f
}

func TestAnEventThatNobodyWants(t *testing.T) {
	t.Parallel()
	f := choosing(chooser{req: &Request{Type: "order.paid"}, res: Resolution{}, now: at})
	require.NoError(t, f.refuse())
	require.Empty(t, f.choices)
	require.Equal(t, []Skip{{Channel: channels.Webhook, Reason: SkipNoSubscriber}}, f.skips)
}

func TestWhatADeliveryKnowsOfItsTarget(t *testing.T) {
	t.Parallel()
	res := town()
	res.Endpoints[0].Status = webhooks.Paused
	res.Devices[0].VAPIDKey, res.Devices[0].ExpiresAt, res.Devices[0].Epoch = "key", in(time.Hour), 4
	f := choosing(chooser{req: &Request{To: To{Users: []string{"alice"}}}, res: res, now: at})
	require.NoError(t, f.refuse())
	require.Equal(t, choice{ref: DeliveryRef{Target: 11, Channel: channels.FCM, User: "alice"}, userID: 1, target: TargetNow{Exists: true, UserID: 1, Epoch: 4,
		Device: devices.Active, App: "default", Channel: channels.FCM, VAPIDKey: "key", Target: res.Devices[0].Target, CreatedAt: ids.ID(11).Time(), ReadAt: at, ExpiresAt: in(time.Hour)}}, f.choices[0])
	hook := f.choices[3]
	require.Equal(t, DeliveryRef{Target: 101, Channel: channels.Webhook, User: "alice"}, hook.ref)
	require.Zero(t, hook.target.ReadAt, "its secrets are still to be read")
}

func TestLimitsOfOneNotification(t *testing.T) {
	t.Parallel()
	crowd := func(n int) Resolution {
		r := Resolution{Users: map[string]ids.ID{"alice": 1}}
		for i := range n {
			r.Devices = append(r.Devices, devices.Device{ID: ids.ID(i + 1), UserID: 1, Channel: channels.FCM, Status: devices.Active})
		}
		return r
	}
	for _, x := range []struct {
		n      int
		urgent bool
		path   string
		many   bool
	}{{MaxTargets, false, "", false}, {MaxTargets + 1, false, "", true}, {MaxUrgent, true, "", false}, {MaxUrgent + 1, true, "urgent", false}} {
		f := choosing(chooser{req: &Request{To: To{Users: []string{"alice"}}, Urgent: x.urgent}, res: crowd(x.n), now: at})
		err := f.refuse()
		require.Equal(t, x.many, f.tooMany())
		if x.path == "" {
			require.NoError(t, err)
			require.Len(t, f.choices, x.n)
			continue
		}
		var p *problem.Error
		require.ErrorAs(t, err, &p)
		require.Equal(t, x.path, p.Fields[0].Path)
	}
}

func TestTheBetterAddressOfAnInstallation(t *testing.T) {
	t.Parallel()
	d := func(id ids.ID, k channels.Kind, kind channels.AddressKind) *devices.Device {
		return &devices.Device{ID: id, Channel: k, Target: channels.Target{Kind: kind}}
	}
	ranked := []*devices.Device{
		d(1, channels.APNs, channels.APNsToken), d(2, channels.FCM, channels.FCMFid), d(4, channels.FCM, channels.FCMToken), d(3, channels.FCM, channels.FCMToken),
		d(5, channels.WebPush, channels.Subscription),
	}
	for i, a := range ranked {
		for k, b := range ranked {
			require.Equal(t, i < k, better(a, b), "%d before %d", i, k)
		}
	}
}
