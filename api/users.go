package api

import (
	"context"
	"net/http"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/tenants"
)

type userList struct {
	Paging
	User string `path:"user" maxLength:"255" doc:"Your own id of the user, percent-encoded"`
}

func (s *Server) userRoutes() []route {
	const tag = "Users"
	return []route{
		{method: http.MethodGet, path: "/v1/users/{user}/notifications", access: needs(tenants.Read), id: "listUserNotifications", tag: tag,
			summary: "List what was accepted for a user, newest first", about: "With the skips, this is why a user did or did not get something.", handler: withoutBody(s.listUserNotifications)},
		{method: http.MethodGet, path: "/v1/users/{user}/devices", access: needs(tenants.Devices), id: "listUserDevices", tag: tag,
			summary: "List a user's devices, newest first", handler: withoutBody(s.listUserDevices)},
		{method: http.MethodDelete, path: "/v1/users/{user}", access: needs(tenants.Erase), id: "eraseUser", tag: tag, status: http.StatusAccepted,
			summary: "Erase a user", handler: careful[userErase, Erasure](s.eraseUser),
			about: "Devices and bound endpoints are removed and unfinished deliveries dropped before the answer; the rest is removed in the background. " +
				"The answer is the receipt, which does not name the user: read it again to see when it is done. " +
				"May be repeated: a user of whom nothing is left gets an empty receipt."},
	}
}

func (s *Server) listUserNotifications(ctx context.Context, c *call, p *userList) (List[Notification], error) {
	list := "notifications of " + p.User
	after, err := p.after(list)
	if err != nil {
		return List[Notification]{}, err
	}
	rows, err := s.reads.UserNotifications(ctx, c.tenant, p.User, after.Notification, p.more())
	if err != nil {
		return List[Notification]{}, err
	}
	rows, next := cut(p.Paging, list, rows, func(n delivery.NotificationView) delivery.Cursor { return byID(n.ID) })
	out := List[Notification]{Data: make([]Notification, len(rows)), NextCursor: next}
	for i, n := range rows {
		if out.Data[i], err = showNotification(n); err != nil {
			return List[Notification]{}, err
		}
	}
	return out, nil
}

func (s *Server) listUserDevices(ctx context.Context, c *call, p *userList) (List[Device], error) {
	list := "devices of " + p.User
	after, err := p.after(list)
	if err != nil {
		return List[Device]{}, err
	}
	rows, err := s.devices.Devices(ctx, c.tenant, devices.Filter{User: p.User, After: after.Notification, Limit: p.more()})
	return page(p.Paging, list, rows, placeOfDevice, showDevice), err
}
