package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// targetAge is how old a target may be when it is sent to. What waited longer is
// read again, so that a device which changed hands meanwhile is not served.
const targetAge = 2 * time.Second

// An outcome that could not be written is tried again after a pause, so often;
// then its lease is left to end and the delivery is taken over.
const (
	retryWrite = time.Second
	writeTries = 60
)

// keyOf is the bulkhead that an item shares.
func keyOf(it *item) flowKey {
	switch it.Channel {
	case channels.Webhook:
		return flowKey{id: it.Target}
	case channels.WebPush:
		return flowKey{id: it.Credential, origin: originOf(it.now.Target.Address)}
	}
	return flowKey{id: it.Credential}
}

// originOf cuts a URL after its host: https://push.example.com.
func originOf(raw string) string {
	scheme := strings.Index(raw, "://")
	if scheme < 0 {
		return ""
	}
	if path := strings.IndexByte(raw[scheme+3:], '/'); path >= 0 {
		return raw[:scheme+3+path]
	}
	return raw
}

// serve makes at most one attempt.
func (e *Engine) serve(it *item) mood {
	ctx := e.sendCtx
	now := e.o.Now()
	switch {
	case e.Sending().On():
		e.giveBack(it)
		return unasked
	case it.canceled.Load():
		e.finish(it, Finish{Transition: cancel(it.Spent)})
		return unasked
	case !it.ExpiresAt.After(now):
		e.finish(it, Finish{Transition: expire(it.Channel, it.Spent)})
		return unasked
	}
	if err := e.freshTarget(ctx, it, now); err != nil {
		e.putOff(it, "read the target", err)
		return unasked
	}
	pic, err := e.directory.of(ctx, it.Tenant)
	if err != nil {
		e.putOff(it, "read the tenant", err)
		return unasked
	}
	if t, hold, ok := obstacle(&it.Row, &it.now, pic, now); ok {
		e.finish(it, Finish{Transition: t, Hold: hold})
		return unasked
	}
	cred := pic.credential(&it.now)
	if until := e.gates.until(gatesOf(it, cred), now); !until.IsZero() {
		e.finish(it, Finish{Transition: waitForGate(standing(it), until, now, e.o.Jitter())})
		return unasked
	}
	if it.payload == nil {
		payload, mapping, err := e.payload(ctx, it)
		switch {
		case mapping || problem.CodeOf(err) == problem.NotFound:
			e.finish(it, Finish{Transition: unmappable(it.Spent)})
			return unasked
		case err != nil:
			e.putOff(it, "read the content", err)
			return unasked
		}
		it.payload = payload
	}
	return e.attempt(ctx, it, pic, cred)
}

func standing(it *item) Progress {
	return Progress{Channel: it.Channel, Spent: it.Spent, ExpiresAt: it.ExpiresAt, AtMostOnce: it.atMostOnce, Renewed: it.Renewed}
}

// freshTarget reads the target again when what is in hand is old.
func (e *Engine) freshTarget(ctx context.Context, it *item, now time.Time) error {
	if now.Sub(it.now.ReadAt) < targetAge {
		return nil
	}
	if it.Channel == channels.Webhook {
		if known, ok := e.endpoints.get(it.Target, now); ok {
			it.now = known
			return nil
		}
	}
	t, err := e.o.Store.Target(ctx, it.Tenant, it.Target, it.Channel)
	if err != nil {
		return err
	}
	it.now = t
	if it.Channel == channels.Webhook {
		e.endpoints.put(it.Target, t)
	}
	return nil
}

