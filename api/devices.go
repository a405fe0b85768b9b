package api

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// Devices is the registry of devices. devices.Registry is one.
type Devices interface {
	DeviceExport
	Register(ctx context.Context, tenant ids.ID, in devices.Registration) (devices.Registered, error)
	RegisterAll(ctx context.Context, tenant ids.ID, list []devices.Registration, by devices.Caller) ([]devices.Registered, error)
	Device(ctx context.Context, tenant, id ids.ID) (devices.Device, error)
	DeviceWindow(ctx context.Context, tenant ids.ID, f devices.Filter) (ids.ID, error)
	Devices(ctx context.Context, tenant ids.ID, f devices.Filter) ([]devices.Device, error)
	Update(ctx context.Context, tenant, id ids.ID, p devices.Patch) (devices.Device, error)
	History(ctx context.Context, tenant, id ids.ID) ([]devices.Event, error)
	Delete(ctx context.Context, tenant, id ids.ID, user, actor string) error
	DeleteAddress(ctx context.Context, tenant ids.ID, key devices.AddressKey, user, actor string) error
}

// Device is a device as it is shown. The keys of a subscription are not.
type Device struct {
	ID             string            `json:"id" example:"dev_0d1kq3w8r000c"`
	User           string            `json:"user"`
	App            string            `json:"app"`
	Channel        string            `json:"channel" enum:"fcm,apns,webpush"`
	Kind           string            `json:"kind" enum:"token,fid,apns,subscription"`
	Address        string            `json:"address" doc:"Token, installation id, or endpoint of the subscription"`
	Environment    string            `json:"environment,omitempty" enum:"production,sandbox,auto" doc:"APNs only"`
	Purpose        string            `json:"purpose,omitempty" enum:"alert,voip,push_to_start,activity,widget" doc:"APNs only: what the token is for"`
	ActivityID     string            `json:"activity_id,omitempty" doc:"Of the purpose activity: your own id of the Live Activity"`
	VAPIDKey       string            `json:"vapid_key,omitempty" doc:"Web push: the VAPID public key that the subscription is bound to; absent: not known yet"`
	InstallationID string            `json:"installation_id,omitempty"`
	OS             string            `json:"os,omitempty"`
	AppVersion     string            `json:"app_version,omitempty"`
	Locale         string            `json:"locale,omitempty"`
	TimeZone       string            `json:"time_zone,omitempty"`
	Tags           map[string]string `json:"tags,omitempty"`
	Status         string            `json:"status" enum:"active,suspect,retired"`
	Reason         string            `json:"reason,omitempty" doc:"Why it is suspect or retired"`
	StatusAt       time.Time         `json:"status_at,omitzero"`
	RegisteredAt   time.Time         `json:"registered_at,omitzero"`
	LastSeenAt     time.Time         `json:"last_seen_at,omitzero"`
	ExpiresAt      time.Time         `json:"expires_at,omitzero" doc:"Of a subscription, or the end of a Live Activity: it gets nothing from then on"`
	CreatedAt      time.Time         `json:"created_at"`
	UpdatedAt      time.Time         `json:"updated_at"`
}

// DeviceRegistered is what became of a registration.
type DeviceRegistered struct {
	Device
	Created  bool `json:"created" doc:"The address was not known before"`
	Rebound  bool `json:"rebound" doc:"It belonged to another user, who has lost it now"`
	Replaced bool `json:"replaced" doc:"An older address of the same installation gave way to it"`
}

// DevicePut registers a device for a user.
type DevicePut struct {
	User string `json:"user" maxLength:"255" doc:"Your own id of the user"`
	DeviceAddress
}

