package api

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// DeviceRestore asks for many devices to be made active again, or to be retired.
type DeviceRestore struct {
	Filter DeviceRestoreFilter `json:"filter" doc:"Which; at least one member beside status. A device is selected when all members fit"`
	DryRun bool                `json:"dry_run,omitempty" doc:"Only count"`
}

// DeviceRestoreFilter selects retired or suspect devices.
type DeviceRestoreFilter struct {
	Status     string    `json:"status,omitempty" enum:"retired,suspect" doc:"retired where absent"`
	Reason     string    `json:"reason,omitempty" maxLength:"128" example:"fcm.unregistered" doc:"As the device shows it"`
	Channel    string    `json:"channel,omitempty" enum:"fcm,apns,webpush"`
	App        string    `json:"app,omitempty" maxLength:"63"`
	User       string    `json:"user,omitempty" maxLength:"255"`
	Credential string    `json:"credential,omitempty" example:"crd_0d1kq3w8r000c" doc:"Whose verdict it was"`
	Version    int       `json:"version,omitempty" minimum:"1" doc:"Of that credential"`
	Since      time.Time `json:"since,omitzero" doc:"Came to the status then or later; RFC 3339"`
	Until      time.Time `json:"until,omitzero" doc:"Came to it before; RFC 3339. What comes to it after the call is never restored"`
}

// DeviceRestorePreview is the answer to a dry run.
type DeviceRestorePreview struct {
	DryRun     bool `json:"dry_run"`
	Matching   int  `json:"matching" doc:"Devices that the filter selects now"`
	LowerBound bool `json:"lower_bound" doc:"Counting took too long: there may be more"`
}

func (s *Server) restoreDevicesRoute(tag string) route {
	return route{method: http.MethodPost, path: "/v1/devices/restore", access: needs(tenants.Devices), id: "restoreDevices", tag: tag, status: http.StatusAccepted, idempotent: true,
		summary: "Make many devices active again", handler: previewed[DeviceRestore, Job](s.restoreDevices), preview: reflect.TypeFor[DeviceRestorePreview](),
		about: "For devices that were retired, or made suspect, by mistake, such as by a wrong credential. A job in the background does it: see /v1/jobs. " +
			"An address that is dead after all is retired by its next send. With dry_run nothing is done: the answer is 200 and a DeviceRestorePreview.",
		example: `{"filter":{"reason":"fcm.unregistered","since":"2026-01-31T12:00:00Z"}}`}
}

func (s *Server) retireDevicesRoute(tag string) route {
	return route{method: http.MethodPost, path: "/v1/devices/retire", access: needs(tenants.Devices), id: "retireDevices", tag: tag, status: http.StatusAccepted, idempotent: true,
		summary: "Retire many suspect devices", handler: previewed[DeviceRestore, Job](s.retireDevices), preview: reflect.TypeFor[DeviceRestorePreview](),
		about: "For suspects whose addresses are known to be dead: they get nothing any more until their apps register them again, or they are restored. " +
			"The filter is that of a restore, with suspect as its only status. With dry_run nothing is done.",
		example: `{"filter":{"reason":"fcm.unregistered","until":"2026-01-31T12:00:00Z"}}`}
}

// filter turns the body into what the engine takes.
func (b *DeviceRestore) filter() (devices.RestoreFilter, error) {
	in := &b.Filter
	f := devices.RestoreFilter{Reason: in.Reason, App: in.App, User: in.User, Version: in.Version, Since: in.Since, Until: in.Until}
	var (
		faults problem.Fields
		known  bool
		err    error
	)
	if f.Status, known = devices.ParseStatus(in.Status); in.Status != "" && (!known || f.Status == devices.Active) {
		faults.Add("filter.status", "must be retired or suspect")
	}
	if f.Channel, known = channels.ParseKind(in.Channel); in.Channel != "" && (!known || f.Channel == channels.Webhook) {
		faults.Add("filter.channel", "must be fcm, apns or webpush")
	}
	if in.Credential != "" {
		if f.Credential, err = ids.Parse(ids.Credential, in.Credential); err != nil {
			badID(&faults, "filter.credential", ids.Credential)
		}
	}
	for _, x := range []struct {
		path, text string
		most       int
	}{{"filter.reason", f.Reason, 128}, {"filter.app", f.App, 63}, {"filter.user", f.User, 255}} {
		if len(x.text) > x.most {
			faults.Add(x.path, "must be at most %d bytes", x.most)
		}
	}
	if err = faults.Err(); err == nil { // otherwise a filter of faults only would be called empty
		err = f.Check()
	}
	return f, err
}

func (s *Server) restoreDevices(ctx context.Context, c *call) (*answer, error) {
	return s.orderDevices(ctx, c, restoreRoute)
}

func (s *Server) retireDevices(ctx context.Context, c *call) (*answer, error) {
	return s.orderDevices(ctx, c, retireRoute)
}

// orderDevices makes the job that restores devices, or retires them.
func (s *Server) orderDevices(ctx context.Context, c *call, route string) (*answer, error) {
	key, stored, err := s.repeated(ctx, c, route)
	if err != nil || stored != nil {
		return stored, err
	}
	var body DeviceRestore
	if err := decode(c.body, &body); err != nil {
		return nil, err
	}
	o := delivery.DeviceRestoreOrder{Tenant: c.tenant, Actor: c.actor, Idempotency: key, Retire: route == retireRoute}
	if o.Retire && body.Filter.Status == "" {
		body.Filter.Status = devices.Suspect.String()
	}
	if o.Filter, err = body.filter(); err != nil {
		return nil, err
	}
	if body.DryRun || c.dryRun {
		n, exact, err := s.engine.CountRestorable(ctx, o)
		if err != nil {
			return nil, err
		}
		status, shown, err := render(http.StatusOK, DeviceRestorePreview{DryRun: true, Matching: n, LowerBound: !exact})
		return &answer{Status: status, ContentType: jsonType, Body: shown}, err
	}
	o.Render = func(j jobs.Job) (int, []byte, error) { return render(http.StatusAccepted, showJob(j)) }
	got, err := s.engine.RestoreDevices(ctx, o)
	if err != nil {
		return nil, err
	}
	return rendered(got), nil
}
