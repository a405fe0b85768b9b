package delivery_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/devices"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/store"
	"github.com/carillonhq/carillon/store/pgtest"
	"github.com/carillonhq/carillon/tenants"
)

// TestTroublesAreExplained runs whole engines on a database through random troubles of
// credentials and devices, on a clock that the test moves. Nothing costs more than its
// own delivery without evidence, and every delivery ends sent, or with a reason.
func TestTroublesAreExplained(t *testing.T) {
	t.Parallel()
	nodes, scripts := 1, []int{8} // in which most happens, of the first dozen
	if pgtest.Postgres() {
		nodes, scripts = 2, []int{5, 8}
	}
	for _, seed := range scripts {
		script := aTroubledWeek.Example(seed)
		t.Run(fmt.Sprint("script ", seed), func(t *testing.T) {
			t.Parallel()
			newTroubled(t, nodes, script).run()
		})
	}
}

// step is one of a script; of its members those count that its kind needs.
type step struct {
	kind    int
	users   []string // who is sent to
	ttl     int64
	channel channels.Kind
	origin  int // of web push
	answers int // of the provider: see troubled.answer
	of      int // which share of the devices has that answer: one of so many
	says    int // of the provider, when it is asked
	wait    time.Duration
}

const (
	stepPost = iota
	stepTrouble
	stepVersion
	stepResume
	stepWait
)

const (
	answersWell = iota
	answersDenied
	answersGone
	answersDoubtful
	answersBusy
	answersThrottled
)

const troubledUsers, origins = 12, 2

var (
	// The more often, the more often it happens.
	stepKinds    = []int{stepPost, stepPost, stepPost, stepPost, stepTrouble, stepTrouble, stepVersion, stepResume, stepWait, stepWait, stepWait, stepWait}
	answersKinds = []int{answersWell, answersDenied, answersDenied, answersDenied, answersGone, answersDoubtful, answersBusy, answersThrottled}

	troubledChannels = []channels.Kind{channels.FCM, channels.APNs, channels.WebPush}

	aStep = rapid.Custom(func(t *rapid.T) step {
		s := step{kind: rapid.SampledFrom(stepKinds).Draw(t, "kind"), channel: rapid.SampledFrom(troubledChannels).Draw(t, "channel"),
			origin: rapid.IntRange(0, origins-1).Draw(t, "origin"), answers: rapid.SampledFrom(answersKinds).Draw(t, "answers"),
			of: rapid.SampledFrom([]int{1, 1, 2, 4, 12}).Draw(t, "of"), says: rapid.IntRange(0, 2).Draw(t, "says"),
			ttl:  rapid.SampledFrom([]int64{60, 600, 7200, 86400}).Draw(t, "ttl"),
			wait: rapid.SampledFrom([]time.Duration{time.Second, 2 * time.Second, 10 * time.Second, time.Minute, 6 * time.Minute, time.Hour}).Draw(t, "wait")}
		for u := range troubledUsers {
			if rapid.IntRange(0, 2).Draw(t, "user") > 0 {
				s.users = append(s.users, fmt.Sprint("user-", u))
			}
		}
		return s
	})
	aTroubledWeek = rapid.SliceOfN(aStep, 60, 60)
)

// voice is what a provider answers now.
type voice struct{ answers, of, says int }

// heardOf is an answer as it was recorded.
type heardOf struct {
	outcome channels.Outcome
	target  ids.ID
	user    string
	at      time.Time
	epoch   int // how often the clock had been moved
}

// judgedBy is a version of a credential, at one push service where there are many.
type judgedBy struct {
	credential ids.ID
	version    int
	origin     string
}

// troubled is what a script runs on, and what was seen of it.
type troubled struct {
	*kit
	clock  *handClock
	nodes  []*kit
	script []step
	sent   []delivery.Receipt
	creds  map[channels.Kind]tenants.Credential

	// world is held by every attempt from its request until it is recorded, so that
	// the clock is moved between them only.
	world sync.RWMutex

	moved atomic.Int64 // how many outcomes were written

	mu      sync.Mutex
	voices  map[string]voice // by channel, and origin
	targets map[ids.ID]devices.Device
	heard   map[judgedBy][]heardOf
	denies  map[ids.ID][]time.Time // when a provider would have said that it refuses
	epoch   int
	faults  []string
	held    int // how many holds were opened by refusals
}