// attempt sends, and writes what came of it.
func (e *Engine) attempt(ctx context.Context, it *item, pic *picture, cred *tenants.Credential) mood {
	id, version := ids.ID(0), 0
	if cred != nil {
		id, version = cred.ID, cred.Version
	}
	s, err := e.senders.acquire(ctx, it.Tenant, id, it.Channel, version)
	if err != nil {
		e.putOff(it, "open the sender", err)
		return unasked
	}
	defer e.senders.release(s)
	if !e.mayBegin(ctx, it) {
		return unasked
	}

	failpoint.Hit("send.begin")
	started := e.o.Now()
	sendCtx, cancel := context.WithTimeout(ctx, e.o.SendTimeout)
	r := e.send(sendCtx, s, it, channels.Life{
		Delivery: ids.FormatDelivery(it.Notification, it.Target), Notification: it.Notification.Format(ids.Notification),
		UUID: uuidOf(it.Notification, it.Target), Attempt: it.Attempts + 1, Renewed: it.Renewed, ExpiresAt: it.ExpiresAt,
	})
	cancel()
	failpoint.Hit("send.answered")
	now := e.o.Now()
	took := now.Sub(started)

	health, opinion := Health{}, opinion{}
	if cred != nil {
		// What the directory knows may be newer than the sender's version by now.
		if latest, err := e.directory.of(ctx, it.Tenant); err == nil {
			pic = latest
		}
		current := pic.byID[id]
		stale := current == nil || current.Version != s.version
		opinion = e.health.verdict(versionKey{id, s.version}, r, !stale && !current.ProvenAt.IsZero(), it.now.Device == devices.Suspect, now)
		health = opinion.Health
		health.Stale = stale
	}
	_, doubted := pic.holds[holdKey{scope: HoldDoubt, subject: id, version: s.version}]
	d := standing(it)
	d.Undoubted = it.now.Device != devices.Suspect && !doubted
	t := Next(d, r, PolicyOf(it.Channel, pic.settings), health, now, e.o.Jitter())
	f := Finish{
		Transition: t, Credential: id, Version: s.version, Learned: r.Environment, StartedAt: started, Prove: opinion.first,
		Attempt: &Attempt{Number: it.Attempts + 1, At: started, Duration: took, Outcome: r.Outcome, Code: r.Code, Detail: r.Detail,
			Status: r.Status, ProviderID: r.ProviderID, Ambiguous: r.Ambiguous},
	}
	switch t.Hold {
	case HoldDoubt:
		f.Hold = Hold{Scope: HoldDoubt, Subject: id, Version: s.version, Detail: r.Detail, Reason: InDoubt}
	case HoldCredential:
		f.Hold = Hold{Scope: HoldCredential, Subject: id, Detail: r.Detail, Reason: CredentialDenied}
		if r.Scope == channels.ScopeOrigin {
			f.Hold.Qualifier = originOf(it.now.Target.Address)
		}
	default:
	}
	if !t.WaitUntil.IsZero() {
		e.closeGate(t.WaitScope, it, id, t.WaitUntil, now)
	}
	if r.Outcome == channels.Accepted {
		e.gates.calm(gatesOf(it, cred), now)
	}
	e.metrics.attempt(it.Channel, r, took)
	e.logAttempt(it, r, &t, took)
	e.finish(it, f)
	if cred != nil {
		e.afterVerdict(it.Tenant, versionKey{id, s.version}, r, opinion, now)
	}
	if r.Outcome == channels.Retry || r.Outcome == channels.Throttled {
		return upset
	}
	return calm
}

// mayBegin is the last look before the first byte: the row must still be ours for
// longer than the request may take, or another node could send it too. Of what
// must not be sent twice it is written that the attempt begins, so that after a
// crash nothing dies that was only waiting.
func (e *Engine) mayBegin(ctx context.Context, it *item) bool {
	if !e.o.Store.Alive() || ids.ID(it.Claim).Node() != e.o.IDs.Node() || it.lost.Load() || it.leaseLeft(e.o.Now()) < e.o.SendTimeout+time.Second {
		e.giveBack(it)
		return false
	}
	if !it.atMostOnce {
		return true
	}
	ours, err := e.o.Store.Begin(context.WithoutCancel(ctx), it.Row)
	if ours {
		failpoint.Hit("begin.committed")
	}
	switch {
	case err != nil:
		e.putOff(it, "write that the attempt begins", err)
	case !ours:
		e.giveBack(it) // writes nothing: the claim is lost
	case it.canceled.Load(), it.lost.Load(), !it.ExpiresAt.After(e.o.Now()):
		e.giveBack(it) // writing took long; the next claim settles it
		return false
	}
	return err == nil && ours
}

