package torture_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/simulator"
)

// arena is a database with its fleet, its world and what callers know, for some
// rounds; then it is thrown away, so that a long run does not grow.
type arena struct {
	*world
	neighbour *neighbour
	t         *testing.T
	rng       *rand.Rand
	ledger    *ledger
	report    *report
	serial    *atomic.Int64

	began    time.Time      // of the round
	until    time.Time      // what was scheduled for later is left to a later round
	accepted int            // until the round began
	dooms    []string       // users of phones that are gone
	before   map[string]int // see evidence.Before
}

func newArena(t *testing.T, db func(t *testing.T, dir string) database, size int, rng *rand.Rand, r *report, serial *atomic.Int64) *arena {
	t.Helper()
	dir := t.TempDir()
	sim, err := simulator.Start(simulator.Options{Keep: 100})
	require.NoError(t, err)
	t.Cleanup(func() { _ = sim.Close() })
	f := newFleet(t, sim, db(t, dir), dir, size)
	c := newClient(f, makeTenant(t, f, "acme"), rng.Uint64())
	t.Cleanup(c.http.CloseIdleConnections)
	bad := newClient(f, makeTenant(t, f, "neighbour"), rng.Uint64())
	t.Cleanup(bad.http.CloseIdleConnections)
	for _, n := range f.nodes {
		n.start(t, "")
	}
	return &arena{t: t, world: newWorld(t, c, sim), neighbour: newNeighbour(t, bad), rng: rng, ledger: newLedger(), report: r, serial: serial}
}

// load makes callers who wish what mix says; nil: the usual.
func (a *arena) load(change func(*[wishes]int)) *load {
	mix := usual()
	if change != nil {
		change(&mix)
	}
	return &load{w: a.world, neighbour: a.neighbour, ledger: a.ledger, mix: mix, gone: a.dooms, serial: a.serial, ahead: 1200 * time.Millisecond}
}

// round plays one scenario, makes everything whole, waits until everything is at
// its end, and judges.
func (a *arena) round(s scenario) *verdict {
	a.began = time.Now()
	a.accepted, a.before = a.ledger.accepted, nil
	if a.rng.IntN(2) == 0 {
		a.dooms = append(a.dooms, a.doom(a.t))
		a.dooms = a.dooms[max(0, len(a.dooms)-3):]
	}
	a.weather()
	s.play(a)
	a.heal()
	a.afterwards()
	a.finishKeys()
	a.drain()
	v := judge(a.evidence())
	a.neighbour.judge(a.t, v, a.before != nil)
	a.report.add(s.kind, v)
	return v
}

// weather makes the providers fail in ways that end by themselves. A fault that
// is set anew strikes anew.
func (a *arena) weather() {
	for _, channel := range []simulator.Channel{simulator.FCM, simulator.APNs, simulator.WebPush, simulator.Webhook} {
		f := []simulator.Fault{
			{},
			{Latency: time.Duration(1+a.rng.IntN(40)) * time.Millisecond},
			{Status: http.StatusServiceUnavailable, Times: 1 + a.rng.IntN(60)},
			{Reset: true, Times: 1 + a.rng.IntN(20)},
			{CutBody: true, Times: 1 + a.rng.IntN(20)},
			{Status: http.StatusInternalServerError, Latency: 5 * time.Millisecond, Times: 1 + a.rng.IntN(30)},
		}[a.rng.IntN(6)]
		if f != (simulator.Fault{}) {
			a.sim.SetFault(string(channel), f)
		}
	}
}

// heal makes links and providers whole and starts what is down.
func (a *arena) heal() {
	for _, l := range a.fleet.links() {
		mend(a.t, l)
	}
	a.sim.ClearFault("")
	a.revive()
	a.resumeAll(a.t)
}

