package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// UsageReader tells what tenants have of what they share. *delivery.Engine is one.
type UsageReader interface {
	// Usage lists what a tenant has of each.
	Usage(tenant ids.ID) []delivery.Usage
	// Busiest lists the tenants with the most that is unfinished, up to a number.
	Busiest(most int) []ids.ID
}

// busiestTenants are listed to an operator.
const busiestTenants = 100

// TenantUsage is what a tenant has of what tenants share.
type TenantUsage struct {
	Tenant string  `json:"tenant" doc:"Its name"`
	Limits []Limit `json:"limits"`
}

// Limit is how much of something a tenant has, and how much it may have.
type Limit struct {
	Name     string    `json:"name" enum:"deliveries_due,deliveries_unfinished,sends_in_flight,requests_in_hand,user_requests_in_hand,request_bytes_in_hand,requests_per_second,urgent_per_second,devices,endpoints"`
	Used     int       `json:"used" doc:"Now; of a rate, what of at_once is used up and does not count again yet"`
	Limit    float64   `json:"limit" doc:"The most that it may be now. What tenants share changes with how many have work. Of a rate, how many in a second, on average"`
	AtOnce   int       `json:"at_once,omitzero" doc:"Of a rate: how many may come at once after a pause"`
	Waiting  int       `json:"waiting,omitzero" doc:"How much waits for a place"`
	ClearsAt time.Time `json:"clears_at,omitzero" doc:"When about all that is used will be free: of deliveries at the pace at which the tenant's have ended within the last seconds, of a rate at that rate. Absent where that is not known, as long as no delivery has ended, and for what has no pace"`
}

func (s *Server) usageRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/v1/usage", access: orInstallation(tenants.Read), id: "getUsage", tag: "Installation",
			summary: "Tell what a tenant uses of each limit",
			about: "Who has all that a limit allows is answered 429 until some of it is free. `deliveries_due` are those that wait for nothing but their turn, in the database or in the memory of the server that answers; what waits for a time, a retry or a " +
				"person is in `deliveries_unfinished`, with all else that is not final. `sends_in_flight` and what is in hand are those of the server that answers, the others of all servers of the database; devices and endpoints are counted every ten minutes or less often. An operator's key " +
				"that names no tenant is told of the 100 tenants with the most that is unfinished.",
			handler: withoutBody(s.getUsage)},
	}
}

func (s *Server) getUsage(ctx context.Context, c *call, _ *none) (List[TenantUsage], error) {
	which := []ids.ID{c.tenant}
	if c.tenant == 0 {
		which = s.engine.Busiest(busiestTenants)
	}
	out := List[TenantUsage]{Data: []TenantUsage{}}
	for _, id := range which {
		t, err := s.tenants.Tenant(ctx, id)
		if problem.CodeOf(err) == problem.NotFound && c.tenant == 0 {
			continue // it was deleted meanwhile
		}
		if err != nil {
			return out, err
		}
		out.Data = append(out.Data, TenantUsage{Tenant: t.Name, Limits: s.limitsNow(id)})
	}
	return out, nil
}

func (s *Server) limitsNow(tenant ids.ID) []Limit {
	now := s.now()
	all := append(s.engine.Usage(tenant), s.limits.usage(tenant)...)
	out := make([]Limit, 0, len(all)+len(s.quotas))
	for _, u := range all {
		l := Limit{Name: u.Limit, Used: u.Used, Limit: float64(u.Most), Waiting: u.Waiting}
		if u.Rate > 0 {
			l.Limit, l.AtOnce = u.Rate, u.Most
		}
		if u.Used > 0 && u.Clears > 0 {
			l.ClearsAt = timestamp(now.Add(u.Clears))
		}
		out = append(out, l)
	}
	for _, q := range s.quotas {
		if what, used, most, known := q.Usage(tenant); known {
			out = append(out, Limit{Name: what, Used: used, Limit: float64(most)})
		}
	}
	return out
}