// send keeps a panic in a channel from taking the node, and all it has in hand,
// down with one delivery.
func (e *Engine) send(ctx context.Context, s *sender, it *item, l channels.Life) (r channels.Result) {
	defer func() {
		x := recover()
		if x == nil {
			return
		}
		why := fmt.Sprintf("%T", x) // its text may hold what no log should
		if known, ok := x.(runtime.Error); ok {
			why = known.Error()
		}
		e.o.Log.Error("a channel panicked", "channel", it.Channel.String(), "delivery", l.Delivery, "panic", why, "stack", string(debug.Stack()))
		r = channels.Result{Outcome: channels.Retry, Code: "engine.panic", Detail: "The channel failed.", Ambiguous: true, MaxTries: 3}
	}()
	return s.Send(ctx, it.now.Target, it.payload, l)
}

// afterVerdict settles doubts: a success of a version whose breaker is closed
// confirms what it said of other devices; a breaker that opens takes back what
// the version retired lately.
func (e *Engine) afterVerdict(tenant ids.ID, k versionKey, r channels.Result, o opinion, now time.Time) {
	switch {
	case o.opened:
		e.breakerOpened(k, o.since, now)
	case r.Outcome == channels.Accepted:
		e.settleDoubt(tenant, k)
	default:
	}
}

// breakerOpened takes back what a version has retired lately. On other nodes the
// breaker opens too; whoever is second finds nothing left to take back.
func (e *Engine) breakerOpened(k versionKey, since, now time.Time) {
	n, err := e.o.Store.UnretireDevices(e.loopCtx, k.credential, k.version, since, now)
	e.o.Log.Warn("so many devices were called gone that the credential is in doubt; those retired lately are suspect again",
		"credential", k.credential.Format(ids.Credential), "version", k.version, "devices", n, "error", err)
}

// settleDoubt confirms what a version said of devices once it has had a success
// since. It is looked at after every success, and when the doubt arises, because
// the success may be faster than the news of the doubt: whichever comes second
// sees the other.
func (e *Engine) settleDoubt(tenant ids.ID, k versionKey) {
	pic, err := e.directory.of(e.loopCtx, tenant)
	if err != nil {
		return // the next success looks again
	}
	h, ok := pic.holds[holdKey{scope: HoldDoubt, subject: k.credential, version: k.version}]
	if !ok || !e.health.confirms(k, h.Since) {
		return
	}
	if ended, err := e.o.Store.EndHold(e.loopCtx, h.ID, Confirm); err != nil {
		e.o.Log.Warn("confirm a doubt", "hold", h.ID.Format(ids.Hold), "error", err)
	} else if ended {
		e.changed(tenant)
	}
}

// logAttempt writes one wide line per attempt: failures always, successes only
// at debug level.
func (e *Engine) logAttempt(it *item, r channels.Result, t *Transition, took time.Duration) {
	level := slog.LevelInfo
	if r.Outcome == channels.Accepted {
		level = slog.LevelDebug
	}
	if !e.o.Log.Enabled(e.loopCtx, level) {
		return
	}
	e.o.Log.LogAttrs(e.loopCtx, level, "delivery.attempted",
		slog.Int64("tenant", int64(it.Tenant)), slog.String("delivery", ids.FormatDelivery(it.Notification, it.Target)),
		slog.String("channel", it.Channel.String()), slog.Int("attempt", it.Attempts+1), slog.String("outcome", r.Outcome.String()),
		slog.String("code", r.Code), slog.Int("status", r.Status), slog.Duration("took", took),
		slog.String("state", t.State.String()), slog.String("reason", t.Reason.String()), slog.Time("due", t.DueAt), slog.Int("spent", t.Spent))
}