// revive starts the nodes that are down. When none was up it measures how long it
// took until a provider was reached again, with nothing paused.
func (a *arena) revive() {
	a.t.Helper()
	none := len(a.fleet.living()) == 0
	began, before := time.Now(), a.sim.Report().Accepted
	for _, n := range a.fleet.nodes {
		if !n.alive() {
			n.start(a.t, "")
		}
	}
	if !none {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	a.resumeAll(a.t) // callers may have paused everything that could reach a provider
	a.heartbeat()
	require.NoError(a.t, a.sim.Wait(ctx, func(r simulator.Report) bool { return r.Accepted > before }), "no provider is reached after a start:\n%s", a.fleet.nodes[0].tail())
	a.report.recovered(time.Since(began))
}

// afterwards lets callers try whether it works again. They also see to it that
// there is something to judge when a server died at the very first request.
func (a *arena) afterwards() {
	l := a.load(func(m *[wishes]int) { m[pauseOrResume] = 0 })
	l.begin()
	a.wait(l, 3)
	l.end()
}

// heartbeat sends to a user on every channel: a success settles what is in doubt.
func (a *arena) heartbeat() {
	var p promise
	a.must(a.t, "POST", "/v1/notifications", map[string]any{"to": map[string]any{"users": a.users[:1]}, "title": "heartbeat",
		"channels": []string{"fcm", "apns", "webpush"}}, &p)
	a.ledger.with(func() { a.ledger.open[p.ID] = &p })
}

// finishKeys answers what callers with an Idempotency-Key still ask for.
func (a *arena) finishKeys() {
	a.t.Helper()
	l := a.load(nil)
	var waiting []*keyed
	a.ledger.with(func() {
		for _, k := range a.ledger.keys {
			if len(k.Answers) == 0 || a.before != nil || a.rng.IntN(4) == 0 {
				waiting = append(waiting, k)
			}
		}
	})
	deadline := time.Now().Add(patience)
	for _, k := range waiting {
		for !l.tryOnce(context.Background(), k) && time.Now().Before(deadline) {
			pause(context.Background(), 20*time.Millisecond)
		}
	}
}

// drain waits until nothing is unfinished but what is scheduled ahead. If it does
// not end, the judge tells what did not.
func (a *arena) drain() {
	a.t.Helper()
	deadline := time.Now().Add(patience)
	beat := time.Now().Add(time.Second)
	for time.Now().Before(deadline) {
		if a.quiet() {
			return
		}
		if time.Now().After(beat) {
			a.resumeAll(a.t)
			a.heartbeat()
			beat = time.Now().Add(time.Second)
		}
		pause(context.Background(), 10*time.Millisecond)
	}
	a.t.Logf("not drained after %s; node 0 says:\n%s", patience, a.fleet.nodes[0].tail())
}

func (a *arena) quiet() bool {
	a.t.Helper()
	a.until = time.Now()
	for _, p := range a.due() {
		var n notification
		if a.must(a.t, "GET", "/v1/notifications/"+p.ID, nil, &n); n.Scheduled {
			return false
		}
	}
	for _, state := range []string{"sending", "pending", "held"} {
		var list struct {
			Data []stored `json:"data"`
		}
		if a.must(a.t, "GET", "/v1/deliveries?limit=1&state="+state, nil, &list); len(list.Data) > 0 {
			return false
		}
	}
	return true
}

// due are scheduled promises whose time has come.
func (a *arena) due() (due []*promise) {
	a.ledger.with(func() {
		for _, p := range a.ledger.open {
			if p.Scheduled && p.SendAt.Before(a.until) {
				due = append(due, p)
			}
		}
	})
	return due
}

// evidence gathers what the judge needs, and forgets what it judges.
func (a *arena) evidence() evidence {
	a.t.Helper()
	e := evidence{Stored: map[string]*stored{}, Notifications: map[string]*notification{}, Copies: map[string]int{}, Seen: a.seen,
		Poisoned: a.poisoned, Doomed: a.doomed, Canceled: a.ledger.canceled, Refused: a.ledger.refused,
		Accepted: a.ledger.accepted - a.accepted, Before: a.before}
	e.AtMostOnce = func(id string) bool {
		var n struct {
			Type string `json:"type"`
		}
		a.must(a.t, "GET", "/v1/notifications/"+id, nil, &n)
		return n.Type == typeAtMostOnce
	}
	e.Ambiguous = a.ambiguous
	waiting := map[string]bool{} // scheduled ahead, so not judged yet
	a.ledger.with(func() {
		for id, p := range a.ledger.open {
			if p.Scheduled && !p.SendAt.Before(a.until) {
				waiting[id] = true
				continue
			}
			e.Promises = append(e.Promises, p)
			delete(a.ledger.open, id)
		}
		for id, k := range a.ledger.keys {
			e.Keys = append(e.Keys, k)
			delete(a.ledger.keys, id)
		}
	})
	keep := func(d stored) {
		if !waiting[d.Notification] {
			e.Stored[d.ID] = &d
		}
	}
	each(a.t, a.client, "/v1/deliveries?limit=200&since="+a.began.UTC().Format(time.RFC3339Nano), keep)
	for _, p := range e.Promises {
		if len(p.Deliveries) == 0 {
			e.Notifications[p.ID] = find[notification](a, "/v1/notifications/"+p.ID)
		}
		for _, r := range p.Deliveries {
			// The list begins by the clock of the ids, which is the database's and not ours.
			if e.Stored[r.ID] == nil {
				if d := find[stored](a, "/v1/deliveries/"+r.ID); d != nil {
					e.Stored[r.ID] = d
				}
			}
		}
		if p.Scheduled && e.Notifications[p.ID] != nil {
			each(a.t, a.client, "/v1/notifications/"+p.ID+"/deliveries?limit=200", keep)
		}
	}
	a.settle(e.Stored)
	a.count(e)
	e.Violations = a.fleet.db.check(a.t, a.fleet.ring())
	for _, n := range a.fleet.nodes {
		if fault := n.endedByItself(); fault != "" {
			e.Crashes = append(e.Crashes, fault)
		}
	}
	a.ledger.refused = map[string]int{}
	return e
}

// settle looks once more at deliveries of notifications that were scheduled and
// not promised, so that nobody waited for them.
func (a *arena) settle(all map[string]*stored) {
	deadline := time.Now().Add(patience)
	for id, d := range all {
		for !d.final() && time.Now().Before(deadline) {
			pause(context.Background(), 20*time.Millisecond)
			d = &stored{}
			a.must(a.t, "GET", "/v1/deliveries/"+id, nil, d)
			all[id] = d
		}
	}
}

// count counts, in the database itself, the notifications of each key.
func (a *arena) count(e evidence) {
	a.t.Helper()
	db := a.fleet.db.open(a.t)
	defer func() { require.NoError(a.t, db.Close()) }()
	rows, err := db.Query("SELECT type, count(*) FROM notifications WHERE type LIKE 'once.%' GROUP BY type")
	require.NoError(a.t, err)
	defer func() { require.NoError(a.t, rows.Close()) }()
	for rows.Next() {
		var name string
		var n int
		require.NoError(a.t, rows.Scan(&name, &n))
		e.Copies[name] = n
	}
	require.NoError(a.t, rows.Err())
}

// find reads what may not be there.
func find[T any](a *arena, path string) *T {
	a.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		res, err := a.call(context.Background(), "GET", path, "", nil)
		switch {
		case err == nil && res.status == http.StatusOK:
			return parse[T](a.t, res.body)
		case err == nil && res.status == http.StatusNotFound:
			return nil
		case time.Now().After(deadline):
			a.t.Fatalf("read %s: %v %d", path, err, res.status)
		}
		pause(context.Background(), 20*time.Millisecond)
	}
}

// ambiguous tells whether an attempt was written and not answered.
func (a *arena) ambiguous(d *stored) bool {
	var detail struct {
		Attempts []struct {
			Ambiguous bool `json:"ambiguous"`
		} `json:"attempts"`
	}
	a.must(a.t, "GET", fmt.Sprintf("/v1/deliveries/%s", d.ID), nil, &detail)
	for _, x := range detail.Attempts {
		if x.Ambiguous {
			return true
		}
	}
	return false
}
