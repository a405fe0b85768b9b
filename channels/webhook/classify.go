package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/channels/egress"
)

// classify turns an answer into a verdict, as Standard Webhooks advises: 2xx is
// success, 410 ends the endpoint, and all else is tried again on schedule,
// because receivers deploy fixes and gateways give spurious answers. A
// Retry-After is honoured with any status.
func classify(ctx context.Context, a egress.Answer, now time.Time) channels.Result {
	switch {
	case errors.Is(a.Err, egress.ErrRefused):
		// The reason would tell a tenant what lies inside the operator's network.
		return rejected("webhook.refused_address", "The endpoint's address is not allowed by the operator.")
	case errors.Is(a.Err, egress.ErrHeaders):
		return channels.HeadersTooLarge("webhook.headers_too_large", egress.MaxHeaderBytes>>10, a.Wrote)
	case a.Err != nil:
		return noAnswer(ctx, &a)
	}
	r := channels.Result{
		Outcome:   channels.Retry,
		Status:    a.Status,
		Detail:    fmt.Sprintf("The receiver answered %d.", a.Status),
		NotBefore: channels.RetryAfter(a.Header, now),
	}
	if text := http.StatusText(a.Status); text != "" {
		r.Detail = fmt.Sprintf("The receiver answered %d %s.", a.Status, text)
	}
	asked := !r.NotBefore.IsZero()
	switch {
	case a.Status >= 200 && a.Status <= 299:
		r.Outcome, r.Code, r.NotBefore = channels.Accepted, "webhook.accepted", time.Time{}
	case a.Status >= 300 && a.Status <= 399:
		r.Code = "webhook.redirect"
		r.Detail += " Redirects are not followed; set the endpoint's URL to the new address."
	case a.Status == http.StatusGone:
		r.Outcome, r.Code, r.NotBefore = channels.Gone, "webhook.gone", time.Time{}
	case a.Status == http.StatusTooManyRequests:
		r.Outcome, r.Code = channels.Throttled, "webhook.throttled"
	case a.Status == http.StatusBadGateway, a.Status == http.StatusServiceUnavailable, a.Status == http.StatusGatewayTimeout:
		r.Code = "webhook.unavailable"
		if asked {
			r.Outcome = channels.Throttled
		}
	case a.Status >= 400 && a.Status <= 499:
		r.Code = "webhook.client_error"
	case a.Status >= 500 && a.Status <= 599:
		r.Code = "webhook.server_error"
	default: // 101 Switching Protocols above all, since nothing was asked to be switched
		r.Code = "webhook.unexpected_status"
	}
	return r
}

// noAnswer is the verdict on a request without one. Receivers close connections that
// are idle, and what is sent at the same moment meets a closed one: it is sent again at
// once, on a connection of its own, where the same is a failure like others.
func noAnswer(ctx context.Context, a *egress.Answer) channels.Result {
	r := channels.FromTransport(ctx, a.Err, a.Wrote)
	if a.Reused && !a.Began {
		switch r.Code {
		case "transport.closed", "transport.reset", "transport.goaway":
			r.Renew = channels.RenewConnection
			r.Detail += " It had been open since an earlier request; another one is made at once."
		}
	}
	return r
}

func rejected(code, detail string) channels.Result {
	return channels.Result{Outcome: channels.Rejected, Code: code, Detail: detail}
}
