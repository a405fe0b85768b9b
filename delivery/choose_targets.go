package delivery

import (
	"slices"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

// Resolution is what the names in a request stand for.
type Resolution struct {
	Users   map[string]ids.ID // those that exist
	Devices []devices.Device  // of the users, and the named ones
	// Endpoints are the named ones, those bound to the users, and with
	// subscribers all unbound ones. Their secrets are left out.
	Endpoints []BoundEndpoint
	// Through is the last id of what was read; 0: that is all there is. Where a look-up is
	// not paged it only says that there are more.
	Through ids.ID
}

// BoundEndpoint is an endpoint with the internal id of its user.
type BoundEndpoint struct {
	webhooks.Endpoint
	UserID ids.ID // 0: unbound
}

// choice is a target that a notification goes to.
type choice struct {
	ref    DeliveryRef
	userID ids.ID
	target TargetNow
}

// chooser turns what a request names into targets and skips. It reads nothing
// and writes nothing, so that a dry run says exactly what a send would do.
type chooser struct {
	req  *Request
	look Lookup
	res  Resolution
	part bool // of a fan-out
	now  time.Time
	// purposes are those of the addresses that are meant; all, where a channel has
	// no entry.
	purposes map[channels.Kind]channels.Purpose
	choices  []choice
	skips    []Skip
	seen     map[ids.ID]bool
	// repeats is how many of the choices are of an installation that another choice
	// stands for.
	repeats int
}

// wantsSubscribers: unbound endpoints that subscribe to the type are reached
// when channels names webhook, or when nothing is named at all.
func (r *Request) wantsSubscribers() bool {
	return r.Type != "" && (slices.Contains(r.Channels, channels.Webhook) || r.To.Empty())
}

func (r *Request) wants(k channels.Kind) bool {
	return len(r.Channels) == 0 || slices.Contains(r.Channels, k)
}

func (f *chooser) run() {
	f.seen = make(map[ids.ID]bool, len(f.res.Devices)+len(f.res.Endpoints))
	f.users()
	f.devices()
	f.endpoints()
}

// targets counts an installation once.
func (f *chooser) targets() int { return len(f.choices) - f.repeats }

// tooMany: they are not stored at once.
func (f *chooser) tooMany() bool { return f.res.Through != 0 || f.targets() > MaxTargets }

// refuse says why what was chosen cannot be accepted.
func (f *chooser) refuse() error {
	if n := f.targets(); f.req.Urgent && (n > MaxUrgent || f.tooMany()) {
		return problem.AtField("urgent", "is for at most %d targets, this one has %d or more", MaxUrgent, n)
	}
	return nil
}

func (f *chooser) users() {
	for i, user := range f.look.Users {
		if slices.Contains(f.look.Users[:i], user) {
			continue
		}
		id, known := f.res.Users[user]
		if !known {
			f.skips = append(f.skips, Skip{User: user, Reason: SkipUnknownUser})
			continue
		}
		reached := map[channels.Kind]bool{}
		retired := map[channels.Kind]bool{}
		f.userDevices(id, reached, retired)
		// The event types of a user's endpoint narrow what it gets of what goes to the
		// user: without any that is all.
		if f.req.wants(channels.Webhook) {
			for i := range f.res.Endpoints {
				if e := &f.res.Endpoints[i]; e.UserID == id && (len(e.EventTypes) == 0 || f.subscribes(e)) {
					reached[channels.Webhook] = true
					f.addEndpoint(e)
				}
			}
		}
		if f.look.After == 0 && f.res.Through == 0 { // else this is not all there is of the user
			f.skipUser(user, reached, retired)
		}
	}
}

// userDevices picks one device per installation, or each of its Live Activities.
// What else the installation has counts as reached: it is the same device. A token
// for another purpose is as if it were not there.
func (f *chooser) userDevices(user ids.ID, reached, retired map[channels.Kind]bool) {
	best := map[[2]string]*devices.Device{}
	var order, activities []*devices.Device
	for i := range f.res.Devices {
		d := &f.res.Devices[i]
		if d.UserID != user || !f.req.wants(d.Channel) || !f.fits(d) {
			continue
		}
		if !f.alive(d) {
			retired[d.Channel] = true
			continue
		}
		reached[d.Channel] = true
		if d.InstallationID == "" {
			order = append(order, d)
			continue
		}
		key := [2]string{d.App, d.InstallationID}
		switch known := best[key]; {
		case known == nil:
			order = append(order, d)
			best[key] = d
		case d.ActivityID != "" && known.ActivityID != "":
			activities = append(activities, d)
		case better(d, known):
			order[slices.Index(order, known)] = d
			best[key] = d
		}
	}
	for _, d := range append(order, activities...) {
		f.addDevice(d)
	}
	f.repeats += len(activities)
}

// fits tells whether a user's device is for what is sent.
func (f *chooser) fits(d *devices.Device) bool {
	purpose, has := f.purposes[d.Channel]
	return !has || d.Purpose == purpose && (f.req.To.ActivityID == "" || d.ActivityID == f.req.To.ActivityID)
}

// mayFit tells whether a named device can be for what is sent. Whoever names one
// that was registered without a purpose is believed.
func (f *chooser) mayFit(d *devices.Device) bool {
	return f.fits(d) || d.Purpose == channels.Alert
}

// better: on Apple's systems APNs before FCM, and an installation id before a
// token; otherwise the younger registration.
func better(a, b *devices.Device) bool {
	rank := func(d *devices.Device) int {
		switch {
		case d.Channel == channels.APNs:
			return 3
		case d.Target.Kind == channels.FCMFid:
			return 2
		case d.Channel == channels.FCM:
			return 1
		}
		return 0
	}
	if ra, rb := rank(a), rank(b); ra != rb {
		return ra > rb
	}
	return a.ID > b.ID
}

func (f *chooser) alive(d *devices.Device) bool {
	return d.Status != devices.Retired && (d.ExpiresAt.IsZero() || d.ExpiresAt.After(f.now))
}

// skipUser leaves a skip for each wanted channel that does not reach the user:
// for each that was named, or one for all when none was.
func (f *chooser) skipUser(user string, reached, retired map[channels.Kind]bool) {
	reason := func(k channels.Kind) SkipReason {
		if retired[k] {
			return SkipRetired
		}
		return SkipNoDevice
	}
	if len(f.req.Channels) > 0 {
		for _, k := range f.req.Channels {
			// A user need not have an endpoint of his own: subscribers have it.
			if !reached[k] && (k != channels.Webhook || !f.req.wantsSubscribers()) {
				f.skips = append(f.skips, Skip{User: user, Channel: k, Reason: reason(k)})
			}
		}
		return
	}
	if len(reached) == 0 {
		why := SkipNoDevice
		if len(retired) > 0 {
			why = SkipRetired
		}
		f.skips = append(f.skips, Skip{User: user, Reason: why})
	}
}

func (f *chooser) devices() {
	for _, id := range f.look.Devices {
		i := slices.IndexFunc(f.res.Devices, func(d devices.Device) bool { return d.ID == id })
		switch {
		case i < 0:
			f.skips = append(f.skips, Skip{Target: id, Reason: SkipUnknownTarget})
		case !f.alive(&f.res.Devices[i]):
			f.skips = append(f.skips, Skip{Target: id, Channel: f.res.Devices[i].Channel, Reason: SkipRetired})
		case !f.req.wants(f.res.Devices[i].Channel):
			f.skips = append(f.skips, Skip{Target: id, Channel: f.res.Devices[i].Channel, Reason: SkipNoDevice})
		case !f.mayFit(&f.res.Devices[i]):
			f.skips = append(f.skips, Skip{Target: id, Channel: f.res.Devices[i].Channel, Reason: SkipOtherPurpose})
		default:
			f.addDevice(&f.res.Devices[i])
		}
	}
}

func (f *chooser) endpoints() {
	for _, id := range f.look.Endpoints {
		i := slices.IndexFunc(f.res.Endpoints, func(e BoundEndpoint) bool { return e.ID == id })
		if i < 0 {
			f.skips = append(f.skips, Skip{Target: id, Channel: channels.Webhook, Reason: SkipUnknownTarget})
			continue
		}
		f.addEndpoint(&f.res.Endpoints[i])
	}
	if !f.look.Subscribers {
		return
	}
	found := false
	for i := range f.res.Endpoints {
		e := &f.res.Endpoints[i]
		if e.UserID != 0 || !f.subscribes(e) {
			continue
		}
		found = true
		if f.req.Sensitive && !f.seen[e.ID] {
			f.skips = append(f.skips, Skip{Target: e.ID, Channel: channels.Webhook, Reason: SkipSensitive})
			continue
		}
		f.addEndpoint(e)
	}
	if !found && !f.part && len(f.choices) == 0 && len(f.skips) == 0 {
		f.skips = append(f.skips, Skip{Channel: channels.Webhook, Reason: SkipNoSubscriber})
	}
}

// subscribes: without a type there is nothing to subscribe to but everything.
func (f *chooser) subscribes(e *BoundEndpoint) bool {
	if f.req.Type == "" {
		return slices.Contains(e.EventTypes, "*")
	}
	return e.Matches(f.req.Type)
}

func (f *chooser) addDevice(d *devices.Device) {
	if f.seen[d.ID] {
		return
	}
	f.seen[d.ID] = true
	f.choices = append(f.choices, choice{
		ref: DeliveryRef{Target: d.ID, Channel: d.Channel, User: d.User}, userID: d.UserID,
		target: TargetNow{Exists: true, UserID: d.UserID, Epoch: d.Epoch, Device: d.Status, App: d.App, Channel: d.Channel,
			VAPIDKey: d.VAPIDKey, Target: d.Target, CreatedAt: d.ID.Time(), ReadAt: f.now, ExpiresAt: d.ExpiresAt},
	})
}

func (f *chooser) addEndpoint(e *BoundEndpoint) {
	if f.seen[e.ID] {
		return
	}
	f.seen[e.ID] = true
	// Where it is reached and its secrets are not read here, so ReadAt stays zero: the worker reads the
	// endpoint itself.
	f.choices = append(f.choices, choice{
		ref: DeliveryRef{Target: e.ID, Channel: channels.Webhook, User: e.User}, userID: e.UserID,
		target: TargetNow{Exists: true, UserID: e.UserID, Channel: channels.Webhook,
			Target: channels.Target{Kind: channels.URL}},
	})
}
