package delivery_test

import (
	"context"
	"encoding/json"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/store"
)

// graveyard is an engine whose clock stands still unless it is told, with dead
// letters of one endpoint.
type graveyard struct {
	*kit
	hook    *fakeChannel
	letters []delivery.Receipt
	passed  *atomic.Int64 // time since the start
}

// newGraveyard makes n dead letters, and then lets their receiver come back.
func newGraveyard(t *testing.T, n int, change func(*delivery.Options)) *graveyard {
	t.Helper()
	start, passed := time.Now().Truncate(time.Millisecond), &atomic.Int64{}
	g := &graveyard{passed: passed, kit: newKitAt(t, func() time.Time { return start.Add(time.Duration(passed.Load())) }, change)}
	g.hook = g.channels[channels.Webhook]
	g.endpoint(nil)
	g.hook.answer(always(channels.Result{Outcome: channels.Rejected, Code: "webhook.refused", Status: 410}))
	for i := range n {
		g.letters = append(g.letters, g.post(delivery.Request{Type: "order.shipped", Data: json.RawMessage(`{"order":` + strconv.Itoa(i) + `}`)}))
		g.ends(g.letters[i], 0, delivery.Dead, delivery.Rejected)
	}
	g.hook.answer(nil)
	g.pass(time.Second)
	return g
}

func (g *graveyard) pass(d time.Duration) { g.passed.Add(int64(d)) }

func rejected() delivery.DeadFilter { return delivery.DeadFilter{Reason: delivery.Rejected} }

func (g *graveyard) replayAll(f delivery.DeadFilter, perSecond int) jobs.Job {
	g.t.Helper()
	var made jobs.Job
	a, err := g.engine.ReplayAll(g.ctx, delivery.ReplayOrder{Tenant: g.tenant, Filter: f, PerSecond: perSecond, Actor: "test",
		Render: func(j jobs.Job) (int, []byte, error) { made = j; return 202, []byte("{}"), nil }})
	require.NoError(g.t, err)
	require.Equal(g.t, 202, a.Status)
	return made
}

// when waits until a job satisfies a condition.
func (g *graveyard) when(j jobs.Job, what string, ok func(jobs.Job) bool) (now jobs.Job) {
	g.t.Helper()
	require.Eventually(g.t, func() bool {
		var err error
		now, err = g.store.Job(g.ctx, g.tenant, j.ID)
		return err == nil && ok(now)
	}, 20*time.Second, 2*time.Millisecond, "%s: %+v", what, &now)
	return now
}

func (g *graveyard) done(j jobs.Job) jobs.Job {
	g.t.Helper()
	return g.when(j, "the job is done", func(j jobs.Job) bool { return j.State == jobs.Done })
}

// rounds counts the letters by their round.
func (g *graveyard) rounds() map[int]int {
	g.t.Helper()
	out := map[int]int{}
	for _, r := range g.letters {
		v, err := g.store.Delivery(g.ctx, g.tenant, r.Notification, r.Deliveries[0].Target)
		require.NoError(g.t, err)
		out[v.Round]++
	}
	return out
}

// sentOnce: every letter was replayed once, and attempted once after that.
func (g *graveyard) sentOnce() {
	g.t.Helper()
	for i := range g.letters {
		v := g.ends(g.letters[i], 0, delivery.Sent, delivery.NoReason)
		require.Equal(g.t, 2, v.Round)
		require.Len(g.t, v.Attempts, 2)
	}
	counts := map[string]int{}
	for _, s := range g.hook.attempts() {
		counts[s.Delivery]++
	}
	require.Len(g.t, counts, len(g.letters))
	for delivery, n := range counts {
		require.Equal(g.t, 2, n, delivery)
	}
	g.sound()
}

