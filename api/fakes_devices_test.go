package api

import (
	"context"
	"errors"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

type fakeDevices struct {
	w    *world
	last devices.Registration
	list []devices.Registration
	by   devices.Caller
	user string
	err  error

	window ids.ID

	page func(after ids.ID) (list []devices.Device, next ids.ID, err error) // of an export
}

var _ Devices = (*fakeDevices)(nil)

func aDevice() devices.Device {
	return devices.Device{Tenant: tenantA, ID: theDevice, User: "u1", App: "default", Channel: channels.FCM, Status: devices.Suspect, CreatedAt: epoch, UpdatedAt: epoch,
		Target: channels.Target{Kind: channels.FCMToken, Address: "tok", P256dh: []byte("p256dh-never-shown"), Auth: []byte("auth-never-shown")}}
}

func (d *fakeDevices) Register(_ context.Context, _ ids.ID, in devices.Registration) (devices.Registered, error) {
	d.w.note("register")
	d.last = in
	return devices.Registered{Device: aDevice(), Created: in.Address == "new"}, d.err
}

func (d *fakeDevices) Update(ctx context.Context, tenant, id ids.ID, p devices.Patch) (devices.Device, error) {
	d.w.note("update device")
	out, err := d.Device(ctx, tenant, id)
	if err != nil {
		return out, err
	}
	if err := p.Apply(&out); err != nil {
		return out, err
	}
	return out, d.err
}

func (d *fakeDevices) RegisterAll(_ context.Context, _ ids.ID, list []devices.Registration, by devices.Caller) ([]devices.Registered, error) {
	d.w.note("register all")
	d.list, d.by = list, by
	out := make([]devices.Registered, len(list))
	for i, in := range list {
		out[i] = devices.Registered{Device: aDevice()}
		switch in.Address {
		case "new":
			out[i].Created = true
		case "rebound":
			out[i].Rebound, out[i].Replaced = true, true
		case "replaced":
			out[i].Replaced = true
		case "refused":
			out[i] = devices.Registered{Err: problem.AtField("address", "is refused")}
		case "full":
			out[i] = devices.Registered{Err: problem.New(problem.Throttled, "There is no room.")}
		case "broken":
			out[i] = devices.Registered{Err: errors.New("disk-on-fire")}
		}
	}
	return out, d.err
}

func (d *fakeDevices) Device(_ context.Context, tenant, id ids.ID) (devices.Device, error) {
	d.w.note("device")
	if tenant != tenantA || id != theDevice {
		return devices.Device{}, absent()
	}
	return aDevice(), nil
}

func (d *fakeDevices) DeviceWindow(context.Context, ids.ID, devices.Filter) (ids.ID, error) {
	return d.window, nil
}

func (d *fakeDevices) Devices(_ context.Context, _ ids.ID, f devices.Filter) ([]devices.Device, error) {
	d.w.note("devices")
	d.user = f.User
	return []devices.Device{aDevice()}, nil
}

func (d *fakeDevices) History(_ context.Context, tenant, id ids.ID) ([]devices.Event, error) {
	d.w.note("history")
	if tenant != tenantA || id != theDevice {
		return nil, absent()
	}
	return []devices.Event{
		{Tenant: tenant, Device: id, At: epoch.Add(time.Hour), Kind: devices.EventRetired, Reason: "fcm.unregistered", Credential: theCredential, Version: 2, Actor: devices.EngineActor},
		{Tenant: tenant, Device: id, At: epoch, Kind: devices.EventRegistered, UserID: 1, User: "u1", Actor: "key_1"},
	}, nil
}

func (d *fakeDevices) Delete(_ context.Context, tenant, id ids.ID, user, _ string) error {
	d.w.note("delete device of " + user)
	if tenant != tenantA || id != theDevice || (user != "" && user != "u1") {
		return absent()
	}
	return nil
}

func (d *fakeDevices) DeleteAddress(_ context.Context, _ ids.ID, key devices.AddressKey, user, _ string) error {
	d.w.note("delete " + key.Channel.String() + " address of " + user)
	if key.Address != "tok" {
		return absent()
	}
	return nil
}
