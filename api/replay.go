package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// ReplayRequest asks for the replay of many dead letters, or of an endpoint's webhooks.
type ReplayRequest struct {
	Filter    ReplayFilter `json:"filter" doc:"Which; at least one member. A letter is selected when all members fit"`
	PerSecond *int         `json:"per_second,omitempty" minimum:"1" maximum:"1000" default:"100" doc:"Letters in a second at most"`
	DryRun    bool         `json:"dry_run,omitempty" doc:"Only count"`
}

// ReplayFilter selects dead letters.
type ReplayFilter struct {
	State        string    `json:"state,omitempty" enum:"sent,dropped" doc:"Webhooks of an endpoint that were sent, or dropped, instead of dead letters; needs endpoint and since"`
	Reason       string    `json:"reason,omitempty" enum:"rejected,exhausted,expired,ambiguous,crashed,mapping"`
	Channel      string    `json:"channel,omitempty" enum:"fcm,apns,webpush,webhook"`
	App          string    `json:"app,omitempty" maxLength:"63" doc:"Of the device; letters to endpoints have none"`
	User         string    `json:"user,omitempty" maxLength:"255"`
	Endpoint     string    `json:"endpoint,omitempty" example:"whe_0d1kq3w8r000c"`
	Notification string    `json:"notification,omitempty" example:"ntf_0d1kq3w8r000c"`
	Type         string    `json:"type,omitempty" maxLength:"255" doc:"Of the notification, such as order.shipped"`
	Since        time.Time `json:"since,omitzero" doc:"Died then or later; with state: accepted then or later; RFC 3339"`
	Until        time.Time `json:"until,omitzero" doc:"Died before; RFC 3339. What dies after the call is never replayed"`
}

// ReplayPreview is the answer to a dry run.
type ReplayPreview struct {
	DryRun     bool `json:"dry_run"`
	Matching   int  `json:"matching" doc:"Dead letters that the filter selects now"`
	LowerBound bool `json:"lower_bound" doc:"Counting took too long: there may be more"`
}

func (s *Server) replayAllRoute(tag string) route {
	return route{method: http.MethodPost, path: "/v1/dead-letters/replay", access: needs(tenants.Send), id: "replayDeadLetters", tag: tag, status: http.StatusAccepted, idempotent: true,
		summary: "Send many dead letters, or an endpoint's webhooks, again", handler: previewed[ReplayRequest, Job](s.replayDeadLetters), preview: reflect.TypeFor[ReplayPreview](),
		about: "Each as POST /v1/deliveries/{id}/replay does, by a job in the background: see /v1/jobs. Letters whose content is erased, or that are " +
			"not dead any more when their turn comes, are skipped. With dry_run nothing is done: the answer is 200 and a ReplayPreview.",
		example: `{"filter":{"reason":"exhausted","channel":"webhook","since":"2026-01-31T12:00:00Z"},"per_second":50}`}
}

// order turns the body into what the engine takes.
func (b *ReplayRequest) order() (delivery.ReplayOrder, error) {
	f := &b.Filter
	o := delivery.ReplayOrder{PerSecond: delivery.DefaultReplayRate,
		Filter: delivery.DeadFilter{App: f.App, User: f.User, Type: f.Type, Since: f.Since, Until: f.Until}}
	if b.PerSecond != nil {
		o.PerSecond = *b.PerSecond
	}
	var (
		faults problem.Fields
		known  bool
		err    error
	)
	if o.Filter.Reason, known = delivery.ParseReason(f.Reason); !known && f.Reason != "" {
		faults.Add("filter.reason", "is not a reason of a dead letter; use rejected, exhausted, expired, ambiguous, crashed, mapping or stale")
	}
	if o.Filter.State, known = delivery.ParseState(f.State); !known && f.State != "" {
		faults.Add("filter.state", "must be sent or dropped; leave it out for dead letters")
	}
	if o.Filter.Channel, known = channels.ParseKind(f.Channel); !known && f.Channel != "" {
		faults.Add("filter.channel", "must be fcm, apns, webpush or webhook")
	}
	if f.Endpoint != "" {
		if o.Filter.Endpoint, err = ids.Parse(ids.Endpoint, f.Endpoint); err != nil {
			badID(&faults, "filter.endpoint", ids.Endpoint)
		}
	}
	if f.Notification != "" {
		if o.Filter.Notification, err = ids.Parse(ids.Notification, f.Notification); err != nil {
			badID(&faults, "filter.notification", ids.Notification)
		}
	}
	for _, x := range []struct {
		path, text string
		most       int
	}{{"filter.app", f.App, 63}, {"filter.user", f.User, 255}, {"filter.type", f.Type, 255}} {
		if len(x.text) > x.most {
			faults.Add(x.path, "must be at most %d bytes", x.most)
		}
	}
	if err = faults.Err(); err == nil { // otherwise a filter of faults only would be called empty
		err = o.Check()
	}
	return o, err
}

func (s *Server) replayDeadLetters(ctx context.Context, c *call) (*answer, error) {
	key, stored, err := s.repeated(ctx, c, replayRoute)
	if err != nil || stored != nil {
		return stored, err
	}
	var body ReplayRequest
	if err := decode(c.body, &body); err != nil {
		return nil, err
	}
	order, err := body.order()
	if err != nil {
		return nil, err
	}
	order.Tenant, order.Actor, order.Idempotency = c.tenant, c.actor, key
	if body.DryRun || c.dryRun {
		n, exact, err := s.engine.CountDead(ctx, order)
		if err != nil {
			return nil, err
		}
		status, shown, err := render(http.StatusOK, ReplayPreview{DryRun: true, Matching: n, LowerBound: !exact})
		return &answer{Status: status, ContentType: jsonType, Body: shown}, err
	}
	order.Render = func(j jobs.Job) (int, []byte, error) { return render(http.StatusAccepted, showJob(j)) }
	got, err := s.engine.ReplayAll(ctx, order)
	if err != nil {
		return nil, err
	}
	return rendered(got), nil
}
