package delivery

import (
	"context"
	"log/slog"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/tenants"
)

// New makes an engine. Nothing runs until Start.
func New(o Options) *Engine {
	o.defaults()
	e := newEngine(&o)
	e.wireSending(&o)
	e.wireCommands(&o)
	e.wireLoops(&o)
	e.claimer.beat()
	return e
}

// newEngine makes what the parts share.
func newEngine(o *Options) *Engine {
	v := &env{now: o.Now, jitter: o.Jitter, ids: o.IDs}
	v.running, v.stopRunning = context.WithCancel(context.Background())
	v.log = slog.New(loopLog{o.Log.Handler(), func() bool { return v.running.Err() != nil }})
	v.sending, v.stopSending = context.WithCancelCause(context.Background())
	e := &Engine{env: v, health: o.Store, sends: o.Role != RoleAPI, giveUp: o.GiveUp,
		tenants:  newTenantCache(o.Store, o.Now),
		senders:  &senders{channels: o.Channels, open: o.Store.OpenCredential},
		inflight: &inflightSet{},
		targets:  newTargets(o.Store),
		payloads: newPayloads(o.Store, o.Channels),
		gates:    &gates{},
		breakers: &breakers{},
		refusals: &refusals{shared: o.Store.Shared()},
		backlog:  newBacklog(v, o.Store, Unfinished{Due: o.MaxBacklog, Stored: o.MaxStored}, o.CountEvery),
		metrics:  newMetrics(o.Metrics),
	}
	v.who = func(tenant ids.ID) slog.Value { return e.tenants.who(v.running, tenant) }
	e.hints = &hints{env: v, store: o.Store, tenants: e.tenants, inflight: e.inflight, jobs: o.Jobs, poll: o.Poll,
		claim: newSignal(), holds: newSignal(), exchange: newSignal()}
	e.pause = &pauseSwitch{env: v, store: o.Store, hints: e.hints, poll: o.Poll}
	e.doubts = &doubts{env: v, store: o.Store, tenants: e.tenants, breakers: e.breakers, refusals: e.refusals, hints: e.hints}
	e.waits = &waits{env: v, store: o.Store, gates: e.gates, hints: e.hints}
	e.prober = &prober{env: v, store: o.Store, tenants: e.tenants, senders: e.senders, refusals: e.refusals, doubts: e.doubts, hints: e.hints,
		every: o.ProbeEvery, within: o.SendTimeout}
	return e
}

// wireSending makes what attempts deliveries and writes what became of them.
func (e *Engine) wireSending(o *Options) {
	e.finisher = &finisher{env: e.env, store: o.Store, inflight: e.inflight, backlog: e.backlog, targets: e.targets,
		doubts: e.doubts, hints: e.hints, metrics: e.metrics}
	a := &attempter{env: e.env, store: o.Store, pause: e.pause, targets: e.targets, tenants: e.tenants, payloads: e.payloads,
		senders: e.senders, gates: e.gates, waits: e.waits, breakers: e.breakers, refusals: e.refusals, prober: e.prober, doubts: e.doubts, finisher: e.finisher, hints: e.hints,
		metrics: e.metrics, sendTimeout: o.SendTimeout}
	e.dispatch = newDispatcher(o.Workers, o.LaneSize, o.Now, a.attempt)
	a.dispatch = e.dispatch
	e.backlog.inHand = func(tenant ids.ID) int { return e.dispatch.waiting(tenant) + a.turns.of(tenant) }
	e.workload = &workload{env: e.env, dispatch: e.dispatch}
	e.dispatch.drained = e.hints.claim.raise
	e.intake = &intake{inflight: e.inflight, dispatch: e.dispatch, finisher: e.finisher}
}

