package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// Delivery is a notification on its way to one target.
type Delivery struct {
	ID           string    `json:"id" example:"dlv_0d1kq3w8r000c0d1kq3w8r000d"`
	Notification string    `json:"notification" example:"ntf_0d1kq3w8r000c"`
	Target       string    `json:"target" doc:"The device or endpoint"`
	Channel      string    `json:"channel" enum:"fcm,apns,webpush,webhook"`
	User         string    `json:"user,omitempty"`
	App          string    `json:"app,omitempty"`
	State        string    `json:"state" enum:"pending,sending,held,sent,dropped,dead" doc:"sent: the provider accepted it; a webhook's receiver answered 2xx"`
	Reason       string    `json:"reason,omitempty" doc:"Why it is held, dropped or dead"`
	SupersededBy string    `json:"superseded_by,omitempty" doc:"With the reason superseded: the newer notification that took its place" example:"ntf_0d1kq3w8r000d"`
	DueAt        time.Time `json:"due_at,omitzero" doc:"Of the next attempt, while pending"`
	ExpiresAt    time.Time `json:"expires_at,omitzero"`
	Hold         string    `json:"hold,omitempty" doc:"What holds it; see /v1/holds"`
	Wait         *Wait     `json:"wait,omitempty" doc:"What it waits for while it is pending; once it has ended, what it has waited for last"`
	Round        int       `json:"round" doc:"Grows with every replay"`
	Spent        int       `json:"spent" doc:"Attempts of this round that count"`
	Takeovers    int       `json:"takeovers" doc:"How many nodes died that were sending it, or may have been"`
	Unknown      bool      `json:"unknown" doc:"A node died with it: the provider may have it twice"`
	CreatedAt    time.Time `json:"created_at"`
	UpdatedAt    time.Time `json:"updated_at"`
	Last         *Attempt  `json:"last,omitempty" doc:"The newest attempt; absent: none yet"`
}

// Wait is what a delivery waits for.
type Wait struct {
	Reason      string    `json:"reason" enum:"throttled,unreachable,failing,retry" doc:"retry: the next step of its own schedule"`
	Subject     string    `json:"subject,omitempty" doc:"The credential or endpoint that all wait for; absent: the device alone"`
	PushService string    `json:"push_service,omitempty"`
	Detail      string    `json:"detail,omitempty" doc:"What the provider said"`
	Since       time.Time `json:"since"`
	Until       time.Time `json:"until,omitzero" doc:"As was known when it was put off; it may end before"`
}

// DeliveryDetail is a delivery with all its attempts.
type DeliveryDetail struct {
	Delivery
	Attempts []Attempt `json:"attempts" doc:"Oldest first"`
}

// Attempt is one request to a provider, or one that may have been made.
type Attempt struct {
	Number     int       `json:"number" doc:"Over all rounds"`
	At         time.Time `json:"at"`
	DurationMS int64     `json:"duration_ms"`
	Outcome    string    `json:"outcome" enum:"accepted,retry,throttled,gone,rejected,denied,interrupted,unknown"`
	Code       string    `json:"code,omitempty" doc:"Stable, such as fcm.unregistered"`
	Detail     string    `json:"detail,omitempty"`
	Status     int       `json:"status,omitzero" doc:"HTTP status; absent: no answer"`
	ProviderID string    `json:"provider_id,omitempty"`
	Ambiguous  bool      `json:"ambiguous" doc:"The request was written and no answer came"`
}

type deliveryPath struct {
	ID string `path:"id" doc:"The delivery's id" example:"dlv_0d1kq3w8r000c0d1kq3w8r000d"`
}

// DeliveryFilter is what lists of deliveries select by.
type DeliveryFilter struct {
	Paging
	Channel string    `query:"channel" enum:"fcm,apns,webpush,webhook"`
	User    string    `query:"user" maxLength:"255"`
	Reason  string    `query:"reason" maxLength:"64" doc:"Such as gone, exhausted or credential_denied"`
	Since   time.Time `query:"since" doc:"RFC 3339"`
	Until   time.Time `query:"until" doc:"RFC 3339"`
}

// StateFilter selects by state as well.
type StateFilter struct {
	DeliveryFilter
	State string `query:"state" enum:"pending,sending,held,sent,dropped,dead"`
}

type notificationDeliveries struct {
	StateFilter
	ID string `path:"id" doc:"The notification's id" example:"ntf_0d1kq3w8r000c"`
}

