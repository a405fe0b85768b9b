package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/failpoint"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
)

// Options make an Engine. Zero values have the defaults named beside them.
type Options struct {
	Store    Store
	Jobs     *jobs.Runner // takes the steps of jobs; nil: another node does
	Channels map[channels.Kind]channels.Channel
	IDs      *ids.Generator
	Log      *slog.Logger
	Metrics  prometheus.Registerer // nil: not registered anywhere
	Now      func() time.Time
	Jitter   func() float64 // 0 to 1; a test may fix it

	// Role is what this node does: "" or all, api (it accepts and sends nothing), or
	// worker.
	Role        string
	Workers     int           // concurrent requests; 512
	LaneSize    int           // most items of a lane in memory; 4,000
	MaxBacklog  int           // unfinished deliveries before accepts are refused; 1,000,000
	UrgentRate  int           // urgent notifications of a tenant in a second; 100
	SendTimeout time.Duration // of one request; 30 s
	Lease       time.Duration // of a claim; 90 s
	Poll        time.Duration // most time between two claims; 1 s
	MarkerAfter time.Duration // a send_at further ahead is resolved when it is due; 1 min
	Beat        time.Duration // between two looks at leases and lanes; 5 s
	Retention   Retention     // 24 h and 30 days
	PurgeEvery  time.Duration // 1 min
	CountEvery  time.Duration // between two counts of the backlog; 10 s
	ProbeEvery  time.Duration // of refused credentials; 15 min
	// StaleAfter is after how long without a sign of life a device is retired, where
	// the tenant does not say; 0: never.
	StaleAfter time.Duration
	// OldCredentials is how long the secret of a replaced credential is kept; 0: 30 days.
	OldCredentials time.Duration
	UpkeepEvery    time.Duration // between two rounds of the slow loop; 1 h
}