// DeviceAddress is where a device is and what it is: exactly one of token, fid
// and subscription.
type DeviceAddress struct {
	App            string            `json:"app,omitempty" maxLength:"63" doc:"default where absent"`
	Channel        channels.Kind     `json:"channel,omitzero" enum:"fcm,apns,webpush" doc:"Needed with token; fid is fcm, subscription is webpush"`
	Token          string            `json:"token,omitempty" doc:"Registration token of FCM, or device token of APNs in hexadecimal"`
	FID            string            `json:"fid,omitempty" doc:"Firebase installation id"`
	Subscription   *Subscription     `json:"subscription,omitempty" doc:"What PushSubscription.toJSON() gives"`
	Environment    string            `json:"environment,omitempty" enum:"production,sandbox,auto" doc:"APNs only"`
	Purpose        string            `json:"purpose,omitempty" enum:"alert,voip,push_to_start,activity,widget" doc:"APNs only: what the token is for; alert where absent"`
	ActivityID     string            `json:"activity_id,omitempty" maxLength:"128" doc:"Your own id of the Live Activity; needed for the purpose activity, and for no other"`
	ExpiresAt      time.Time         `json:"expires_at,omitzero" doc:"Of the purpose activity only: when it ends; 12 hours from now where absent"`
	InstallationID string            `json:"installation_id,omitempty" maxLength:"255" doc:"The same for all addresses of one installation of the app: a new address then replaces the old one of the same channel, purpose and activity"`
	OS             string            `json:"os,omitempty" maxLength:"32" example:"ios"`
	AppVersion     string            `json:"app_version,omitempty" maxLength:"64"`
	Locale         string            `json:"locale,omitempty" doc:"BCP 47" example:"de-CH"`
	TimeZone       string            `json:"time_zone,omitempty" doc:"IANA" example:"Europe/Zurich"`
	Tags           map[string]string `json:"tags,omitempty" maxProperties:"32"`
	RegisteredAt   time.Time         `json:"registered_at,omitzero" doc:"When the app got the address from its push service"`
	LastSeenAt     time.Time         `json:"last_seen_at,omitzero"`
}

// DevicePatch changes the members that are present.
type DevicePatch struct {
	AppVersion *string            `json:"app_version,omitempty" maxLength:"64"`
	Locale     *string            `json:"locale,omitempty" doc:"BCP 47" example:"de-CH"`
	TimeZone   *string            `json:"time_zone,omitempty" doc:"IANA" example:"Europe/Zurich"`
	Tags       map[string]*string `json:"tags,omitempty" doc:"Those that are named; null takes one away. A device has 32 at most"`
}

// Subscription is a PushSubscription of a browser.
type Subscription struct {
	Endpoint       string           `json:"endpoint"`
	ExpirationTime *float64         `json:"expirationTime,omitempty" nullable:"true" doc:"Milliseconds since 1970, or null"`
	Keys           SubscriptionKeys `json:"keys"`
	VAPIDKey       string           `json:"vapid_key,omitempty" doc:"The applicationServerKey that the browser subscribed with, base64url; one of the app's own. Absent: learned by the first send"`
}

// SubscriptionKeys are the keys of a subscription, in base64url.
type SubscriptionKeys struct {
	P256dh string `json:"p256dh"`
	Auth   string `json:"auth"`
}

type deviceList struct {
	Paging
	User    string `query:"user" maxLength:"255"`
	App     string `query:"app" maxLength:"63"`
	Channel string `query:"channel" enum:"fcm,apns,webpush"`
	Status  string `query:"status" enum:"active,suspect,retired"`
}

type devicePath struct {
	ID string `path:"id" doc:"The device's id" example:"dev_0d1kq3w8r000c"`
}