func TestAReplayByFilterSendsEachOnce(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t, 20, nil)
	j := g.replayAll(rejected(), 1000)
	require.JSONEq(t, `{"filter":{"reason":"rejected"},"per_second":1000}`, string(j.Spec))
	require.Equal(t, 20, j.Total)
	j = g.done(j)
	require.Equal(t, []int{20, 0, 0}, []int{j.Done, j.Skipped, j.Failed})
	g.sentOnce()
	v := g.until(g.letters[0].Notification, g.letters[0].Deliveries[0].Target, "to be there", func(delivery.View) bool { return true })
	require.Equal(t, j.CreatedAt.Add(72*time.Hour), v.ExpiresAt, "a new deadline")
	require.Zero(t, g.done(g.replayAll(rejected(), 1000)).Done, "there is nothing left")
}

func TestADryRunOfAReplayOnlyCounts(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t, 3, nil)
	n, exact, err := g.engine.CountDead(g.ctx, delivery.ReplayOrder{Tenant: g.tenant, Filter: rejected(), PerSecond: 1})
	require.NoError(t, err)
	require.True(t, exact)
	require.Equal(t, 3, n)
	n, exact, err = g.engine.CountDead(g.ctx, delivery.ReplayOrder{Tenant: g.tenant, Filter: delivery.DeadFilter{Type: "order.lost"}, PerSecond: 1})
	require.NoError(t, err)
	require.True(t, exact)
	require.Zero(t, n)
	list, err := g.store.Jobs(g.ctx, g.tenant, jobs.Query{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, list)
	require.Equal(t, map[int]int{1: 3}, g.rounds())
}

func TestAReplayIsRefusedAtOnce(t *testing.T) {
	t.Parallel()
	k := newKit(t, nil)
	now := time.Now()
	for field, o := range map[string]delivery.ReplayOrder{
		"filter":          {PerSecond: 1},
		"filter.reason":   {PerSecond: 1, Filter: delivery.DeadFilter{Reason: delivery.Gone}},
		"filter.endpoint": {PerSecond: 1, Filter: delivery.DeadFilter{State: delivery.Sent, Since: now}},
		"filter.since":    {PerSecond: 1, Filter: delivery.DeadFilter{State: delivery.Dropped, Endpoint: 1}},
		"filter.state":    {PerSecond: 1, Filter: delivery.DeadFilter{State: delivery.Pending, Endpoint: 1, Since: now}},
		"filter.until":    {PerSecond: 1, Filter: delivery.DeadFilter{Since: now, Until: now}},
		"per_second":      {PerSecond: 1001, Filter: rejected()},
	} {
		_, err := k.engine.ReplayAll(k.ctx, o)
		p := &problem.Error{}
		require.ErrorAs(t, err, &p, field)
		require.Len(t, p.Fields, 1)
		require.Equal(t, field, p.Fields[0].Path)
		_, _, err = k.engine.CountDead(k.ctx, o)
		require.Equal(t, problem.Invalid, problem.CodeOf(err))
	}
}

// TestThePaceOfAReplaySurvivesARestart: no more than so many leave in a second,
// whoever sends them.
func TestThePaceOfAReplaySurvivesARestart(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t, 10, nil)
	start := g.clock()
	j := g.replayAll(rejected(), 4)
	after := func(done int, next time.Time) {
		t.Helper()
		now := g.when(j, "so many are done", func(j jobs.Job) bool { return j.Done >= done })
		require.Equal(t, done, now.Done)
		require.Equal(t, next, now.LeaseUntil)
		require.Equal(t, map[int]int{2: done, 1: 10 - done}, g.rounds())
	}
	after(4, start.Add(time.Second).UTC())

	g.close()
	g.open()
	// The runner takes whatever may be taken: it takes this, and not the other.
	require.Zero(t, g.done(g.replayAll(delivery.DeadFilter{Type: "order.lost"}, 1)).Done)
	after(4, start.Add(time.Second).UTC())

	g.pass(time.Second)
	after(8, start.Add(2*time.Second).UTC())
	g.pass(time.Second)
	require.Equal(t, 10, g.done(j).Done)
	g.sentOnce()
}