func (s *Server) deliveryRoutes() []route {
	const tag = "Deliveries"
	read := needs(tenants.Read)
	return []route{
		{method: http.MethodGet, path: "/v1/notifications/{id}/deliveries", access: read, id: "listNotificationDeliveries", tag: tag,
			summary: "List the deliveries of a notification", handler: withoutBody(s.listNotificationDeliveries)},
		{method: http.MethodGet, path: "/v1/deliveries", access: read, id: "listDeliveries", tag: tag,
			summary: "List deliveries, newest first", about: "since and until are when the notification was accepted.", handler: withoutBody(s.listDeliveries)},
		{method: http.MethodGet, path: "/v1/deliveries/{id}", access: read, id: "getDelivery", tag: tag,
			summary: "Read a delivery with its attempts", handler: withoutBody(s.getDelivery)},
		{method: http.MethodPost, path: "/v1/deliveries/{id}/replay", access: needs(tenants.Send), id: "replayDelivery", tag: tag, status: http.StatusAccepted,
			summary: "Send a dead letter, or a webhook that has ended, again", about: "A new round with new attempts and a new deadline; ids stay, so that a receiver knows the webhook-id again. Of webhooks that may also be what was sent or dropped, as long as its content is kept. 409 for anything else.", handler: withoutBody(s.replayDelivery)},
		{method: http.MethodPost, path: "/v1/deliveries/{id}/send", access: needs(tenants.Send), id: "sendDelivery", tag: tag, status: http.StatusAccepted,
			summary: "Send a pending delivery now", about: "Whatever it waits for: its schedule, or what a provider or receiver has asked for. If it fails, it goes on where it was. 409 when it is held, being sent, past its time to live, or has ended.",
			handler: withoutBody(s.sendDelivery)},
		{method: http.MethodGet, path: "/v1/dead-letters", access: read, id: "listDeadLetters", tag: tag,
			summary: "List dead letters, the latest first", about: "since and until are when they died.", handler: withoutBody(s.listDeadLetters)},
		s.replayAllRoute(tag),
	}
}

// query turns the parameters into what the reads takes.
func (f *DeliveryFilter) query(list string) (delivery.Query, error) {
	kind, _ := channels.ParseKind(f.Channel)
	q := delivery.Query{Channel: kind, User: f.User, Since: f.Since, Until: f.Until, Limit: f.more()}
	var (
		faults problem.Fields
		ok     bool
		err    error
	)
	if q.Reason, ok = delivery.ParseReason(f.Reason); !ok && f.Reason != "" {
		faults.Add("reason", "is not a reason of a delivery")
	}
	if !f.Since.IsZero() && !f.Until.IsZero() && f.Until.Before(f.Since) {
		faults.Add("until", "is before since")
	}
	q.After, err = f.after(list)
	faults.Merge("", err)
	return q, faults.Err()
}

func (s *Server) listDeliveries(ctx context.Context, c *call, p *StateFilter) (List[Delivery], error) {
	const list = "deliveries"
	q, err := p.query(list)
	if err != nil {
		return List[Delivery]{}, err
	}
	q.State, _ = delivery.ParseState(p.State)
	if q.To, err = s.reads.DeliveryWindow(ctx, c.tenant, q, false); err != nil {
		return List[Delivery]{}, err
	}
	rows, err := s.reads.Deliveries(ctx, c.tenant, q)
	return upTo(p.Paging, list, rows, q.To, placeOfDelivery, showDelivery), err
}

func (s *Server) listNotificationDeliveries(ctx context.Context, c *call, p *notificationDeliveries) (List[Delivery], error) {
	id, err := pathID(ids.Notification, p.ID, "notification")
	if err != nil {
		return List[Delivery]{}, err
	}
	list := "deliveries of " + p.ID
	q, err := p.query(list)
	if err != nil {
		return List[Delivery]{}, err
	}
	q.Notification = id
	q.State, _ = delivery.ParseState(p.State)
	rows, err := s.reads.Deliveries(ctx, c.tenant, q)
	if err == nil && len(rows) == 0 { // none, or no such notification?
		_, err = s.reads.Notification(ctx, c.tenant, id)
	}
	return page(p.Paging, list, rows, placeOfDelivery, showDelivery), err
}

func (s *Server) listDeadLetters(ctx context.Context, c *call, p *DeliveryFilter) (List[Delivery], error) {
	const list = "dead-letters"
	q, err := p.query(list)
	if err != nil {
		return List[Delivery]{}, err
	}
	if q.To, err = s.reads.DeliveryWindow(ctx, c.tenant, q, true); err != nil {
		return List[Delivery]{}, err
	}
	rows, err := s.reads.DeadLetters(ctx, c.tenant, q)
	return upTo(p.Paging, list, rows, q.To, func(v delivery.View) delivery.Cursor {
		return delivery.Cursor{Notification: v.Notification, Target: v.Target, At: v.UpdatedAt}
	}, showDelivery), err
}

