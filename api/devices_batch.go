package api

import (
	"context"
	"net/http"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// DeviceBatch is many devices to be registered.
type DeviceBatch struct {
	Devices []DevicePut `json:"devices" minItems:"1" maxItems:"1000"`
}

// DeviceBatchResult has one entry for each device of the request, in order.
type DeviceBatchResult struct {
	Results []DeviceBatchEntry `json:"results"`
}

// DeviceBatchEntry is what became of a device, or an error.
type DeviceBatchEntry struct {
	ID     string   `json:"id,omitempty" example:"dev_0d1kq3w8r000c"`
	Status string   `json:"status,omitempty" enum:"created,rebound,replaced,updated" doc:"created: the address was not known before; rebound: it, or its installation, was another user's, who has lost it now; replaced: an older address of the same installation gave way to it; updated: none of these"`
	Error  *Problem `json:"error,omitempty" doc:"Why this one was refused; paths begin at its own members"`
}

func (s *Server) deviceBatchRoute(tag string) route {
	return route{method: http.MethodPost, path: "/v1/devices/batch", access: needs(tenants.Devices), id: "putDevices", tag: tag,
		summary: "Register up to 1,000 devices", handler: readsBody[DeviceBatch, DeviceBatchResult](s.putDevices),
		about: "Each is what PUT /v1/devices takes, and comes to the same, one after the other: of those with one address the last wins. One that is refused does not keep " +
			"the others from being registered; results has one entry for each, in order. They are stored in parts of 250. What fails on the way has an error of its own, and " +
			"may be sent again: registering a device once more changes nothing.",
		example: `{"devices":[{"user":"u1","channel":"fcm","token":"cWz4..."},{"user":"u2","channel":"apns","token":"9f1c..."}]}`}
}

// putDevices reads its members one by one, so that one that cannot be read keeps no other back.
func (s *Server) putDevices(ctx context.Context, c *call) (DeviceBatchResult, error) {
	var body struct {
		Devices []jsontext.Value `json:"devices"`
	}
	if err := decode(c.body, &body); err != nil {
		return DeviceBatchResult{}, err
	}
	n := len(body.Devices)
	if n == 0 || n > devices.MaxBatch {
		return DeviceBatchResult{}, problem.AtField("devices", "has %d members; send 1 to %d", n, devices.MaxBatch)
	}
	out := DeviceBatchResult{Results: make([]DeviceBatchEntry, n)}
	list, names, places := make([]devices.Registration, 0, n), make([]renames, 0, n), make([]int, 0, n)
	for i, raw := range body.Devices {
		var in DevicePut
		err := decode(raw, &in)
		if err == nil {
			var (
				r       devices.Registration
				renamed renames
			)
			if r, renamed, err = in.registration(in.User); err == nil {
				list, names, places = append(list, r), append(names, renamed), append(places, i)
			}
		}
		if err != nil {
			out.Results[i].Error = newProblem(err, "")
		}
	}
	done, err := s.devices.RegisterAll(ctx, c.tenant, list, devices.Caller{Actor: c.actor})
	if err != nil {
		return DeviceBatchResult{}, err
	}
	var failed *Problem // what the store said of all that it did not take; it is logged once
	for i, got := range done {
		if got.Err != nil && problem.CodeOf(got.Err) == problem.Internal {
			if failed == nil {
				failed = s.problem(ctx, c, got.Err)
			}
			out.Results[places[i]].Error = failed
			continue
		}
		out.Results[places[i]] = showRegistered(got, names[i])
	}
	return out, nil
}

func showRegistered(got devices.Registered, names renames) DeviceBatchEntry {
	e := DeviceBatchEntry{ID: got.Device.ID.Format(ids.Device), Status: "updated"}
	switch {
	case got.Err != nil:
		return DeviceBatchEntry{Error: newProblem(names.of(got.Err), "")}
	case got.Created:
		e.Status = "created"
	case got.Rebound:
		e.Status = "rebound"
	case got.Replaced:
		e.Status = "replaced"
	}
	return e
}
