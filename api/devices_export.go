package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/devices/lists"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// DeviceExport gives devices away with all that registers them again. devices.Registry is one.
type DeviceExport interface {
	BeginExport(ctx context.Context, tenant ids.ID, f devices.Filter, what, actor string) error
	ExportPage(ctx context.Context, tenant ids.ID, f devices.Filter) (list []devices.Device, next ids.ID, err error)
}

const (
	// completeHeader says that an export is whole: a header where the answer is one page, and a
	// trailer otherwise. A proxy may lose the trailer, but not the header.
	completeHeader = "Carillon-Complete"
	exportChunk    = 64 << 10 // bytes that are written at a time
	// exportWait is how long a client may take for a chunk.
	exportWait = 30 * time.Second
)

type deviceExport struct {
	Format  string `query:"format" enum:"ndjson,csv" default:"ndjson"`
	App     string `query:"app" maxLength:"63"`
	Channel string `query:"channel" enum:"fcm,apns,webpush"`
	Status  string `query:"status" enum:"active,suspect,retired" doc:"Absent: all but those that are retired or have expired"`
	After   string `query:"after" doc:"The id of the last device that was received: the export goes on behind it" example:"dev_0d1kq3w8r000c"`
}

func exportTypes() map[string]string {
	return map[string]string{"ndjson": "application/x-ndjson", "csv": "text/csv"}
}

func (s *Server) exportDevicesRoute(tag string) route {
	return route{method: http.MethodGet, path: "/v1/devices/export", access: needs(tenants.Admin), id: "exportDevices", tag: tag,
		summary: "Export devices with their addresses and keys", handler: streams(exportTypes(), s.exportDevices),
		about: "All devices in the order of their ids, oldest first, as a list that registers them again: a line of NDJSON is a member of POST /v1/devices/batch with its id beside it, " +
			"CSV has the same as columns. It holds what it takes to send to them, and each call is in the audit. The answer is whole if it has Carillon-Complete: true, " +
			"as a trailer, or as a header where it is short. One that was cut goes on with after. A tenant has two at a time."}
}

// exportDevices checks what is asked for and reads the first page, so that what goes wrong until
// then is a problem document.
func (s *Server) exportDevices(ctx context.Context, c *call, p *deviceExport) (stream, error) {
	f := devices.Filter{App: p.App}
	f.Channel, _ = channels.ParseKind(p.Channel)
	f.Status, _ = devices.ParseStatus(p.Status)
	if p.After != "" {
		var err error
		if f.After, err = ids.Parse(ids.Device, p.After); err != nil {
			return nil, problem.AtField("after", "is not the id of a device; give that of the last one that was received, dev_...")
		}
	}
	leave, err := s.limits.exports.enter(c.tenant)
	if err != nil {
		return nil, err
	}
	e := &exporting{Server: s, tenant: c.tenant, filter: f}
	if err := e.begin(ctx, p.Format, c.actor); err != nil {
		leave()
		return nil, err
	}
	return func(w http.ResponseWriter) {
		defer leave()
		w.Header().Set("Content-Type", exportTypes()[p.Format])
		if err := e.send(ctx, w); err != nil {
			if ctx.Err() == nil {
				s.log.WarnContext(ctx, "an export of devices was cut", "request_id", c.requestID, "error", err)
			}
			panic(http.ErrAbortHandler) // the client must not take it for a whole one
		}
	}, nil
}

// exporting is an export that is under way.
type exporting struct {
	*Server
	tenant ids.ID
	filter devices.Filter // After is where the next page begins
	more   bool
	page   bytes.Buffer // what is to be sent next
	list   *lists.Writer
}

func (e *exporting) begin(ctx context.Context, format, actor string) (err error) {
	if err := e.devices.BeginExport(ctx, e.tenant, e.filter, format, actor); err != nil {
		return err
	}
	if e.list, err = lists.NewWriter(&e.page, lists.Format(format)); err != nil {
		return err
	}
	return e.read(ctx)
}

// next has a place among the tenant's reads for as long as it reads, and not for as long as a client
// takes to receive what was read.
func (e *exporting) next(ctx context.Context) ([]devices.Device, ids.ID, error) {
	leave, err := e.limits.reads.enter(ctx, place{who: e.tenant})
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	return e.devices.ExportPage(ctx, e.tenant, e.filter)
}

// read makes the next page ready to be sent.
func (e *exporting) read(ctx context.Context) error {
	rows, next, err := e.next(ctx)
	if err != nil {
		return err
	}
	e.filter.After, e.more = next, next != 0
	for i := range rows {
		if err := e.list.Write(listed(&rows[i])); err != nil {
			return err
		}
	}
	return e.list.Flush()
}

func (e *exporting) send(ctx context.Context, w http.ResponseWriter) error {
	control := http.NewResponseController(w)
	// The server's deadlines are for a request that is answered at once. Where the writer knows
	// none, as in tests, nothing is set.
	_ = control.SetReadDeadline(time.Time{})
	if e.more {
		w.Header().Set("Trailer", completeHeader)
	} else {
		w.Header().Set(completeHeader, "true")
		w.Header().Set("Content-Length", strconv.Itoa(e.page.Len()))
	}
	w.WriteHeader(http.StatusOK)
	for {
		for e.page.Len() > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(exportWait))
			if _, err := w.Write(e.page.Next(exportChunk)); err != nil {
				return err
			}
		}
		if !e.more {
			break
		}
		_ = control.SetWriteDeadline(time.Now().Add(exportWait))
		if err := control.Flush(); err != nil {
			return err
		}
		if err := e.read(ctx); err != nil {
			return err
		}
	}
	_ = control.SetWriteDeadline(time.Now().Add(exportWait))
	w.Header().Set(completeHeader, "true")
	return nil
}

// listed is a device as a list has it.
func listed(d *devices.Device) lists.Device {
	x := d.Target
	out := lists.Device{ID: d.ID.Format(ids.Device), User: d.User, App: d.App, Channel: d.Channel.String(), Environment: string(x.Environment),
		ActivityID: d.ActivityID, InstallationID: d.InstallationID, OS: x.OS, AppVersion: d.AppVersion, Locale: d.Locale, TimeZone: d.TimeZone,
		Tags: d.Tags, RegisteredAt: timestamp(x.RegisteredAt), LastSeenAt: timestamp(d.LastSeenAt)}
	switch {
	case x.Kind == channels.Subscription:
		out.Subscription = &lists.Subscription{Endpoint: x.Address, VAPIDKey: d.VAPIDKey,
			Keys: lists.Keys{P256dh: base64.RawURLEncoding.EncodeToString(x.P256dh), Auth: base64.RawURLEncoding.EncodeToString(x.Auth)}}
		if !d.ExpiresAt.IsZero() {
			ms := float64(d.ExpiresAt.UnixMilli())
			out.Subscription.ExpirationTime = &ms
		}
		return out
	case x.Kind == channels.FCMFid:
		out.FID = x.Address
	default:
		out.Token = x.Address
	}
	if d.Channel == channels.APNs {
		out.Purpose, out.ExpiresAt = d.Purpose.String(), timestamp(d.ExpiresAt)
	}
	return out
}
