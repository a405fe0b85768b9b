package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// DeviceEvent is something that has happened to a device.
type DeviceEvent struct {
	At         time.Time `json:"at"`
	Event      string    `json:"event" enum:"registered,rebound,address_changed,suspected,retired,restored,deleted"`
	User       string    `json:"user,omitempty" doc:"registered, rebound: whose it is from then on; absent where the user was erased"`
	Reason     string    `json:"reason,omitempty" doc:"The provider's code, or what else caused it" example:"fcm.unregistered"`
	Credential string    `json:"credential,omitempty" doc:"Whose verdict it was" example:"crd_0d1kq3w8r000c"`
	Version    int       `json:"version,omitzero" doc:"Of that credential"`
	Actor      string    `json:"actor" doc:"engine, or the key that asked for it" example:"key_0d1kq3w8r000c"`
}

func (s *Server) deviceHistoryRoute(tag string) route {
	return route{method: http.MethodGet, path: "/v1/devices/{id}/history", access: needs(tenants.Devices), id: "getDeviceHistory", tag: tag,
		summary: "Read what has happened to a device, newest first", handler: withoutBody(s.deviceHistory),
		about: "Who registered it, whose it became, which verdict made it suspect or retired it, and what restored it: the newest 100 events of the last 30 days, " +
			"also of a device that was deleted, unless its user deleted or replaced it with a token. Registrations that change neither user nor address nor status are no events."}
}

func (s *Server) deviceHistory(ctx context.Context, c *call, p *devicePath) (List[DeviceEvent], error) {
	id, err := pathID(ids.Device, p.ID, "device")
	if err != nil {
		return List[DeviceEvent]{}, err
	}
	rows, err := s.devices.History(ctx, c.tenant, id)
	return singlePage(rows, showDeviceEvent), err
}

func showDeviceEvent(e devices.Event) DeviceEvent {
	out := DeviceEvent{At: timestamp(e.At), Event: e.Kind.String(), User: e.User, Reason: e.Reason, Version: e.Version, Actor: e.Actor}
	if e.Credential != 0 {
		out.Credential = e.Credential.Format(ids.Credential)
	}
	return out
}