// giveBack returns an item unspent.
func (e *Engine) giveBack(it *item) {
	e.finish(it, Finish{Transition: unspent(standing(it), e.o.Now())})
}

// crowdedOut returns an item that its flow has no room for: at once when the
// engine stops, else when the flow may have sent what it has.
func (e *Engine) crowdedOut(it *item) {
	if e.stopping.Load() {
		e.giveBack(it)
		return
	}
	e.finish(it, Finish{Transition: crowdOut(standing(it), it.Notification.Time(), e.o.Now(), e.o.Jitter())})
}

// putOff returns an item unspent because of trouble of our own.
func (e *Engine) putOff(it *item, doing string, err error) {
	if e.sendCtx.Err() == nil {
		e.putOffs.note(e.o.Log, "deliveries are put off, because this node could not "+doing, it, err)
	}
	e.finish(it, Finish{Transition: unspent(standing(it), e.o.Now().Add(faultWait))})
}

// finish writes what became of an item and lets go of it after the commit.
func (e *Engine) finish(it *item, f Finish) {
	f.Row, f.Now = it.Row, e.o.Now()
	if f.ExpiresAt.IsZero() {
		f.ExpiresAt = it.ExpiresAt
	}
	e.write(it, f)
}

func (e *Engine) write(it *item, f Finish) {
	e.o.Store.Finish(f, func(res FinishResult) {
		if res.Err != nil && it.tries.Add(1) < writeTries && it.leaseLeft(e.o.Now()) > 0 && !e.stopping.Load() {
			e.unwritten.note(e.o.Log, "outcomes cannot be written; they are tried again", it, res.Err)
			time.AfterFunc(retryWrite, func() { e.write(it, f) })
			return
		}
		e.letGo(it)
		if res.Err != nil {
			e.unwritten.note(e.o.Log, "outcomes could not be written; the deliveries will be taken over", it, res.Err)
			return
		}
		e.written(it, &f, res)
	})
}

// trouble is said once in a while, however many deliveries have it.
type trouble struct {
	mu    sync.Mutex
	said  time.Time
	count int // since
}

const troubleEvery = 5 * time.Second

func (t *trouble) note(log *slog.Logger, what string, it *item, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if time.Since(t.said) < troubleEvery {
		return
	}
	log.Error("this node has trouble with deliveries in hand", "what", what, "deliveries", t.count, "such_as", ids.FormatDelivery(it.Notification, it.Target), "error", err)
	t.said, t.count = time.Now(), 0
}

// written follows up on a committed outcome. It runs in the writer's goroutine,
// so it only hints.
func (e *Engine) written(it *item, f *Finish, res FinishResult) {
	if res.Lost {
		return
	}
	failpoint.Hit("finish.committed")
	t := &res.Written
	e.metrics.moved(it.Channel, t)
	if !t.State.Unfinished() {
		e.backlog.Add(-1)
	}
	switch {
	case res.Opened:
		failpoint.Hit("hold.committed")
		go e.opened(it.Tenant, versionKey{f.Credential, f.Version})
	case t.State == Pending && f.Transition.State == Held: // what is known of the tenant is old
		go e.changed(it.Tenant)
	case t.State == Pending:
		e.wakeAt(t.DueAt)
	}
	if t.Device == DeviceRetired && it.Channel == channels.Webhook {
		e.endpoints.forget(it.Target)
		go e.changed(it.Tenant)
	}
}

// opened follows up on a hold that has just been opened.
func (e *Engine) opened(tenant ids.ID, k versionKey) {
	e.changed(tenant)
	e.settleDoubt(tenant, k)
}

func (e *Engine) letGo(it *item) {
	e.hand.Lock()
	delete(e.inHand, it)
	e.hand.Unlock()
	e.finishes.Done()
}