func TestACanceledReplayStops(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t, 9, nil)
	j := g.replayAll(rejected(), 3)
	g.when(j, "a step is taken", func(j jobs.Job) bool { return j.Done == 3 })
	j, err := g.store.CancelJob(g.ctx, g.tenant, j.ID, "test")
	require.NoError(t, err)
	require.Equal(t, jobs.Canceled, j.State)
	g.pass(time.Minute)
	require.Zero(t, g.done(g.replayAll(delivery.DeadFilter{Type: "order.lost"}, 1)).Done, "the runner takes what may be taken")
	require.Equal(t, map[int]int{2: 3, 1: 6}, g.rounds())
	now, err := g.store.Job(g.ctx, g.tenant, j.ID)
	require.NoError(t, err)
	require.Equal(t, j, now)
}

// TestWhatDiesAgainIsNotReplayedAgain: not by the same job.
func TestWhatDiesAgainIsNotReplayedAgain(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t, 6, nil)
	g.hook.answer(always(channels.Result{Outcome: channels.Rejected, Code: "webhook.refused", Status: 410}))
	j := g.replayAll(rejected(), 2)
	for done := 2; done <= 6; done += 2 {
		g.when(j, "a step is taken", func(j jobs.Job) bool { return j.Done == done })
		require.Eventually(t, func() bool { // and has died
			dead, err := g.store.DeadLetters(g.ctx, g.tenant, delivery.Query{Limit: 100})
			return err == nil && len(dead) == 6
		}, 10*time.Second, time.Millisecond)
		g.pass(time.Second)
	}
	require.Equal(t, 6, g.done(j).Done)
	require.Equal(t, map[int]int{2: 6}, g.rounds())
}

func TestAReplaySaysWhatItSkipped(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t, 2, nil)
	g.hook.answer(always(channels.Result{Outcome: channels.Rejected, Code: "webhook.refused", Status: 410}))
	e := g.endpoint(nil) // content that is sensitive goes to endpoints that are named
	secret := g.post(delivery.Request{Sensitive: true, Type: "code", To: delivery.To{Endpoints: []ids.ID{e.ID}}, Data: json.RawMessage(`{"code":1}`)})
	g.ends(secret, 0, delivery.Dead, delivery.Rejected)
	_, err := g.store.Purge(g.ctx, delivery.DefaultRetention(), g.clock(), 100)
	require.NoError(t, err)
	g.hook.answer(nil)
	g.pass(time.Second)
	j := g.done(g.replayAll(delivery.DeadFilter{Until: g.clock()}, 100))
	require.Equal(t, []int{2, 1, 0}, []int{j.Done, j.Skipped, j.Failed})
	require.JSONEq(t, `{"skipped":{"content_erased":1}}`, string(j.Result))
	g.ends(secret, 0, delivery.Dead, delivery.Rejected)
}

// TestAReplayWaitsWhileTooMuchWaits: the limit that accepts have counts for it.
func TestAReplayWaitsWhileTooMuchWaits(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t, 5, func(o *delivery.Options) { o.MaxBacklog, o.Workers, o.LaneSize = 2, 1, 1 })
	open := make(chan struct{})
	g.hook.answer(func(context.Context, channels.Credential, channels.Target, channels.Life) channels.Result {
		<-open
		return accepted()
	})
	j := g.replayAll(rejected(), 100)
	pauses := func(j jobs.Job) bool {
		if j.LeaseUntil.Before(g.clock().Add(10 * time.Second)) {
			g.pass(time.Second)
			return false
		}
		return true
	}
	now := g.when(j, "it pauses", pauses)
	require.Less(t, now.Done, 5)
	close(open)
	g.when(j, "the job is done", func(j jobs.Job) bool {
		if j.Claim == 0 && j.LeaseUntil.After(g.clock()) { // it may pause again: the count of what waits follows the write
			g.pass(10 * time.Second)
		}
		return j.State == jobs.Done
	})
	g.sentOnce()
}