func (s *Server) deviceRoutes() []route {
	const tag = "Devices"
	scope := needs(tenants.Devices)
	return []route{
		{method: http.MethodPut, path: "/v1/devices", access: scope, id: "putDevice", tag: tag,
			summary: "Register a device, or what has changed about it", handler: withBody(s.putDevice),
			about:   "The address makes it the same device: registering it for another user moves it. Answers 201 when the address is new.",
			example: `{"user":"u42","channel":"fcm","token":"cWz4...","os":"android"}`},
		{method: http.MethodGet, path: "/v1/devices", access: scope, id: "listDevices", tag: tag,
			summary: "List devices, newest first", handler: withoutBody(s.listDevices)},
		s.deviceBatchRoute(tag), s.exportDevicesRoute(tag), s.restoreDevicesRoute(tag), s.retireDevicesRoute(tag),
		{method: http.MethodGet, path: "/v1/devices/{id}", access: scope, id: "getDevice", tag: tag,
			summary: "Read a device", handler: withoutBody(s.getDevice)},
		{method: http.MethodPatch, path: "/v1/devices/{id}", access: scope, id: "patchDevice", tag: tag,
			summary: "Change what is known of a device", handler: withBody(s.patchDevice),
			about: "Members that are absent stay as they are, and so do tags that are not named; \"\" takes a member away, and null a tag. It says nothing of when the " +
				"device was heard of last: updated_at stays.",
			example: `{"locale":"de-CH","tags":{"plan":"pro","trial":null}}`},
		s.deviceHistoryRoute(tag),
		{method: http.MethodDelete, path: "/v1/devices/{id}", access: scope, id: "deleteDevice", tag: tag, status: http.StatusNoContent,
			summary: "Forget a device", handler: noContent(s.deleteDevice)},
	}
}

func (s *Server) putDevice(ctx context.Context, c *call, _ *none, in *DevicePut) (DeviceRegistered, error) {
	return s.register(ctx, c, in.User, &in.DeviceAddress)
}

func (s *Server) register(ctx context.Context, c *call, user string, in *DeviceAddress) (DeviceRegistered, error) {
	r, renamed, err := in.registration(user)
	if err != nil {
		return DeviceRegistered{}, err
	}
	r.By = devices.Caller{Actor: c.actor, Own: c.user != ""}
	got, err := s.devices.Register(ctx, c.tenant, r)
	if err != nil {
		return DeviceRegistered{}, renamed.of(err)
	}
	if got.Created {
		c.status = http.StatusCreated
	}
	return DeviceRegistered{Device: showDevice(got.Device), Created: got.Created, Rebound: got.Rebound, Replaced: got.Replaced}, nil
}

// registration turns the body into what the registry takes, and says what the
// registry's fields are called in the body.
func (in *DeviceAddress) registration(user string) (devices.Registration, renames, error) {
	r := devices.Registration{
		User: user, App: in.App, Channel: in.Channel, Environment: in.Environment, InstallationID: in.InstallationID, OS: in.OS,
		AppVersion: in.AppVersion, Locale: in.Locale, TimeZone: in.TimeZone, Tags: in.Tags,
		RegisteredAt: in.RegisteredAt, LastSeenAt: in.LastSeenAt, Purpose: in.Purpose, ActivityID: in.ActivityID, ExpiresAt: in.ExpiresAt,
	}
	given := 0
	names := renames{}
	if in.Token != "" {
		given++
		r.Address, names = in.Token, renames{"address": "token"}
	}
	if in.FID != "" {
		given++
		r.Address, r.Kind, names = in.FID, channels.FCMFid, renames{"address": "fid", "kind": "channel"}
		r.Channel = cmp.Or(r.Channel, channels.FCM)
	}
	if sub := in.Subscription; sub != nil {
		given++
		r.Address, r.Kind, r.P256dh, r.Auth = sub.Endpoint, channels.Subscription, sub.Keys.P256dh, sub.Keys.Auth
		r.VAPIDKey = sub.VAPIDKey
		r.Channel = cmp.Or(r.Channel, channels.WebPush)
		if sub.ExpirationTime != nil {
			const farthest = 253370764800000 // 9999-01-01; also keeps the conversion exact
			r.ExpiresAt = time.UnixMilli(int64(min(max(*sub.ExpirationTime, -1), farthest))).UTC()
		}
		names = renames{"address": "subscription.endpoint", "kind": "channel", "keys.p256dh": "subscription.keys.p256dh",
			"keys.auth": "subscription.keys.auth", "vapid_key": "subscription.vapid_key", "expires_at": "subscription.expirationTime"}
	}
	if in.Subscription != nil && !in.ExpiresAt.IsZero() {
		return r, nil, problem.AtField("expires_at", "is for APNs and the purpose activity only; a subscription says it as expirationTime")
	}
	if given != 1 {
		return r, nil, problem.AtField("token", "give exactly one of token, fid and subscription")
	}
	return r, names, nil
}

