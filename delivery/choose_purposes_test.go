package delivery

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// household is alice (1) with a phone that has a token for everything and a
// tablet with FCM and an alert token; bob (2) with an alert token alone; and carol
// (3), whose only Live Activity is over.
func household() Resolution {
	names := map[ids.ID]string{1: "alice", 2: "bob", 3: "carol"}
	token := func(id, user ids.ID, installation string, p channels.Purpose, activity string) devices.Device {
		return devices.Device{ID: id, UserID: user, User: names[user], App: "default", Channel: channels.APNs, Status: devices.Active, Epoch: 1,
			InstallationID: installation, Purpose: p, ActivityID: activity, Target: channels.Target{Kind: channels.APNsToken}}
	}
	fcm := func(id, user ids.ID, installation string) devices.Device {
		d := token(id, user, installation, channels.Alert, "")
		d.Channel, d.Target.Kind = channels.FCM, channels.FCMToken
		return d
	}
	over := token(31, 3, "phone", channels.Activity, "match")
	over.ExpiresAt = at
	return Resolution{
		Users: map[string]ids.ID{"alice": 1, "bob": 2, "carol": 3},
		Devices: []devices.Device{
			fcm(10, 1, "phone"),
			token(11, 1, "phone", channels.Alert, ""), token(12, 1, "phone", channels.VoIP, ""), token(13, 1, "phone", channels.PushToStart, ""),
			token(14, 1, "phone", channels.Activity, "match"), token(15, 1, "phone", channels.Activity, "order"), token(16, 1, "phone", channels.Widget, ""),
			token(17, 1, "tablet", channels.Alert, ""), fcm(18, 1, "tablet"),
			token(21, 2, "", channels.Alert, ""),
			over,
		},
	}
}

func TestAPushReachesTheTokensThatAreForIt(t *testing.T) {
	t.Parallel()
	const apns = channels.APNs
	users := func(u ...string) To { return To{Users: u} }
	only := []channels.Kind{apns}
	for name, x := range map[string]struct {
		r       Request
		purpose channels.Purpose
		want    []ids.ID
		skips   []Skip
	}{
		"an alert":              {r: Request{To: users("alice"), Channels: only}, purpose: channels.Alert, want: []ids.ID{11, 17}},
		"a call":                {r: Request{To: users("alice"), Channels: only}, purpose: channels.VoIP, want: []ids.ID{12}},
		"the start of one":      {r: Request{To: users("alice"), Channels: only}, purpose: channels.PushToStart, want: []ids.ID{13}},
		"each Live Activity":    {r: Request{To: users("alice"), Channels: only}, purpose: channels.Activity, want: []ids.ID{14, 15}},
		"one Live Activity":     {r: Request{To: To{Users: []string{"alice"}, ActivityID: "order"}, Channels: only}, purpose: channels.Activity, want: []ids.ID{15}},
		"a widget":              {r: Request{To: users("alice"), Channels: only}, purpose: channels.Widget, want: []ids.ID{16}},
		"once per installation": {r: Request{To: users("alice")}, purpose: channels.Alert, want: []ids.ID{11, 17}},
		"APNs before FCM":       {r: Request{To: users("alice")}, purpose: channels.VoIP, want: []ids.ID{12, 18}},
		"and for each activity": {r: Request{To: users("alice")}, purpose: channels.Activity, want: []ids.ID{14, 18, 15}},

		"a call to nobody": {r: Request{To: users("bob"), Channels: only}, purpose: channels.VoIP, skips: []Skip{{User: "bob", Channel: apns, Reason: SkipNoDevice}}},
		"an unknown activity": {r: Request{To: To{Users: []string{"alice"}, ActivityID: "x"}, Channels: only}, purpose: channels.Activity,
			skips: []Skip{{User: "alice", Channel: apns, Reason: SkipNoDevice}}},
		"one that is over":       {r: Request{To: users("carol")}, purpose: channels.Activity, skips: []Skip{{User: "carol", Reason: SkipRetired}}},
		"nor does it get alerts": {r: Request{To: users("carol")}, purpose: channels.Alert, skips: []Skip{{User: "carol", Reason: SkipNoDevice}}},

		"named tokens": {r: Request{To: To{Devices: []ids.ID{12, 14}}}, purpose: channels.VoIP, want: []ids.ID{12},
			skips: []Skip{{Target: 14, Channel: apns, Reason: SkipOtherPurpose}}},
		"an alert to a named call token": {r: Request{To: To{Devices: []ids.ID{12}}}, purpose: channels.Alert,
			skips: []Skip{{Target: 12, Channel: apns, Reason: SkipOtherPurpose}}},
		"who names a token without a purpose is believed": {r: Request{To: To{Devices: []ids.ID{21, 10}}}, purpose: channels.VoIP, want: []ids.ID{21, 10}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := choosing(chooser{req: &x.r, res: household(), now: at, purposes: map[channels.Kind]channels.Purpose{apns: x.purpose}})
			require.NoError(t, f.refuse())
			var got []ids.ID
			for _, c := range f.choices {
				got = append(got, c.ref.Target)
			}
			require.Equal(t, x.want, got)
			require.Equal(t, x.skips, f.skips)
		})
	}
}

