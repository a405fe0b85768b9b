package delivery

import (
	"log/slog"
	"time"

	"github.com/carillonhq/carillon/channels"
)

// record writes what an attempt means, and lets those know whom it concerns: the
// gates of its provider, the metrics, the log, and the doubts about its credential.
func (a *attempter) record(it *inflight, r *route, ans *answer, n noted, t Transition) {
	switch {
	case ans.Outcome == channels.Accepted:
		p := passageOf(it, r.credential)
		a.gates.success(p, ans.asked, ans.at, r.look)
		a.waits.succeeded(p, r.waits, ans.asked, ans.at, r.look)
	case !t.WaitUntil.IsZero():
		a.closeGate(it, r, ans, t.WaitScope, t.WaitUntil)
	}
	if ans.Outcome == channels.Retry && ans.Renew == channels.RenewNothing {
		a.failed(it, r, ans)
	}
	if !t.WiderUntil.IsZero() && a.gates.throttled(gateOf(t.WiderScope, it, r.version().credential), it.UserID, ans.at) {
		a.closeGate(it, r, ans, t.WiderScope, t.WiderUntil)
	}
	a.metrics.attempt(it.Channel, ans.Result, ans.at.Sub(ans.asked))
	a.logAttempt(it, ans, &t)
	a.finisher.finish(it, outcomeOf(it, r, ans, n, t))
	if r.credential == nil {
		return
	}
	switch {
	case n.opened:
		a.doubts.breakerOpened(r.version(), n.since, ans.at)
	case ans.Outcome == channels.Accepted:
		a.doubts.confirm(it.Tenant, r.version())
	}
}

// outcomeOf is what is written of an attempt.
func outcomeOf(it *inflight, r *route, ans *answer, n noted, t Transition) Finish {
	v := r.version()
	f := Finish{
		Transition: t, Credential: v.credential, Version: v.version, Learned: ans.Environment, StartedAt: ans.asked, Prove: n.first,
		Attempt: &Attempt{Number: it.Attempts + 1, At: ans.asked, Duration: ans.at.Sub(ans.asked), Outcome: ans.Outcome, Code: ans.Code,
			Detail: ans.Detail, Status: ans.Status, ProviderID: ans.ProviderID, Ambiguous: ans.Ambiguous},
	}
	if ans.Outcome == channels.Accepted && it.Channel == channels.WebPush && it.target.VAPIDKey != r.credential.Qualifier {
		f.LearnedKey = r.credential.Qualifier
	}
	switch t.Hold {
	case HoldDoubt:
		f.Hold = Hold{Scope: HoldDoubt, Subject: v.credential, Version: v.version, Detail: ans.Detail, Reason: InDoubt}
	case HoldRefusal:
		f.Hold = Hold{Scope: HoldRefusal, Subject: v.credential, Version: v.version, Detail: ans.Detail, Reason: InDoubt, Qualifier: subjectOf(it, v).origin}
	case HoldCredential:
		f.Hold = Hold{Scope: HoldCredential, Subject: v.credential, Detail: ans.Detail, Reason: CredentialDenied}
		if ans.Scope == channels.ScopeOrigin {
			f.Hold.Qualifier = subjectOf(it, v).origin
		}
	default:
	}
	return f
}

// closeGate makes a scope wait, on all nodes unless it is a single device.
func (a *attempter) closeGate(it *inflight, r *route, ans *answer, s channels.Scope, until time.Time) {
	v := r.version()
	k := gateOf(s, it, v.credential)
	a.gates.close(k, until, ans.at, waitOf(it, k, ans), r.waits[k])
	if isShared(it.Channel, s) {
		a.waits.closed(it.Tenant, k, v.version, urlOf(it), ans.at)
	}
}

// failed notes a failure that is a matter of the provider's, or of the network's. A host
// that cannot be reached is the same for every device.
func (a *attempter) failed(it *inflight, r *route, ans *answer) {
	v := r.version()
	k := flowKey{id: it.Target}
	if it.Channel != channels.Webhook {
		k = flowKey{id: v.credential, origin: subjectOf(it, v).origin}
	}
	if w, tell := a.gates.failed(k, it.UserID, it.Channel == channels.Webhook || ans.Unreached, waitOf(it, k, ans), ans.at); tell {
		a.waits.failed(NoteWait{Wait: w, Version: v.version, URL: urlOf(it)})
	}
}

// waitOf is what an answer says of a scope.
func waitOf(it *inflight, k flowKey, ans *answer) Wait {
	w := Wait{Tenant: it.Tenant, Subject: k.id, Origin: k.origin, Channel: it.Channel, Cause: WaitFailing, Detail: ans.Detail, Since: ans.at, NotedAt: ans.at}
	switch {
	case ans.Outcome == channels.Throttled:
		w.Cause = WaitThrottled
	case ans.Unreached:
		w.Cause = WaitUnreachable
	}
	return w
}

// urlOf is the address of an endpoint that something was sent to.
func urlOf(it *inflight) string {
	if it.Channel != channels.Webhook {
		return ""
	}
	return it.target.Target.Address
}

// logAttempt writes one wide line per attempt: failures always, successes only
// at debug level.
func (a *attempter) logAttempt(it *inflight, ans *answer, t *Transition) {
	level := slog.LevelInfo
	if ans.Outcome == channels.Accepted {
		level = slog.LevelDebug
	}
	if !a.log.Enabled(a.running, level) {
		return
	}
	a.log.LogAttrs(a.running, level, "delivery.attempted",
		slog.Attr{Key: "tenant", Value: a.who(it.Tenant)}, slog.String("delivery", it.String()),
		slog.String("channel", it.Channel.String()), slog.Int("attempt", it.Attempts+1), slog.String("outcome", ans.Outcome.String()),
		slog.String("code", ans.Code), slog.Int("status", ans.Status), slog.Duration("took", ans.at.Sub(ans.asked)),
		slog.String("state", t.State.String()), slog.String("reason", t.Reason.String()), slog.Time("due", t.DueAt), slog.Int("spent", t.Spent))
}
