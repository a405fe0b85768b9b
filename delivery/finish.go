package delivery

import (
	"log/slog"
	"sync"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
)

// An outcome that could not be written is tried again after a pause, so often;
// then its lease is left to end and the delivery is taken over.
const (
	retryWrite = time.Second
	writeTries = 60
)

// FinishStore writes outcomes.
type FinishStore interface {
	// Finish writes in the background, batched with others, and calls done with
	// what came of it. It blocks while too much waits to be written.
	Finish(f Finish, done func(FinishResult))
}

// Finish writes what became of a leased row. It leaves the row alone when the
// claim has been lost; what the verdict says of the device and the credential
// counts all the same.
type Finish struct {
	Row        Row // identity, claim, and the counters as they were
	Transition Transition
	ExpiresAt  time.Time // the deadline, as it may have moved
	// Attempt is nil when no request was made: the row is deferred, held,
	// expired or given back.
	Attempt    *Attempt
	Credential ids.ID // that was used, with its version
	Version    int
	Hold       Hold                 // for Transition.Hold: which
	Waited     Waited               // without an attempt: what it waits for; zero: as it was
	WaitHasRow bool                 // that is a Wait: without its row it is over
	Prove      bool                 // first success of this version
	Learned    channels.Environment // "" unless the attempt proved one
	LearnedKey string               // web push: the VAPID key that the subscription is bound to; "" unless it was learned
	StartedAt  time.Time            // a device registered again since is not retired
	Now        time.Time
}

// FinishResult tells what a Finish did.
type FinishResult struct {
	Err  error
	Lost bool // the claim was not ours any more: the row was left alone
	// Written is what the row has become. That differs from what was asked for
	// when the hold has ended meanwhile (pending again), or when what would be
	// tried again belongs to a notification that was canceled (dropped).
	Written Transition
	// Opened: the hold did not stand before.
	Opened bool
}

// finisher writes what became of what is in hand, and follows up on it.
type finisher struct {
	*env
	store    FinishStore
	inflight *inflightSet
	backlog  *backlog
	targets  *targets
	doubts   *doubts
	hints    *hints
	metrics  *metrics

	unwritten, putOffs faultLog
}

// finish writes what became of a delivery and lets go of it after the commit.
func (x *finisher) finish(it *inflight, f Finish) {
	f.Row, f.Now = it.Row, x.now()
	if f.ExpiresAt.IsZero() {
		f.ExpiresAt = it.ExpiresAt
	}
	x.write(it, f)
}

func (x *finisher) write(it *inflight, f Finish) {
	x.store.Finish(f, func(res FinishResult) {
		if res.Err != nil && it.writes.Add(1) < writeTries && it.leaseLeft(x.now()) > 0 && !x.stopped.Load() {
			x.unwritten.note(x.log, "outcomes cannot be written; they are tried again", it, res.Err)
			time.AfterFunc(retryWrite, func() { x.write(it, f) })
			return
		}
		x.inflight.remove(it)
		if res.Err != nil {
			x.unwritten.note(x.log, "outcomes could not be written; the deliveries will be taken over", it, res.Err)
			return
		}
		x.written(it, &f, res)
	})
}

// written follows up on a committed outcome. It runs in the writer's goroutine,
// so it only hints.
func (x *finisher) written(it *inflight, f *Finish, res FinishResult) {
	if res.Lost {
		return
	}
	failpoint.Hit("finish.committed")
	t := &res.Written
	x.metrics.moved(it.Channel, t)
	if !t.State.Unfinished() {
		x.backlog.final(it.Tenant)
	}
	switch {
	case res.Opened:
		failpoint.Hit("hold.committed")
		go x.doubts.holdOpened(it.Tenant, versionKey{f.Credential, f.Version}, f.Hold)
	case t.State == Pending && f.Transition.State == Held: // what is known of the tenant is old
		go x.hints.tenantChanged(it.Tenant)
	case t.State == Pending:
		x.hints.dueAt(t.DueAt)
	}
	if t.Device == DeviceRetired && it.Channel == channels.Webhook {
		x.targets.forget(it.Target)
		go x.hints.tenantChanged(it.Tenant)
	}
}

// giveBack returns a delivery unspent.
func (x *finisher) giveBack(it *inflight) {
	x.finish(it, Finish{Transition: unspent(it.progress(), x.now())})
}

// crowdOut returns a delivery that its flow has no room for: at once when the
// engine stops, else when the flow may have sent what it has.
func (x *finisher) crowdOut(it *inflight) {
	if x.stopped.Load() {
		x.giveBack(it)
		return
	}
	x.finish(it, Finish{Transition: crowdOut(it.progress(), it.Notification.Time(), x.now(), x.jitter())})
}

// putOff returns a delivery unspent because of a fault of our own.
func (x *finisher) putOff(it *inflight, doing string, err error) {
	if x.sending.Err() == nil {
		x.putOffs.note(x.log, "deliveries are put off, because this node could not "+doing, it, err)
	}
	x.finish(it, Finish{Transition: unspent(it.progress(), x.now().Add(faultWait))})
}

// faultLog names a fault once in a while, however many deliveries have it.
type faultLog struct {
	mu     sync.Mutex
	logged time.Time
	count  int // since
}

const faultLogEvery = 5 * time.Second

func (l *faultLog) note(log *slog.Logger, what string, it *inflight, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if time.Since(l.logged) < faultLogEvery {
		return
	}
	log.Error("this node has trouble with deliveries in hand", "what", what, "deliveries", l.count, "such_as", it.String(), "error", err)
	l.logged, l.count = time.Now(), 0
}
