package api

import (
	"context"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
)

// Trouble is something that a credential that is active has with its provider.
type Trouble struct {
	Reason      string    `json:"reason" enum:"credential_denied,credential_paused,throttled,unreachable,failing"`
	PushService string    `json:"push_service,omitempty" doc:"The one that it is about; absent: all"`
	Detail      string    `json:"detail,omitempty" doc:"What the provider said"`
	Since       time.Time `json:"since"`
	Until       time.Time `json:"until,omitzero" doc:"Nothing is sent before, but for a look now and then"`
}

// troubles lists, by credential, what keeps some of its deliveries from being sent
// while it is active.
func (s *Server) troubles(ctx context.Context, tenant ids.ID) (map[string][]Trouble, error) {
	holds, err := s.reads.StandingHolds(ctx, tenant)
	if err != nil {
		return nil, err
	}
	waits, err := s.reads.Waits(ctx, tenant)
	out := map[string][]Trouble{}
	add := func(id ids.ID, t Trouble) {
		out[id.Format(ids.Credential)] = append(out[id.Format(ids.Credential)], t)
	}
	for _, h := range holds {
		if h.Scope == delivery.HoldCredential && h.Qualifier != "" {
			add(h.Subject, Trouble{PushService: h.Qualifier, Reason: h.Reason.String(), Detail: h.Detail, Since: timestamp(h.Since)})
		}
	}
	for _, w := range waits {
		if w.Channel != channels.Webhook {
			add(w.Subject, Trouble{PushService: w.Origin, Reason: w.Cause.String(), Detail: w.Detail, Since: timestamp(w.Since), Until: timestamp(w.Until)})
		}
	}
	return out, err
}
