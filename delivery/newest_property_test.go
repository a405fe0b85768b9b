package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
)

// TestAnOlderOneNeverLeavesAfterANewer runs whole engines on a database through scripts
// of notifications that share collapse keys, with providers that fail, hang and answer
// in doubt, holds, resumes, cancellations, replays, and outcomes that are lost
// with their node.
func TestAnOlderOneNeverLeavesAfterANewer(t *testing.T) {
	t.Parallel()
	nodes := 1
	if pgtest.Postgres() {
		nodes = 2
	}
	for seed := range 6 {
		script := aDisorderlyDay.Example(seed)
		t.Run(fmt.Sprint("script ", seed), func(t *testing.T) {
			t.Parallel()
			newDisorder(t, nodes, script).run()
		})
	}
}

// turnStep is one of a script; of its members those count that its kind needs.
type turnStep struct {
	kind  int
	key   string
	users []string
	stop  bool
	says  int
	which int
	wait  time.Duration
}

const (
	turnPost = iota
	turnSays
	turnRelease
	turnHold
	turnResume
	turnReplay
	turnCancel
	turnCrash
	turnWait
)

const (
	saysWell = iota
	saysBusy
	saysAmbiguous
	saysThrottled
	saysRejected
	saysNothing // until it is released
)

var (
	turnKinds = []int{turnPost, turnPost, turnPost, turnPost, turnPost, turnPost, turnPost, turnSays, turnSays, turnSays, turnRelease, turnHold, turnResume,
		turnReplay, turnReplay, turnCancel, turnCrash, turnWait, turnWait, turnWait}
	aTurnStep = rapid.Custom(func(t *rapid.T) turnStep {
		s := turnStep{kind: rapid.SampledFrom(turnKinds).Draw(t, "kind"), key: rapid.SampledFrom([]string{"", "a", "a", "a", "b"}).Draw(t, "key"),
			stop: rapid.IntRange(0, 5).Draw(t, "stop") == 0, which: rapid.IntRange(0, 100).Draw(t, "which"),
			says: rapid.SampledFrom([]int{saysWell, saysBusy, saysBusy, saysAmbiguous, saysThrottled, saysRejected, saysNothing, saysNothing, saysNothing}).Draw(t, "says"),
			wait: rapid.SampledFrom([]time.Duration{time.Second, time.Second, 11 * time.Second, time.Minute, 10 * time.Minute}).Draw(t, "wait")}
		for u := range 3 {
			if u == 0 || rapid.Bool().Draw(t, "user") {
				s.users = append(s.users, fmt.Sprint("user-", u))
			}
		}
		return s
	})
	aDisorderlyDay = rapid.SliceOfN(aTurnStep, 120, 120)
)

// place is a device with a collapse key.
type place struct {
	target ids.ID
	key    string
}

// disorder is what a script runs on, and what was seen of it.
type disorder struct {
	*kit
	clock  *handClock
	nodes  []*kit
	script []turnStep
	cred   tenants.Credential
	sent   []delivery.Receipt
	keys   map[ids.ID]string // of notifications
	order  map[ids.ID]int    // in which they were accepted

	mu       sync.Mutex
	says     int
	hanging  chan struct{}
	crashes  int              // so many outcomes are lost
	crashed  map[ids.ID]bool  // notifications of which something is in hand for good
	under    map[place]int    // requests under way
	newest   map[place]ids.ID // that has left
	arrivals int
	faults   []string
}

func newDisorder(t *testing.T, nodes int, script []turnStep) *disorder {
	t.Helper()
	x := &disorder{clock: newHandClock(), script: script, keys: map[ids.ID]string{}, order: map[ids.ID]int{}, hanging: make(chan struct{}),
		crashed: map[ids.ID]bool{}, under: map[place]int{}, newest: map[place]ids.ID{}}
	watch := func(s *store.Store) delivery.Store { return losing{s, x} }
	x.kit = newKitAt(t, x.clock.now, func(o *delivery.Options) { o.Lease = 1000 * time.Hour })
	x.close()
	x.wrap, x.joins = watch, nodes > 1
	x.open()
	x.nodes = []*kit{x.kit}
	for n := 1; n < nodes; n++ {
		b := &kit{t: t, clock: x.clock.now, ctx: x.ctx, ring: x.ring, url: x.url, tenant: x.tenant, joins: true, wrap: watch,
			channels: x.channels, ids: ids.NewGenerator(n+1, time.Now), opts: x.opts}
		b.opts.IDs = b.ids
		b.open()
		t.Cleanup(b.close)
		x.nodes = append(x.nodes, b)
	}
	t.Cleanup(x.release)
	x.cred = x.credential(channels.FCM, "")
	for u := range 3 {
		x.device(fmt.Sprint("user-", u), fmt.Sprint("token-", u), channels.FCM, nil)
	}
	x.channels[channels.FCM].answer(x.answer)
	return x
}