func newTroubled(t *testing.T, nodes int, script []step) *troubled {
	t.Helper()
	clock := newHandClock()
	x := &troubled{clock: clock, script: script, creds: map[channels.Kind]tenants.Credential{}, voices: map[string]voice{},
		targets: map[ids.ID]devices.Device{}, heard: map[judgedBy][]heardOf{}, denies: map[ids.ID][]time.Time{}}
	watch := func(s *store.Store) delivery.Store { return watched{s, x} }
	// Nobody is taken for dead because the clock leaps.
	x.kit = newKitAt(t, clock.now, func(o *delivery.Options) { o.Lease = 1000 * time.Hour })
	x.close()
	x.wrap, x.joins = watch, nodes > 1
	x.open()
	x.nodes = []*kit{x.kit}
	for n := 1; n < nodes; n++ {
		b := &kit{t: t, clock: clock.now, ctx: x.ctx, ring: x.ring, url: x.url, tenant: x.tenant, joins: true, wrap: watch,
			channels: x.channels, ids: ids.NewGenerator(n+1, time.Now), opts: x.opts}
		b.opts.IDs = b.ids
		b.open()
		t.Cleanup(b.close)
		x.nodes = append(x.nodes, b)
	}
	for _, kind := range troubledChannels {
		x.creds[kind] = x.credential(kind, "")
		x.channels[kind].answer(x.answer)
	}
	for u := range troubledUsers {
		user := fmt.Sprint("user-", u)
		for _, d := range []devices.Device{
			x.device(user, "fcm-"+user, channels.FCM, nil), x.device(user, "apns-"+user, channels.APNs, nil),
			x.device(user, fmt.Sprintf("https://push-%d.example/%s", u%origins, user), channels.WebPush, nil),
		} {
			x.targets[d.ID] = d
		}
	}
	for n := range 10 { // one of them has many
		d := x.device("user-0", fmt.Sprintf("https://push-0.example/more-%d", n), channels.WebPush, nil)
		x.targets[d.ID] = d
	}
	return x
}

// voiceOf names whose answer it is.
func voiceOf(k channels.Kind, address string) string {
	if k == channels.WebPush {
		return originOf(address)
	}
	return k.String()
}

func originOf(address string) string {
	if !strings.HasPrefix(address, "https://") {
		return ""
	}
	host, _, _ := strings.Cut(strings.TrimPrefix(address, "https://"), "/")
	return "https://" + host
}

// answer is every provider's. The attempt ends when it is recorded: see watched.
func (x *troubled) answer(_ context.Context, _ channels.Credential, t channels.Target, _ channels.Life) channels.Result {
	x.world.RLock()
	x.mu.Lock()
	defer x.mu.Unlock()
	kind, scope := channels.FCM, channels.ScopeCredential
	switch {
	case strings.HasPrefix(t.Address, "https://"):
		kind, scope = channels.WebPush, channels.ScopeOrigin
	case strings.HasPrefix(t.Address, "apns"):
		kind = channels.APNs
	}
	v := x.voices[voiceOf(kind, t.Address)]
	var number int
	_, _ = fmt.Sscanf(t.Address[strings.LastIndexByte(t.Address, '-')+1:], "%d", &number)
	if v.of > 1 && number%v.of != 0 {
		v.answers = answersWell
	}
	switch v.answers {
	case answersDenied:
		return refusedBy(scope)
	case answersGone:
		return channels.Result{Outcome: channels.Gone, Code: "gone", Status: 410}
	case answersDoubtful:
		return channels.Result{Outcome: channels.Gone, Code: "gone", Status: 404, Doubtful: true}
	case answersBusy:
		return channels.Result{Outcome: channels.Retry, Code: "busy", Status: 503}
	case answersThrottled:
		return channels.Result{Outcome: channels.Throttled, Code: "throttled", Status: 429, Scope: scope}
	}
	return accepted()
}