func (o *Options) defaults() {
	set(&o.Workers, 512)
	set(&o.LaneSize, 4000)
	set(&o.MaxBacklog, 1_000_000)
	set(&o.UrgentRate, 100)
	set(&o.SendTimeout, 30*time.Second)
	set(&o.Lease, 90*time.Second)
	set(&o.Poll, time.Second)
	set(&o.MarkerAfter, time.Minute)
	set(&o.Beat, 5*time.Second)
	set(&o.PurgeEvery, time.Minute)
	set(&o.CountEvery, 10*time.Second)
	set(&o.ProbeEvery, 15*time.Minute)
	set(&o.OldCredentials, 30*24*time.Hour)
	set(&o.UpkeepEvery, time.Hour)
	if o.Retention == (Retention{}) {
		o.Retention = DefaultRetention()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.IDs == nil {
		o.IDs = ids.NewGenerator(0, o.Now)
	}
}

func set[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Engine accepts and delivers. One per process.
type Engine struct {
	o         Options
	dispatch  *dispatcher
	directory *directory
	senders   *senders
	health    health
	contents  contents
	endpoints targets
	gates     gates
	urgents   *Budget
	budgets   []*Budget // that hold over all nodes
	metrics   *metrics

	unwritten   trouble // of what is in hand, for the log
	putOffs     trouble
	backlog     atomic.Int64 // unfinished deliveries, about
	wake        chan struct{}
	moveHolds   chan struct{}
	exchangeNow chan struct{}
	claimBeat   atomic.Int64

	paused    atomic.Pointer[Pause] // never nil
	pauseSaid atomic.Int64          // unix ms of the last line about it in the log

	hand     sync.Mutex // guards inHand
	inHand   map[*item]struct{}
	finishes sync.WaitGroup // items whose outcome is not written yet
	loops    sync.WaitGroup
	stopping atomic.Bool

	accepting sync.RWMutex // held, shared, by every Accept

	sendCtx   context.Context // ends with ErrStopping when the grace is over
	stopSends context.CancelCauseFunc
	loopCtx   context.Context
	stopLoops context.CancelFunc
}

// New makes an engine. Nothing runs until Start.
func New(o Options) *Engine {
	o.defaults()
	e := &Engine{
		o: o, directory: newDirectory(o.Store, o.Now),
		wake: make(chan struct{}, 1), moveHolds: make(chan struct{}, 1), inHand: map[*item]struct{}{},
		exchangeNow: make(chan struct{}, 1), urgents: NewBudget(UrgentBudget, float64(o.UrgentRate), 2*o.UrgentRate),
	}
	e.Share(e.urgents)
	e.dispatch = newDispatcher(o.Workers, o.LaneSize, e.serve)
	e.senders = &senders{channels: o.Channels, open: o.Store.OpenCredential}
	e.metrics = newMetrics(o.Metrics)
	e.sendCtx, e.stopSends = context.WithCancelCause(context.Background())
	e.loopCtx, e.stopLoops = context.WithCancel(context.Background())
	e.claimBeat.Store(o.Now().UnixMilli())
	e.paused.Store(&Pause{})
	if o.Jobs != nil {
		o.Jobs.Handle(jobs.ReplayDeadLetters, e.replayStep)
		o.Jobs.Handle(jobs.EraseUser, o.Store.EraseStep)
		o.Jobs.Handle(jobs.DeleteTenant, o.Store.DeleteTenantStep)
	}
	return e
}

// Start begins to claim and send.
func (e *Engine) Start(ctx context.Context) error {
	n, err := e.o.Store.Unfinished(ctx, e.o.MaxBacklog)
	if err != nil {
		return fmt.Errorf("count unfinished deliveries: %w", err)
	}
	e.backlog.Store(int64(n))
	if err := e.readPause(ctx); err != nil {
		return fmt.Errorf("look whether sending is paused: %w", err)
	}
	e.o.Store.OnHint(e.hinted)
	e.loops.Go(e.pauseLoop)
	e.loops.Go(e.countLoop)
	if e.o.Store.Shared() {
		e.loops.Go(e.exchangeLoop)
	}
	if !e.sends() {
		return nil
	}
	e.loops.Go(e.claimLoop)
	e.loops.Go(e.leaseLoop)
	e.loops.Go(e.holdLoop)
	e.loops.Go(e.purgeLoop)
	e.loops.Go(e.upkeepLoop)
	return nil
}

// Stop ends in order: nothing new is claimed, what is queued goes back unspent,
// what is being sent may finish until ctx ends and is then given up, and every
// outcome is written. It costs no delivery an attempt.
func (e *Engine) Stop(ctx context.Context) error {
	if e.stopping.Swap(true) {
		return errors.New("the engine has been stopped already")
	}
	// What was accepted until now is in hand before anything is given back.
	e.accepting.Lock()
	e.accepting.Unlock() //nolint:staticcheck,gocritic // empty on purpose: it is a barrier
	e.stopLoops()
	for _, it := range e.dispatch.close() {
		e.giveBack(it)
	}
	ended := make(chan struct{})
	go func() { e.loops.Wait(); e.dispatch.wait(); e.finishes.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
		e.stopSends(channels.ErrStopping)
		<-ended
	}
	e.stopSends(channels.ErrStopping)
	e.senders.close()
	return nil
}

// stillAfter is how long a loop may be silent before the node is not ready.
const stillAfter = 30 * time.Second

// Ready tells whether this node does its work: nil, or which loop stands still.
// An old backlog is no reason: other nodes would not be faster.
func (e *Engine) Ready() error {
	if e.stopping.Load() {
		return problem.New(problem.Unavailable, "The server is stopping.")
	}
	now := e.o.Now()
	if !e.o.Store.Alive() {
		return problem.New(problem.Unavailable, "The database has not been reached for some seconds; see the log.")
	}
	if silent := now.Sub(e.ClaimBeat()); e.sends() && silent > stillAfter {
		return problem.New(problem.Unavailable, "The claim loop stands still for %s.", silent.Truncate(time.Second))
	}
	if last, waiting := e.o.Store.WriteBeat(); waiting > 0 && now.Sub(last) > stillAfter {
		return problem.New(problem.Unavailable, "The database takes no writes for %s.", now.Sub(last).Truncate(time.Second))
	}
	return nil
}

// ClaimBeat is when the claim loop last came round.
func (e *Engine) ClaimBeat() time.Time { return time.UnixMilli(e.claimBeat.Load()) }

// CredentialsChanged makes the engine see a tenant's settings, credentials and
// holds anew.
func (e *Engine) CredentialsChanged(tenant ids.ID) { e.changed(tenant) }

// EndpointsChanged makes the engine see an endpoint anew.
func (e *Engine) EndpointsChanged(tenant, endpoint ids.ID) {
	e.endpoints.forget(endpoint)
	e.changed(tenant)
}

// changed makes every node see a tenant anew, this one at once.
func (e *Engine) changed(tenant ids.ID) {
	e.refresh(tenant)
	e.o.Store.Hint(Hint{Kind: HintTenant, Tenant: tenant})
}

func (e *Engine) refresh(tenant ids.ID) {
	if err := e.directory.refresh(e.loopCtx, tenant); err != nil {
		e.o.Log.Warn("read a tenant anew", "tenant", int64(tenant), "error", err)
	}
	hint(e.moveHolds)
	hint(e.wake)
	if e.o.Jobs != nil {
		e.o.Jobs.Wake()
	}
}

// Cancel drops what has not been sent of a notification, and counts it.
func (e *Engine) Cancel(ctx context.Context, tenant, notification ids.ID) (int, error) {
	n, err := e.o.Store.Cancel(ctx, tenant, notification, e.o.Now())
	if err != nil {
		return 0, err
	}
	failpoint.Hit("cancel.committed")
	e.backlog.Add(-int64(n))
	e.cancelInHand(tenant, notification)
	e.o.Store.Hint(Hint{Kind: HintCanceled, Tenant: tenant, Notification: notification})
	return n, nil
}

func (e *Engine) cancelInHand(tenant, notification ids.ID) {
	e.hand.Lock()
	defer e.hand.Unlock()
	for it := range e.inHand {
		if it.Notification == notification && it.Tenant == tenant {
			it.canceled.Store(true)
		}
	}
}

// hinted follows a hint of another node. It is called from the listener, which
// it must not keep.
func (e *Engine) hinted(h Hint) {
	switch h.Kind {
	case HintDue:
		hint(e.wake)
	case HintHolds:
		hint(e.moveHolds)
	case HintTenant:
		go e.refresh(h.Tenant)
	case HintCanceled:
		e.cancelInHand(h.Tenant, h.Notification)
	case HintShared:
		hint(e.exchangeNow)
	}
}

// The roles of a node.
const (
	RoleAll    = "all"
	RoleAPI    = "api"
	RoleWorker = "worker"
)

// sends: this node claims and sends.
func (e *Engine) sends() bool { return e.o.Role != RoleAPI }

// due wakes whoever can send what is due now.
func (e *Engine) due() {
	hint(e.wake)
	e.o.Store.Hint(Hint{Kind: HintDue})
}

// Replay sends a dead letter again, as a new round with a new deadline.
func (e *Engine) Replay(ctx context.Context, tenant, notification, target ids.ID, actor string) error {
	pic, err := e.directory.of(ctx, tenant)
	if err != nil {
		return err
	}
	failpoint.Hit("replay.begin")
	err = e.o.Store.Replay(ctx, tenant, notification, target, e.o.Now(), func(r Request, k channels.Kind) time.Duration {
		return life(ttlOf(k, r.TTL, pic.settings))
	}, actor)
	if err == nil {
		failpoint.Hit("replay.committed")
		e.backlog.Add(1)
		e.due()
	}
	return err
}

func hint(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
