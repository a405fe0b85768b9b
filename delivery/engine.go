package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/ids"
)

// Engine accepts and delivers. One per process. It wires the parts, each of which
// is in a file of its name, and starts and stops them in order.
type Engine struct {
	*env
	*overdueSends
	*commands
	*workload
	health HealthStore
	sends  bool // this node claims and sends
	giveUp time.Duration

	// What is known in memory.
	tenants  *tenantCache
	senders  *senders
	targets  *targets
	payloads *payloads
	gates    *gates
	waits    *waits
	breakers *breakers
	refusals *refusals
	prober   *prober
	inflight *inflightSet
	metrics  *metrics

	// What attempts deliveries.
	dispatch *dispatcher
	intake   *intake
	finisher *finisher
	doubts   *doubts
	backlog  *backlog
	hints    *hints

	// What callers reach.
	planner  *planner
	acceptor *acceptor
	replayer *replayer
	restorer *deviceRestorer
	eraser   *eraser

	// What runs in the background.
	pause   *pauseSwitch
	peers   *peers
	claimer *claimer
	loops   []func() // of a node that sends
}

// Start begins to claim and send.
func (e *Engine) Start(ctx context.Context) error {
	if err := e.pause.read(ctx); err != nil {
		return fmt.Errorf("look whether sending is paused: %w", err)
	}
	e.hints.store.OnHint(e.hints.receive)
	e.background.Go(e.pause.run)
	e.background.Go(e.backlog.run)
	if e.peers.store.Shared() {
		e.background.Go(e.peers.run)
	}
	if !e.sends {
		return nil
	}
	for _, run := range e.loops {
		e.background.Go(run)
	}
	return nil
}

// Stop ends in order: nothing new is claimed, what is queued goes back unspent,
// what is being sent may finish until ctx ends and is then given up, and every
// outcome is written. It costs no delivery an attempt. What has not ended soon after
// ctx is left behind, which is an error: it is taken over, as after a crash.
func (e *Engine) Stop(ctx context.Context) error {
	if e.stopped.Swap(true) {
		return errors.New("the engine has been stopped already")
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.acceptor.drain() // what was accepted until now is in hand before anything is given back
		e.stopRunning()
		for _, it := range e.dispatch.close() {
			e.finisher.giveBack(it)
		}
		e.background.Wait()
		e.dispatch.wait()
		e.inflight.wait()
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		e.stopRunning()
		e.stopSending(channels.ErrStopping)
		late := time.NewTimer(e.giveUp)
		defer late.Stop()
		select {
		case <-ended:
		case <-late.C:
			return fmt.Errorf("the engine did not stop in time: %d deliveries were still in hand, and will be taken over", e.inflight.len())
		}
	}
	e.stopSending(channels.ErrStopping)
	e.senders.close()
	return nil
}

// Share makes a budget hold over all nodes. It is called before Start.
func (e *Engine) Share(b *Budget) { e.peers.budgets = append(e.peers.budgets, b) }

// Accept stores what was asked for and answers after the commit: from then on
// every delivery ends sent, dropped with a reason, or dead. In a batch each
// member is accepted or refused by itself, and those accepted commit as one.
func (e *Engine) Accept(ctx context.Context, s Submission) (Answer, error) {
	return e.acceptor.accept(ctx, s)
}

// DryRun shows what Accept would do, and does nothing.
func (e *Engine) DryRun(ctx context.Context, tenant ids.ID, r Request) (Preview, error) {
	return e.planner.preview(ctx, tenant, r)
}

// ReplayAll makes the job that replays what has died until now. What dies later,
// a second time as well, is not in it.
func (e *Engine) ReplayAll(ctx context.Context, o ReplayOrder) (Answer, error) {
	return e.replayer.create(ctx, o)
}

// CountDead counts what ReplayAll would replay now. exact is false when counting
// took too long: there are at least so many.
func (e *Engine) CountDead(ctx context.Context, o ReplayOrder) (n int, exact bool, err error) {
	return e.replayer.count(ctx, o)
}

// RestoreDevices makes the job that makes devices active again which were retired,
// or are suspect, as the order's filter selects them now; or that retires suspect
// ones.
func (e *Engine) RestoreDevices(ctx context.Context, o DeviceRestoreOrder) (Answer, error) {
	return e.restorer.create(ctx, o)
}

// CountRestorable counts what RestoreDevices would change now. exact is false when
// counting took too long: there are at least so many.
func (e *Engine) CountRestorable(ctx context.Context, o DeviceRestoreOrder) (n int, exact bool, err error) {
	return e.restorer.count(ctx, o)
}

// EraseUser erases a user of a tenant. When it returns, nothing more is sent to
// the user but what is on the wire already; the rest is removed in the
// background, and the receipt tells when that is done. It may be repeated.
func (e *Engine) EraseUser(ctx context.Context, tenant ids.ID, user, actor string) (Erasure, error) {
	return e.eraser.erase(ctx, tenant, user, actor)
}

// CredentialsChanged makes the engine see a tenant's settings, credentials and
// holds anew.
func (e *Engine) CredentialsChanged(tenant ids.ID) { e.hints.tenantChanged(tenant) }

// CredentialRefused holds a version of a credential that its provider refuses, as
// long as there is no newer one.
func (e *Engine) CredentialRefused(tenant, credential ids.ID, version int, why string) {
	e.doubts.convict(tenant, subject{versionKey{credential, version}, ""}, why)
}

// EndpointsChanged makes the engine see an endpoint anew.
func (e *Engine) EndpointsChanged(tenant, endpoint ids.ID) {
	e.targets.forget(endpoint)
	e.hints.tenantChanged(tenant)
}

// Sending is the pause as this node knows it: at most a second old.
func (e *Engine) Sending() Pause { return e.pause.current() }

// PauseSending stops all sending: notifications are accepted and wait.
func (e *Engine) PauseSending(ctx context.Context, reason, actor string) (Pause, error) {
	return e.pause.set(ctx, reason, actor)
}

// ResumeSending ends the pause.
func (e *Engine) ResumeSending(ctx context.Context, actor string) (Pause, error) {
	return e.pause.end(ctx, actor)
}