// watched is a store that looks at what an engine writes.
type watched struct {
	*store.Store
	x *troubled
}

func (w watched) Finish(f delivery.Finish, done func(delivery.FinishResult)) {
	w.x.moved.Add(1)
	if f.Attempt != nil {
		w.x.recorded(&f)
		defer w.x.world.RUnlock()
	}
	w.Store.Finish(f, func(r delivery.FinishResult) {
		if r.Opened && f.Hold.Scope == delivery.HoldCredential && f.Hold.Reason == delivery.CredentialDenied {
			w.x.holds(judgedBy{f.Credential, f.Version, f.Hold.Qualifier}, f.Now)
		}
		done(r)
	})
}

func (w watched) RefuseCredential(ctx context.Context, h delivery.Hold) (bool, error) {
	opened, err := w.Store.RefuseCredential(ctx, h)
	if opened {
		w.x.holds(judgedBy{h.Subject, h.Version, h.Qualifier}, h.Since)
	}
	return opened, err
}

// recorded notes an answer, and that a device is retired by one that says so.
func (x *troubled) recorded(f *delivery.Finish) {
	x.mu.Lock()
	defer x.mu.Unlock()
	k := judgedBy{f.Credential, f.Version, originOf(x.targets[f.Row.Target].Target.Address)}
	x.heard[k] = append(x.heard[k], heardOf{outcome: f.Attempt.Outcome, target: f.Row.Target, user: x.targets[f.Row.Target].User,
		at: f.Attempt.At.Add(f.Attempt.Duration), epoch: x.epoch})
	if f.Transition.Device != delivery.DeviceRetired {
		return
	}
	proven := false
	for other, list := range x.heard {
		proven = proven || other.credential == k.credential && other.version == k.version &&
			slices.ContainsFunc(list, func(h heardOf) bool { return h.outcome == channels.Accepted })
	}
	if f.Attempt.Outcome != channels.Gone || !proven {
		x.faults = append(x.faults, fmt.Sprintf("%s was retired by %s of a version that is proven: %v", x.targets[f.Row.Target].Target.Address, f.Attempt.Outcome, proven))
	}
}

// holds looks whether there was the evidence for a hold.
func (x *troubled) holds(k judgedBy, at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.held++
	var since time.Time // the last success that whoever decided must have known
	for _, h := range x.heard[k] {
		if h.outcome == channels.Accepted && h.epoch+2 <= x.epoch && h.at.After(since) {
			since = h.at
		}
	}
	if slices.ContainsFunc(x.denies[k.credential], func(t time.Time) bool { return !t.Before(since) }) {
		return
	}
	halves, users := map[ids.ID]int{}, map[string]bool{}
	for _, h := range x.heard[k] {
		if h.outcome == channels.Denied && !h.at.Before(since) && at.Sub(h.at) <= 10*time.Minute {
			users[h.user] = true
			halves[h.target] = max(halves[h.target], 1)
			if x.hasWorked(h.target) {
				halves[h.target] = 2
			}
		}
	}
	sum := 0
	for _, n := range halves {
		sum += n
	}
	if sum < 10 || len(users) < 3 {
		x.faults = append(x.faults, fmt.Sprintf("held by %d half targets of %d users since %v: %+v", sum, len(users), since, k))
	}
}

func (x *troubled) hasWorked(target ids.ID) bool {
	for _, list := range x.heard {
		if slices.ContainsFunc(list, func(h heardOf) bool { return h.target == target && h.outcome == channels.Accepted }) {
			return true
		}
	}
	return false
}