// answer is the provider's, who notes in which order notifications come.
func (x *disorder) answer(ctx context.Context, _ channels.Credential, _ channels.Target, l channels.Life) channels.Result {
	ntf, target, err := ids.ParseDelivery(l.Delivery)
	require.NoError(x.t, err)
	x.mu.Lock()
	at := place{target, x.keyOf(ntf)}
	says, hanging := x.says, x.hanging
	x.arrivals++
	if at.key != "" {
		if x.under[at] > 0 {
			x.faults = append(x.faults, fmt.Sprintf("%v is sent beside another of key %s", ntf, at.key))
		}
		if before := x.newest[at]; before != 0 && x.orderOf(ntf) < x.orderOf(before) {
			x.faults = append(x.faults, fmt.Sprintf("%v left after %v, key %s", ntf, before, at.key))
		}
		x.newest[at] = ntf
		x.under[at]++
	}
	x.mu.Unlock()
	if says == saysNothing {
		select {
		case <-hanging:
		case <-ctx.Done():
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.under[at]--
	switch says {
	case saysBusy:
		return channels.Result{Outcome: channels.Retry, Code: "busy", Status: 503}
	case saysAmbiguous, saysNothing:
		return channels.Result{Outcome: channels.Retry, Code: "timeout", Ambiguous: true}
	case saysThrottled:
		return channels.Result{Outcome: channels.Throttled, Code: "throttled", Status: 429, Scope: channels.ScopeTarget}
	case saysRejected:
		return channels.Result{Outcome: channels.Rejected, Code: "bad", Status: 400}
	}
	return accepted()
}

// keyOf and orderOf know what is being posted, too: it may be sent before its receipt
// is there. Of what one node accepts the ids say the order; the scripts post one after
// the other.
func (x *disorder) keyOf(ntf ids.ID) string {
	if key, known := x.keys[ntf]; known {
		return key
	}
	return x.keys[0]
}

func (x *disorder) orderOf(ntf ids.ID) int {
	if n, known := x.order[ntf]; known {
		return n
	}
	return len(x.order)
}

// losing is a store of a node that stops with outcomes in its hands.
type losing struct {
	*store.Store
	x *disorder
}

func (s losing) Finish(f delivery.Finish, done func(delivery.FinishResult)) {
	s.x.mu.Lock()
	lost := s.x.crashes > 0 && f.Attempt != nil
	if lost {
		s.x.crashes--
		s.x.crashed[f.Row.Notification] = true
	}
	s.x.mu.Unlock()
	if lost {
		done(delivery.FinishResult{Lost: true})
		return
	}
	s.Store.Finish(f, done)
}

func (x *disorder) run() {
	for n, s := range x.script {
		node := x.nodes[(n+s.which)%len(x.nodes)]
		switch s.kind {
		case turnPost:
			x.postKeyed(node, s)
		case turnSays:
			x.mu.Lock()
			x.says = s.says
			x.mu.Unlock()
		case turnRelease:
			x.release()
		case turnHold:
			_, err := node.store.PauseCredential(x.ctx, x.tenant, x.cred.ID, "asked", tenants.Change{Actor: "bob", Action: "credential.pause"})
			require.NoError(x.t, err)
			node.engine.CredentialsChanged(x.tenant)
		case turnResume:
			_, err := node.store.ResumeCredential(x.ctx, x.tenant, x.cred.ID, tenants.Change{Actor: "bob", Action: "credential.resume"})
			require.NoError(x.t, err)
			node.engine.CredentialsChanged(x.tenant)
		case turnReplay:
			x.replayOne(node, s.which)
		case turnCancel:
			if len(x.sent) > 0 {
				_, err := node.engine.Cancel(x.ctx, x.tenant, x.sent[s.which%len(x.sent)].Notification)
				require.NoError(x.t, err)
			}
		case turnCrash:
			x.mu.Lock()
			x.crashes++
			x.mu.Unlock()
		case turnWait:
			x.advance(s.wait)
		}
	}
	x.mu.Lock()
	x.says, x.crashes = saysWell, 0
	x.mu.Unlock()
	_, err := x.store.ResumeCredential(x.ctx, x.tenant, x.cred.ID, tenants.Change{Actor: "bob", Action: "credential.resume"})
	require.NoError(x.t, err)
	for range 30 { // longer than everything may live
		x.advance(time.Hour)
	}
	x.explained()
}

func (x *disorder) postKeyed(node *kit, s turnStep) {
	r := toUser(s.users...)
	r.CollapseKey = s.key
	if s.stop {
		r.OnAmbiguous = delivery.OnAmbiguousStop
	}
	x.mu.Lock()
	x.keys[0] = s.key
	x.mu.Unlock()
	got := node.post(r)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.keys[got.Notification], x.order[got.Notification] = s.key, len(x.order)
	x.sent = append(x.sent, got)
}

// replayOne replays a dead letter, which is refused where there is a newer one.
func (x *disorder) replayOne(node *kit, which int) {
	dead, err := x.store.DeadLetters(x.ctx, x.tenant, delivery.Query{Limit: 500})
	require.NoError(x.t, err)
	if len(dead) == 0 {
		return
	}
	v := dead[which%len(dead)]
	err = node.engine.Replay(x.ctx, x.tenant, v.Notification, v.Target, "key_test")
	if newer := x.newerThan(v); newer {
		require.Equal(x.t, problem.Conflict, problem.CodeOf(err), "%v", err)
	} else {
		require.NoError(x.t, err)
	}
}

func (x *disorder) newerThan(v delivery.View) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.sent, func(r delivery.Receipt) bool {
		return x.keys[v.Notification] != "" && x.keys[r.Notification] == x.keys[v.Notification] && x.order[r.Notification] > x.order[v.Notification] &&
			slices.ContainsFunc(r.Deliveries, func(d delivery.DeliveryRef) bool { return d.Target == v.Target })
	})
}

