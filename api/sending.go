package api

import (
	"context"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/problem"
)

// Sending tells whether anything is sent at all.
type Sending struct {
	Paused     bool      `json:"paused" doc:"Nothing is sent, by any node; notifications are accepted and wait"`
	Since      time.Time `json:"since,omitzero"`
	Reason     string    `json:"reason,omitempty"`
	PausedBy   string    `json:"paused_by,omitempty" doc:"A key, or cli" example:"key_0d1kq3w8r000c"`
	RestoredAt time.Time `json:"restored_at,omitzero" doc:"The database was restored from a backup then, and what it holds has to be judged first: carillon after-restore"`
}

// SendingPut is what can be changed of it.
type SendingPut struct {
	Paused *bool  `json:"paused" nullable:"false"`
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"For whoever finds it paused"`
}

func (s *Server) sendingRoutes() []route {
	operator := access{kind: byOperator}
	const tag = "Installation"
	return []route{
		{method: http.MethodGet, path: "/v1/sending", access: operator, id: "getSending", tag: tag,
			summary: "Tell whether sending is paused", handler: withoutBody(s.getSending)},
		{method: http.MethodPut, path: "/v1/sending", access: operator, id: "putSending", tag: tag,
			summary: "Pause or resume all sending",
			about: "While it is paused no node sends a push or a webhook; notifications are accepted, and wait as long as their time to live allows. " +
				"Other nodes obey within a second, and requests that are under way are finished. " +
				"After a restore from a backup it answers 409: what the backup holds has to be judged first.",
			handler: withBody(s.putSending), example: `{"paused":true,"reason":"provider outage"}`},
	}
}

func (s *Server) getSending(context.Context, *call, *none) (Sending, error) {
	return showSending(s.engine.Sending()), nil
}

func (s *Server) putSending(ctx context.Context, c *call, _ *none, in *SendingPut) (Sending, error) {
	var (
		p   delivery.Pause
		err error
	)
	switch {
	case in.Paused == nil: // a slip must not resume what somebody has paused
		return Sending{}, problem.AtField("paused", "is missing; say true or false")
	case *in.Paused:
		p, err = s.engine.PauseSending(ctx, in.Reason, c.actor)
	default:
		p, err = s.engine.ResumeSending(ctx, c.actor)
	}
	return showSending(p), err
}

func showSending(p delivery.Pause) Sending {
	if !p.On() {
		return Sending{}
	}
	return Sending{Paused: true, Since: timestamp(p.Since), Reason: p.Reason, PausedBy: p.Actor, RestoredAt: timestamp(p.Restored)}
}