func (x *troubled) run() {
	for n, s := range x.script {
		node := x.nodes[n%len(x.nodes)]
		switch s.kind {
		case stepPost:
			if len(s.users) == 0 {
				continue
			}
			r := toUser(s.users...)
			r.TTL = &s.ttl
			x.sent = append(x.sent, node.post(r))
		case stepTrouble:
			x.says(s)
		case stepVersion:
			x.creds[s.channel] = node.credential(s.channel, "")
		case stepResume:
			_, err := node.store.ResumeCredential(x.ctx, x.tenant, x.creds[s.channel].ID, tenants.Change{Actor: "bob", Action: "credential.resume"})
			require.NoError(x.t, err)
			node.engine.CredentialsChanged(x.tenant)
		case stepWait:
			x.advance(s.wait)
		}
	}
	for range 30 { // longer than everything may live
		x.advance(time.Hour)
	}
	x.waitFor("everything to end", func() bool {
		x.advance(time.Second) // what was put off is due now and then
		for _, s := range []delivery.State{delivery.Pending, delivery.Sending, delivery.Held} {
			if list, err := x.store.Deliveries(x.ctx, x.tenant, delivery.Query{State: s, Limit: 1}); err != nil || len(list) > 0 {
				return false
			}
		}
		return true
	})
	states := map[string]int{}
	for _, r := range x.sent {
		for i := range r.Deliveries {
			v, err := x.store.Delivery(x.ctx, x.tenant, r.Notification, r.Deliveries[i].Target)
			require.NoError(x.t, err)
			require.False(x.t, v.State.Unfinished())
			require.Equal(x.t, v.State == delivery.Sent, v.Reason == delivery.NoReason, "%+v", v)
			states[v.State.String()+" "+v.Reason.String()]++
		}
	}
	x.t.Log(states, "holds", x.held)
	require.Empty(x.t, x.faults)
	for _, d := range x.targets {
		if x.statusOf(d) == devices.Retired {
			require.True(x.t, x.saidGone(d.ID), "%s was retired, and nobody had said that it is gone", d.Target.Address)
		}
	}
	x.sound()
}

func (x *troubled) saidGone(target ids.ID) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, list := range x.heard {
		if slices.ContainsFunc(list, func(h heardOf) bool { return h.target == target && h.outcome == channels.Gone }) {
			return true
		}
	}
	return false
}

// says changes what a provider answers.
func (x *troubled) says(s step) {
	name := s.channel.String()
	if s.channel == channels.WebPush {
		name = fmt.Sprintf("https://push-%d.example", s.origin)
	}
	x.channels[s.channel].says([]channels.Result{accepted(), {Outcome: channels.Denied, Code: "denied", Detail: "Refused."}, {Outcome: channels.Retry, Code: "busy"}}[s.says])
	x.mu.Lock()
	defer x.mu.Unlock()
	x.voices[name] = voice{s.answers, s.of, s.says}
	x.noteDenies()
}

// noteDenies notes which providers refuse now.
func (x *troubled) noteDenies() {
	for _, kind := range []channels.Kind{channels.FCM, channels.APNs} {
		if x.voices[kind.String()].says == 1 {
			x.denies[x.creds[kind].ID] = append(x.denies[x.creds[kind].ID], x.clock.now())
		}
	}
}

// waitFor waits as long as outcomes are written, however long a loaded machine takes for
// that: a step may have hundreds of attempts.
func (x *troubled) waitFor(what string, ok func() bool) {
	x.t.Helper()
	const still = time.Minute
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	moved, since := int64(-1), time.Now()
	for !ok() {
		<-tick.C
		if n := x.moved.Load(); n != moved {
			moved, since = n, time.Now()
		}
		require.Less(x.t, time.Since(since), still, "wait for %s: nothing moves any more", what)
	}
}

// advance moves the clock when nothing is under way, and all nodes know the same.
func (x *troubled) advance(d time.Duration) {
	x.t.Helper()
	x.waitFor("nothing to be sent", func() bool {
		list, err := x.store.Deliveries(x.ctx, x.tenant, delivery.Query{State: delivery.Sending, Limit: 1})
		return err == nil && len(list) == 0
	})
	x.world.Lock()
	defer x.world.Unlock()
	if len(x.nodes) > 1 {
		for range 2 { // who hears of refusals answers with what has succeeded
			for _, n := range x.nodes {
				require.NoError(x.t, n.engine.Exchange())
			}
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.clock.advance(d)
	x.epoch++
	x.noteDenies()
}