func TestAJobThatCannotBeReadFails(t *testing.T) {
	t.Parallel()
	g := newGraveyard(t, 0, nil)
	for _, spec := range []string{`{"filter":{"reason":"no such reason"},"per_second":1}`, `{"filter":{"channel":"pigeon"},"per_second":1}`,
		`{"filter":{"endpoint":"dev_0d1kq3w8r000c"},"per_second":1}`, `{}`, `[]`} {
		j := jobs.Job{ID: g.ids.Next(), Tenant: g.tenant, Kind: jobs.ReplayDeadLetters, Spec: json.RawMessage(spec), CreatedAt: g.clock()}
		_, err := g.store.CreateJob(g.ctx, j, nil, delivery.Answer{}, time.Time{})
		require.NoError(t, err)
		now := g.when(j, "the job fails", func(j jobs.Job) bool { return j.State == jobs.Failed })
		require.Equal(t, "The job cannot be read; make a new one.", now.Error)
	}
}

// dyingStore is a store on which a node dies in the middle of a step: it is
// never heard of again, until the test lets it go on.
type dyingStore struct {
	*store.Store
	committed bool // the step that it dies in
	steps     atomic.Int64
	died      chan struct{}
	back      chan struct{}
	late      atomic.Pointer[error]
}

func (d *dyingStore) ReplayDead(ctx context.Context, j jobs.Job, letters []delivery.Replayed,
	progress func(delivery.ReplayCounts) jobs.Progress,
) (p jobs.Progress, err error) {
	if d.steps.Add(1) != 2 {
		return d.Store.ReplayDead(ctx, j, letters, progress)
	}
	if d.committed {
		p, err = d.Store.ReplayDead(ctx, j, letters, progress)
	}
	close(d.died)
	<-d.back
	if !d.committed {
		p, err = d.Store.ReplayDead(ctx, j, letters, progress)
	}
	d.late.Store(&err)
	return p, err
}

// TestAReplayOutlivesItsNode: another node goes on behind the last commit, and
// what the dead one still does when it comes back changes nothing.
func TestAReplayOutlivesItsNode(t *testing.T) {
	t.Parallel()
	for name, committed := range map[string]bool{"before the commit": false, "after the commit": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGraveyard(t, 12, nil)
			dying := &dyingStore{committed: committed, died: make(chan struct{}), back: make(chan struct{})}
			comeBack := sync.OnceFunc(func() { close(dying.back) })
			t.Cleanup(comeBack)
			g.wrap = func(s *store.Store) delivery.Store { dying.Store = s; return dying }
			g.close()
			g.open()
			dead := *g.kit

			j := g.replayAll(rejected(), 4)
			g.when(j, "the first step is taken", func(j jobs.Job) bool { return j.Done == 4 })
			g.pass(time.Second)
			<-dying.died
			g.wrap = nil
			g.begin() // another node
			before := g.when(j, "it is as the dead node left it", func(jobs.Job) bool { return true })
			require.Equal(t, map[bool]int{false: 4, true: 8}[committed], before.Done)
			if !committed {
				require.NotZero(t, before.Claim)
				for i := range 4 {
					g.ends(g.letters[i], 0, delivery.Sent, delivery.NoReason)
				}
				g.pass(before.LeaseUntil.Sub(g.clock()))
				g.when(j, "another node takes the step", func(j jobs.Job) bool { return j.Done == 8 })
			}
			g.pass(time.Second)
			now := g.done(j)
			require.Equal(t, []int{12, 0, 0}, []int{now.Done, now.Skipped, now.Failed})

			comeBack()
			dead.runner.Stop()
			if late := *dying.late.Load(); committed {
				require.NoError(t, late)
			} else {
				require.ErrorIs(t, late, jobs.ErrLost)
			}
			require.Equal(t, now, g.done(j))
			g.sentOnce()
			ctx, cancel := context.WithTimeout(g.ctx, 10*time.Second)
			defer cancel()
			require.NoError(t, dead.engine.Stop(ctx))
		})
	}
}