func (s *Server) getDelivery(ctx context.Context, c *call, p *deliveryPath) (DeliveryDetail, error) {
	notification, target, err := ids.ParseDelivery(p.ID)
	if err != nil {
		return DeliveryDetail{}, problem.New(problem.NotFound, "There is no delivery with this id.")
	}
	return s.deliveryDetail(ctx, c, notification, target)
}

func (s *Server) deliveryDetail(ctx context.Context, c *call, notification, target ids.ID) (DeliveryDetail, error) {
	v, err := s.reads.Delivery(ctx, c.tenant, notification, target)
	if err != nil {
		return DeliveryDetail{}, err
	}
	out := DeliveryDetail{Delivery: showDelivery(v), Attempts: make([]Attempt, len(v.Attempts))}
	for i, a := range v.Attempts {
		out.Attempts[i] = showAttempt(a)
	}
	return out, nil
}

func (s *Server) sendDelivery(ctx context.Context, c *call, p *deliveryPath) (DeliveryDetail, error) {
	notification, target, err := ids.ParseDelivery(p.ID)
	if err != nil {
		return DeliveryDetail{}, problem.New(problem.NotFound, "There is no delivery with this id.")
	}
	if err := s.engine.SendNow(ctx, c.tenant, notification, target, c.actor); err != nil {
		return DeliveryDetail{}, err
	}
	return s.deliveryDetail(ctx, c, notification, target)
}

func (s *Server) replayDelivery(ctx context.Context, c *call, p *deliveryPath) (DeliveryDetail, error) {
	notification, target, err := ids.ParseDelivery(p.ID)
	if err != nil {
		return DeliveryDetail{}, problem.New(problem.NotFound, "There is no delivery with this id.")
	}
	if err := s.engine.Replay(ctx, c.tenant, notification, target, c.actor); err != nil {
		return DeliveryDetail{}, err
	}
	return s.deliveryDetail(ctx, c, notification, target)
}

func placeOfDelivery(v delivery.View) delivery.Cursor {
	return delivery.Cursor{Notification: v.Notification, Target: v.Target}
}

func showDelivery(v delivery.View) Delivery {
	out := Delivery{
		ID: ids.FormatDelivery(v.Notification, v.Target), Notification: v.Notification.Format(ids.Notification),
		Target: targetID(v.Channel, v.Target), Channel: v.Channel.String(), User: v.User, App: v.App, State: v.State.String(),
		Reason: v.Reason.String(), DueAt: timestamp(v.DueAt), ExpiresAt: timestamp(v.ExpiresAt), Round: v.Round, Spent: v.Spent,
		Takeovers: v.Takeovers, Unknown: v.Unknown, CreatedAt: timestamp(v.CreatedAt), UpdatedAt: timestamp(v.UpdatedAt),
	}
	if v.HoldID != 0 {
		out.Hold = v.HoldID.Format(ids.Hold)
	}
	if v.SupersededBy != 0 {
		out.SupersededBy = v.SupersededBy.Format(ids.Notification)
	}
	if v.Last.Number != 0 {
		last := showAttempt(v.Last)
		out.Last = &last
	}
	out.Wait = showWaited(v)
	return out
}

// showWaited says what a delivery waits for: what put it off last, its newest attempt or
// what all of a scope waits for.
func showWaited(v delivery.View) *Wait {
	w, last := v.Waited, v.Last
	if v.State == delivery.Pending && last.Number != 0 && last.At.After(w.At) {
		if last.Outcome == channels.Accepted || last.Outcome == channels.Gone || last.Outcome == channels.Rejected {
			return nil // the round that ended so is over: somebody has asked for another
		}
		out := &Wait{Reason: channels.Retry.String(), Detail: last.Detail, Since: timestamp(last.At), Until: timestamp(v.DueAt)}
		if last.Outcome == channels.Throttled {
			out.Reason = channels.Throttled.String()
		}
		return out
	}
	if w == (delivery.Waited{}) {
		return nil
	}
	out := &Wait{Reason: w.Cause.String(), PushService: w.Origin, Detail: w.Detail, Since: timestamp(w.Since), Until: timestamp(w.Until)}
	if !w.Device {
		out.Subject = w.Subject.Format(ids.Credential)
		if v.Channel == channels.Webhook {
			out.Subject = w.Subject.Format(ids.Endpoint)
		}
	}
	return out
}

func showAttempt(a delivery.Attempt) Attempt {
	return Attempt{Number: a.Number, At: timestamp(a.At), DurationMS: a.Duration.Milliseconds(), Outcome: a.Outcome.String(), Code: a.Code,
		Detail: a.Detail, Status: a.Status, ProviderID: a.ProviderID, Ambiguous: a.Ambiguous}
}
