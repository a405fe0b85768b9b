package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// Unregister names the device to forget by its address.
type Unregister struct {
	Address string        `json:"address" doc:"Endpoint of the subscription, or the token"`
	App     string        `json:"app,omitempty" maxLength:"63" doc:"default where absent"`
	Channel channels.Kind `json:"channel,omitzero" enum:"fcm,apns,webpush" doc:"webpush where absent"`
}

// PushKey is what a browser needs to subscribe.
type PushKey struct {
	App       string `json:"app"`
	PublicKey string `json:"public_key" doc:"VAPID public key in base64url: the applicationServerKey of PushManager.subscribe()"`
}

type pushKeyQuery struct {
	App string `query:"app" maxLength:"63" doc:"default where absent"`
}

// meRoutes are for a user's app or browser: they hold a token that the tenant's
// backend signed, and reach that user's devices and nothing else.
func (s *Server) meRoutes() []route {
	const tag = "The user's own devices"
	user := access{kind: byUser}
	return []route{
		{method: http.MethodPut, path: "/v1/me/devices", access: user, id: "putMyDevice", tag: tag,
			summary: "Register this device for the token's user", handler: withBody(s.putMyDevice),
			example: `{"subscription":{"endpoint":"https://push.example/abc","expirationTime":null,"keys":{"p256dh":"BNc...","auth":"tBH..."}}}`},
		{method: http.MethodGet, path: "/v1/me/devices", access: user, id: "listMyDevices", tag: tag,
			summary: "List the user's devices, newest first", handler: withoutBody(s.listMyDevices)},
		{method: http.MethodDelete, path: "/v1/me/devices/{id}", access: user, id: "deleteMyDevice", tag: tag, status: http.StatusNoContent,
			summary: "Forget one of the user's devices", handler: noContent(s.deleteDevice)},
		{method: http.MethodPost, path: "/v1/me/devices/unregister", access: user, id: "unregisterMyDevice", tag: tag,
			summary: "Forget one of the user's devices by its address", about: "For a browser that unsubscribes. Answers the same when the address is not known.",
			handler: withBody(s.unregisterMyDevice), example: `{"address":"https://push.example/abc"}`},
		{method: http.MethodGet, path: "/v1/me/push-key", access: user, id: "getPushKey", tag: tag,
			summary: "Read the key that browsers subscribe with", handler: withoutBody(s.getPushKey)},
	}
}

func (s *Server) putMyDevice(ctx context.Context, c *call, _ *none, in *DeviceAddress) (DeviceRegistered, error) {
	return s.register(ctx, c, c.user, in)
}

func (s *Server) listMyDevices(ctx context.Context, c *call, p *Paging) (List[Device], error) {
	const list = "my-devices"
	after, err := p.after(list)
	if err != nil {
		return List[Device]{}, err
	}
	rows, err := s.devices.Devices(ctx, c.tenant, devices.Filter{User: c.user, After: after.Notification, Limit: p.more()})
	return page(*p, list, rows, placeOfDevice, showDevice), err
}

// Unregistered says whether there was something to forget.
type Unregistered struct {
	Removed bool `json:"removed" doc:"false: the user has no device with this address"`
}

func (s *Server) unregisterMyDevice(ctx context.Context, c *call, _ *none, in *Unregister) (Unregistered, error) {
	key := devices.AddressKey{App: in.App, Channel: cmp.Or(in.Channel, channels.WebPush), Address: in.Address}
	err := s.devices.DeleteAddress(ctx, c.tenant, key, c.user, c.actor)
	if problem.CodeOf(err) == problem.NotFound {
		return Unregistered{}, nil
	}
	return Unregistered{Removed: err == nil}, err
}

// getPushKey gives the public key of the newest VAPID pair that is in use.
func (s *Server) getPushKey(ctx context.Context, c *call, p *pushKeyQuery) (PushKey, error) {
	app := cmp.Or(p.App, tenants.DefaultApp)
	all, err := s.tenants.Credentials(ctx, c.tenant)
	if err != nil {
		return PushKey{}, err
	}
	var newest tenants.Credential
	for _, one := range all {
		if one.App == app && one.Channel == channels.WebPush && one.Status == tenants.CredentialActive && one.ID > newest.ID {
			newest = one
		}
	}
	if newest.ID == 0 {
		return PushKey{}, problem.New(problem.NotFound, "The app has no active web push credential; put one first.")
	}
	return PushKey{App: app, PublicKey: newest.Qualifier}, nil
}
