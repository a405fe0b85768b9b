package api

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"reflect"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/tenants"
)

// Engine accepts notifications and moves deliveries. delivery.Engine is one.
type Engine interface {
	Accept(ctx context.Context, s delivery.Submission) (delivery.Answer, error)
	DryRun(ctx context.Context, tenant ids.ID, r delivery.Request) (delivery.Preview, error)
	// Cancel stops what has not been sent, and tells how many deliveries that were.
	Cancel(ctx context.Context, tenant, notification ids.ID) (int, error)
	// Replay makes a dead delivery pending again. Conflict when it is not dead.
	Replay(ctx context.Context, tenant, notification, target ids.ID, actor string) error
	// SendNow sends a pending delivery, whatever it waits for. Conflict when it is not pending.
	SendNow(ctx context.Context, tenant, notification, target ids.ID, actor string) error
	// ReplayAll makes a job that does so for all dead letters that a filter selects.
	ReplayAll(ctx context.Context, o delivery.ReplayOrder) (delivery.Answer, error)
	// CountDead counts them. exact is false where counting took too long.
	CountDead(ctx context.Context, o delivery.ReplayOrder) (n int, exact bool, err error)
	// RestoreDevices makes a job that makes devices active again which a filter selects,
	// or retires them, and CountRestorable counts them. exact is false where counting took too long.
	RestoreDevices(ctx context.Context, o delivery.DeviceRestoreOrder) (delivery.Answer, error)
	CountRestorable(ctx context.Context, o delivery.DeviceRestoreOrder) (n int, exact bool, err error)
	// EraseUser takes a user out of use at once, and has the rest removed in the
	// background.
	EraseUser(ctx context.Context, tenant ids.ID, user, actor string) (delivery.Erasure, error)
	// Ready is nil while the engine works. The sentence of its error is shown at /readyz.
	Ready() error
	// Overdue is how many sends do not end. Other deliveries go on while there are few.
	Overdue() int
	// EndpointsChanged tells that an endpoint was made, changed or deleted.
	EndpointsChanged(tenant, endpoint ids.ID)
	// Sending tells whether anything is sent; the others change it and tell what it is then.
	Sending() delivery.Pause
	PauseSending(ctx context.Context, reason, actor string) (delivery.Pause, error)
	ResumeSending(ctx context.Context, actor string) (delivery.Pause, error)
	UsageReader
}

// Routes that take an idempotency key.
const (
	sendRoute    = "POST /v1/notifications"
	batchRoute   = "POST /v1/notifications/batch"
	replayRoute  = "POST /v1/dead-letters/replay"
	restoreRoute = "POST /v1/devices/restore"
	retireRoute  = "POST /v1/devices/retire"
)

type notificationPath struct {
	ID string `path:"id" doc:"The notification's id" example:"ntf_0d1kq3w8r000c"`
}