// release lets all requests end that hang.
func (x *disorder) release() {
	x.mu.Lock()
	defer x.mu.Unlock()
	close(x.hanging)
	x.hanging = make(chan struct{})
	if x.says == saysNothing {
		x.says = saysWell
	}
}

// advance moves the clock when nothing is under way, and ends the leases of what was
// lost with its node.
func (x *disorder) advance(d time.Duration) {
	x.t.Helper()
	x.release()
	eventually(x.t, "nothing is being sent", func() bool {
		list, err := x.store.Deliveries(x.ctx, x.tenant, delivery.Query{State: delivery.Sending, Limit: 100})
		x.mu.Lock()
		defer x.mu.Unlock()
		return err == nil && !slices.ContainsFunc(list, func(v delivery.View) bool { return !x.crashed[v.Notification] })
	})
	_, err := x.store.LapseLeases(x.ctx)
	require.NoError(x.t, err)
	x.mu.Lock()
	clear(x.crashed)
	x.mu.Unlock()
	x.clock.advance(d)
}

func (x *disorder) explained() {
	states := map[string]int{}
	for _, r := range x.sent {
		for _, d := range r.Deliveries {
			v := x.until(r.Notification, d.Target, "to end", func(v delivery.View) bool { return !v.State.Unfinished() })
			require.Equal(x.t, v.State == delivery.Sent, v.Reason == delivery.NoReason, "%+v", v)
			require.Equal(x.t, v.Reason == delivery.Superseded, v.SupersededBy != 0)
			if v.SupersededBy != 0 {
				require.Equal(x.t, x.keys[v.Notification], x.keys[v.SupersededBy])
				require.Greater(x.t, x.order[v.SupersededBy], x.order[v.Notification])
				require.True(x.t, x.newerThan(v))
			}
			states[strings.TrimSpace(v.State.String()+" "+v.Reason.String())]++
		}
	}
	x.t.Log(states, "arrivals", x.arrivals)
	require.Empty(x.t, x.faults)
	require.NotZero(x.t, states["dropped superseded"])
	require.NotZero(x.t, states["sent"])
	x.sound()
}
