package delivery

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
)

// send makes the one request of an attempt.
func (a *attempter) send(it *inflight, r *route) answer {
	failpoint.Hit("send.begin")
	asked := a.now()
	it.began.Store(asked.UnixMilli())
	ctx, cancel := context.WithTimeout(a.sending, a.sendTimeout)
	result := a.sendSafely(ctx, r.sender, it, channels.Life{
		Delivery: it.String(), Notification: it.Notification.Format(ids.Notification),
		UUID: uuidOf(it.Notification, it.Target), Attempt: it.Attempts + 1, Renewed: it.Renewed, AtMostOnce: it.atMostOnce, ExpiresAt: it.ExpiresAt,
	})
	cancel()
	it.began.Store(0)
	failpoint.Hit("send.answered")
	return answer{Result: result, asked: asked, at: a.now()}
}

// sendSafely keeps a panic in a channel from taking the node, and all it has in
// hand, down with one delivery.
func (a *attempter) sendSafely(ctx context.Context, s *sender, it *inflight, l channels.Life) (r channels.Result) {
	defer func() {
		x := recover()
		if x == nil {
			return
		}
		why := fmt.Sprintf("%T", x) // its text may hold what no log should
		if known, ok := x.(runtime.Error); ok {
			why = known.Error()
		}
		a.log.Error("a channel panicked", "tenant", a.who(it.Tenant), "channel", it.Channel.String(), "delivery", l.Delivery, "panic", why, "stack", string(debug.Stack()))
		r = channels.Result{Outcome: channels.Retry, Code: "engine.panic", Detail: "The channel failed.", Ambiguous: true, MaxTries: 3}
	}()
	return s.Send(ctx, it.target.Target, it.payload, l)
}