// TestLimitsCountInstallations: what else a phone has makes no more targets of it.
func TestLimitsCountInstallations(t *testing.T) {
	t.Parallel()
	res := Resolution{Users: map[string]ids.ID{"alice": 1}}
	for i := range MaxUrgent {
		for _, activity := range []string{"a", "b", "c"} {
			res.Devices = append(res.Devices, devices.Device{ID: ids.ID(len(res.Devices) + 1), UserID: 1, Channel: channels.APNs, Status: devices.Active,
				InstallationID: string(rune('A' + i)), Purpose: channels.Activity, ActivityID: activity})
		}
	}
	run := func() (*chooser, error) {
		f := choosing(chooser{req: &Request{To: To{Users: []string{"alice"}}, Urgent: true}, res: res, now: at,
			purposes: map[channels.Kind]channels.Purpose{channels.APNs: channels.Activity}})
		err := f.refuse()
		return f, err
	}
	f, err := run()
	require.NoError(t, err)
	require.Len(t, f.choices, 3*MaxUrgent)
	res.Devices = append(res.Devices, devices.Device{ID: 999, UserID: 1, Channel: channels.APNs, Status: devices.Active, Purpose: channels.Activity})
	_, err = run()
	var p *problem.Error
	require.ErrorAs(t, err, &p)
	require.Equal(t, "urgent", p.Fields[0].Path)
}

func TestAnActivityIsNamedWhereItCounts(t *testing.T) {
	t.Parallel()
	live := map[channels.Kind]channels.Purpose{channels.APNs: channels.Activity}
	long := strings.Repeat("a", devices.MaxActivityID+1)
	for name, x := range map[string]struct {
		to       To
		purposes map[channels.Kind]channels.Purpose
		fault    bool
	}{
		"none":              {To{Users: []string{"u"}}, nil, false},
		"of users":          {To{Users: []string{"u"}, ActivityID: "a"}, live, false},
		"of nobody":         {To{Devices: []ids.ID{1}, ActivityID: "a"}, live, true},
		"of an alert":       {To{Users: []string{"u"}, ActivityID: "a"}, map[channels.Kind]channels.Purpose{channels.APNs: channels.Alert}, true},
		"of a start":        {To{Users: []string{"u"}, ActivityID: "a"}, map[channels.Kind]channels.Purpose{channels.APNs: channels.PushToStart}, true},
		"while APNs is off": {To{Users: []string{"u"}, ActivityID: "a"}, nil, true},
		"too long":          {To{Users: []string{"u"}, ActivityID: long}, live, true},
	} {
		err := (&Request{To: x.to}).checkActivity(x.purposes)
		if !x.fault {
			require.NoError(t, err, name)
			continue
		}
		var p *problem.Error
		require.ErrorAs(t, err, &p, name)
		require.Equal(t, "to.activity_id", p.Fields[0].Path, name)
	}
}