func (s *Server) notificationRoutes() []route {
	const tag = "Notifications"
	return []route{
		{method: http.MethodPost, path: "/v1/notifications", access: needs(tenants.Send), id: "sendNotification", tag: tag, status: http.StatusAccepted, idempotent: true,
			summary: "Send a notification", handler: previewed[NotificationRequest, Accepted](s.sendNotification), preview: reflect.TypeFor[Preview](),
			about: "202 means that it is stored and will be delivered or explained, whatever happens to the server. " +
				"With dry_run nothing is stored: the answer is 200 and a Preview with the exact payloads.",
			example: `{"to":{"users":["u42"]},"title":"Your order has shipped","body":"It arrives tomorrow.","url":"https://example.com/orders/7","ttl":86400}`},
		{method: http.MethodPost, path: "/v1/notifications/batch", access: needs(tenants.Send), id: batchID, tag: tag, status: http.StatusAccepted, idempotent: true,
			summary: "Send up to 500 notifications", handler: prerendered[BatchRequest, BatchResult](s.sendBatch),
			about: "One that is refused does not keep the others from being accepted; results has one entry for each, in order. Up to 1,000 users, devices and " +
				"endpoints they are stored together, and a batch may name 100,000. A larger one is stored in parts of about 1,000, which let others pass, and is answered with numbers of " +
				"deliveries instead of lists. With an Idempotency-Key it may be repeated when it fails on the way: it goes on where it stopped. Without one, what came too late has " +
				"an error of its own. What was refused and may be sent again, such as throttled, has retry_at in its error, and the answer a Retry-After by which all of it may: send " +
				"these entries again, with another Idempotency-Key if you use one.",
			example: `{"notifications":[{"to":{"users":["u1"]},"title":"Hello"},{"to":{"users":["u2"]},"title":"Hello"}]}`},
		{method: http.MethodGet, path: "/v1/notifications/{id}", access: needs(tenants.Read), id: "getNotification", tag: tag,
			summary: "Read a notification and how its deliveries stand", handler: withoutBody(s.getNotification)},
		{method: http.MethodPost, path: "/v1/notifications/{id}/cancel", access: needs(tenants.Send), id: "cancelNotification", tag: tag,
			summary: "Cancel what has not been sent", about: "What is at a provider already cannot be called back. May be repeated.", handler: withoutBody(s.cancelNotification)},
	}
}

func (s *Server) sendNotification(ctx context.Context, c *call) (*answer, error) {
	key, stored, err := s.repeated(ctx, c, sendRoute)
	if err != nil || stored != nil {
		return stored, err
	}
	var body NotificationRequest
	if err := decode(c.body, &body); err != nil {
		return nil, err
	}
	request, err := body.request()
	if err != nil {
		return nil, err
	}
	if body.DryRun || c.dryRun {
		return s.dryRun(ctx, c, request)
	}
	got, err := s.engine.Accept(ctx, delivery.Submission{Tenant: c.tenant, Requests: []delivery.Request{request}, Idempotency: key, Render: renderOne})
	if err != nil {
		return nil, err
	}
	return rendered(got), nil
}

// renderOne answers a single request. A refused one never comes here: Accept
// returns its error.
func renderOne(receipts []delivery.Receipt) (int, []byte, error) {
	if len(receipts) != 1 {
		return 0, nil, fmt.Errorf("one request got %d receipts", len(receipts))
	}
	if err := receipts[0].Err; err != nil {
		return 0, nil, err
	}
	return render(http.StatusAccepted, showReceipt(receipts[0]))
}

func render(status int, v any) (int, []byte, error) {
	var b bytes.Buffer
	err := encode(&b, v)
	return status, b.Bytes(), err
}

func (s *Server) dryRun(ctx context.Context, c *call, request delivery.Request) (*answer, error) {
	p, err := s.engine.DryRun(ctx, c.tenant, request)
	if err != nil {
		return nil, err
	}
	status, body, err := render(http.StatusOK, showPreview(p))
	return &answer{Status: status, ContentType: jsonType, Body: body}, err
}

func (s *Server) getNotification(ctx context.Context, c *call, p *notificationPath) (Notification, error) {
	id, err := pathID(ids.Notification, p.ID, "notification")
	if err != nil {
		return Notification{}, err
	}
	n, err := s.reads.Notification(ctx, c.tenant, id)
	if err != nil {
		return Notification{}, err
	}
	return showNotification(n)
}

// Canceled says that a notification is canceled, and how many deliveries that
// stopped.
type Canceled struct {
	Canceled     int  `json:"canceled" doc:"Deliveries that were stopped now; 0 when all were finished, or none was made yet because send_at is ahead"`
	Notification bool `json:"notification_canceled" doc:"Nothing more of the notification is sent, whether or not it had deliveries to stop: one that waits for its send_at never makes any"`
}

func (s *Server) cancelNotification(ctx context.Context, c *call, p *notificationPath) (Canceled, error) {
	id, err := pathID(ids.Notification, p.ID, "notification")
	if err != nil {
		return Canceled{}, err
	}
	n, err := s.engine.Cancel(ctx, c.tenant, id)
	return Canceled{Canceled: n, Notification: true}, err
}