// wireCommands makes what callers reach, and takes on the steps of jobs.
func (e *Engine) wireCommands(o *Options) {
	urgents := NewBudget(UrgentBudget, float64(o.UrgentRate), 2*o.UrgentRate)
	e.planner = &planner{env: e.env, store: o.Store, channels: o.Channels, tenants: e.tenants, scheduleBeyond: o.ScheduleAfter}
	e.acceptor = &acceptor{env: e.env, store: o.Store, planner: e.planner, urgents: urgents, backlog: e.backlog, pause: e.pause,
		payloads: e.payloads, dispatch: e.dispatch, intake: e.intake, hints: e.hints, lease: o.Lease, sends: e.sends}
	e.commands = &commands{env: e.env, store: o.Store, tenants: e.tenants, backlog: e.backlog, hints: e.hints}
	orders := &jobOrders{env: e.env, store: o.Store, hints: e.hints}
	e.replayer = &replayer{env: e.env, store: o.Store, orders: orders, contents: o.Store, tenants: e.tenants, backlog: e.backlog, hints: e.hints}
	e.restorer = &deviceRestorer{env: e.env, store: o.Store, orders: orders}
	e.eraser = &eraser{store: o.Store, inflight: e.inflight, payloads: e.payloads, targets: e.targets, hints: e.hints}
	e.peers = &peers{env: e.env, store: o.Store, breakers: e.breakers, refusals: e.refusals, budgets: []*Budget{urgents},
		doubts: e.doubts, hints: e.hints}
	if o.Jobs != nil {
		o.Jobs.Handle(jobs.ReplayDeadLetters, e.replayer.step)
		o.Jobs.Handle(jobs.EraseUser, o.Store.EraseStep)
		o.Jobs.Handle(jobs.DeleteTenant, o.Store.DeleteTenantStep)
		o.Jobs.Handle(jobs.DeleteApp, o.Store.DeleteAppStep)
		o.Jobs.Handle(jobs.RestoreDevices, o.Store.RestoreDevicesStep)
		o.Jobs.Handle(jobs.RetireDevices, o.Store.RestoreDevicesStep)
		o.Jobs.Handle(jobs.BringForward, (&bringer{o.Store, e.hints}).step)
		o.Jobs.Handle(jobs.DropForDeletedEndpoints, o.Store.DropForDeletedEndpointsStep)
		o.Jobs.Handle(jobs.ResealKeys, o.Store.ResealStep)
	}
}

// wireLoops makes what runs in the background of a node that sends.
func (e *Engine) wireLoops(o *Options) {
	work := &duties{env: e.env, store: o.Store}
	renewals := &leases{env: e.env, store: o.Store, inflight: e.inflight, dispatch: e.dispatch, finisher: e.finisher,
		gates: e.gates, lease: o.Lease, every: o.Beat}
	schedule := &scheduler{env: e.env, store: o.Store, contents: o.Store, tenants: e.tenants, planner: e.planner,
		backlog: e.backlog, hints: e.hints, poll: o.Poll}
	e.claimer = &claimer{env: e.env, store: o.Store, intake: e.intake, dispatch: e.dispatch, tenants: e.tenants, leases: renewals, backlog: e.backlog,
		pause: e.pause, hints: e.hints, metrics: e.metrics, poll: o.Poll, lease: o.Lease, slow: slowStart{on: o.AfterCrash}}
	holds := &holdMover{env: e.env, store: o.Store, prober: e.prober, pause: e.pause, duties: work, backlog: e.backlog,
		hints: e.hints, every: 5 * o.Poll}
	purge := &purger{env: e.env, store: o.Store, duties: work, tenants: e.tenants, senders: e.senders, breakers: e.breakers, refusals: e.refusals,
		retention: o.Retention, every: o.PurgeEvery}
	clean := &cleaner{env: e.env, store: o.Store, sizes: o.Store, duties: work, every: o.CleanupEvery, stale: o.StaleAfter,
		oldCredentials: o.OldCredentials, oldKeys: o.Retention.Rows}
	check := &verifier{env: e.env, store: o.Store, channels: o.Channels, doubts: e.doubts, duties: work, pause: e.pause,
		every: o.VerifyEvery, within: tenants.VerifyWithin}
	e.overdueSends = &overdueSends{env: e.env, inflight: e.inflight, metrics: e.metrics, within: o.SendTimeout, every: o.Beat}
	e.loops = []func(){e.overdueSends.run, check.run, e.claimer.run, schedule.run, renewals.run, holds.run, purge.run, clean.run}
}