// renames says what a field is called in the body of the request.
type renames map[string]string

// of renames the fields of an error.
func (r renames) of(err error) error {
	var e *problem.Error
	if !errors.As(err, &e) || len(e.Fields) == 0 {
		return err
	}
	renamed := *e
	renamed.Fields = make([]problem.Field, len(e.Fields))
	for i, f := range e.Fields {
		renamed.Fields[i] = problem.Field{Path: cmp.Or(r[f.Path], f.Path), Detail: f.Detail}
	}
	return &renamed
}

func (s *Server) listDevices(ctx context.Context, c *call, p *deviceList) (List[Device], error) {
	const list = "devices"
	after, err := p.after(list)
	if err != nil {
		return List[Device]{}, err
	}
	kind, _ := channels.ParseKind(p.Channel)
	status, _ := devices.ParseStatus(p.Status)
	f := devices.Filter{User: p.User, App: p.App, Channel: kind, Status: status, After: after.Notification, Limit: p.more()}
	if f.To, err = s.devices.DeviceWindow(ctx, c.tenant, f); err != nil {
		return List[Device]{}, err
	}
	rows, err := s.devices.Devices(ctx, c.tenant, f)
	return upTo(p.Paging, list, rows, byID(f.To), placeOfDevice, showDevice), err
}

func (s *Server) getDevice(ctx context.Context, c *call, p *devicePath) (Device, error) {
	id, err := pathID(ids.Device, p.ID, "device")
	if err != nil {
		return Device{}, err
	}
	d, err := s.devices.Device(ctx, c.tenant, id)
	return showDevice(d), err
}

func (s *Server) patchDevice(ctx context.Context, c *call, p *devicePath, in *DevicePatch) (Device, error) {
	id, err := pathID(ids.Device, p.ID, "device")
	if err != nil {
		return Device{}, err
	}
	d, err := s.devices.Update(ctx, c.tenant, id, devices.Patch{AppVersion: in.AppVersion, Locale: in.Locale, TimeZone: in.TimeZone, Tags: in.Tags})
	return showDevice(d), err
}

func (s *Server) deleteDevice(ctx context.Context, c *call, p *devicePath) error {
	id, err := pathID(ids.Device, p.ID, "device")
	if err != nil {
		return err
	}
	return s.devices.Delete(ctx, c.tenant, id, c.user, c.actor)
}

func placeOfDevice(d devices.Device) delivery.Cursor { return byID(d.ID) }

func showDevice(d devices.Device) Device {
	purpose := ""
	if d.Channel == channels.APNs {
		purpose = d.Purpose.String()
	}
	return Device{
		ID: d.ID.Format(ids.Device), User: d.User, App: d.App, Channel: d.Channel.String(), Kind: string(d.Target.Kind),
		Address: d.Target.Address, Environment: string(d.Target.Environment), Purpose: purpose, ActivityID: d.ActivityID,
		VAPIDKey: d.VAPIDKey, InstallationID: d.InstallationID, OS: d.Target.OS,
		AppVersion: d.AppVersion, Locale: d.Locale, TimeZone: d.TimeZone, Tags: d.Tags, Status: d.Status.String(),
		Reason: d.Reason, StatusAt: timestamp(d.StatusAt), RegisteredAt: timestamp(d.Target.RegisteredAt), LastSeenAt: timestamp(d.LastSeenAt),
		ExpiresAt: timestamp(d.ExpiresAt), CreatedAt: timestamp(d.CreatedAt), UpdatedAt: timestamp(d.UpdatedAt),
	}
}
