package storetest

import (
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
)

func jobTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Jobs/AreStoredAsGiven":             jobsAsGiven,
		"Jobs/OneForAnIdempotencyKey":       jobsIdempotent,
		"Jobs/OneNodeHasTheLease":           jobsOneLease,
		"Jobs/HaveTheirTurns":               jobsTurns,
		"Jobs/OfOtherKindsAreLeft":          jobsOtherKinds,
		"Jobs/AStepIsOneWithItsWork":        jobsStep,
		"Jobs/AStepThatFailsDoesNothing":    jobsFailedStep,
		"Jobs/AreReturnedAndFailByTheirOwn": jobsReturned,
		"Jobs/CanceledDoNothingMore":        jobsCanceled,
		"Jobs/ManyNodesRepeatNothing":       jobsManyNodes,
		"Jobs/OfATenantAreLimited":          jobsLimited,
		"Jobs/AreListedByTenant":            jobsListed,
		"Jobs/ArePurged":                    jobsPurged,
	}
}

func spec() json.RawMessage {
	return json.RawMessage(`{"filter":{"reason":"rejected"},"per_second":7}`)
}

// newJob makes a job of a tenant; 0 is the installation.
func (k *kit) newJob(tenant ids.ID) jobs.Job {
	k.Helper()
	now := k.Clock.Now()
	j := jobs.Job{ID: k.IDs.Next(), Tenant: tenant, Kind: jobs.ReplayDeadLetters, State: jobs.Queued, Spec: spec(), Total: 3,
		Actor: "key_test", CreatedAt: now, UpdatedAt: now, LeaseUntil: now}
	stored, err := k.Store.CreateJob(k.ctx, j, nil, delivery.Answer{}, time.Time{})
	k.ok(err)
	require.Nil(k, stored)
	return j
}

// claimJob claims for a minute; the ID is 0 where there is nothing to claim.
func (k *kit) claimJob(kinds ...jobs.Kind) (jobs.Job, time.Time) {
	k.Helper()
	if kinds == nil {
		kinds = jobs.Kinds()
	}
	now := k.Clock.Now()
	j, next, err := k.Store.ClaimJob(k.ctx, jobs.ClaimOrder{Kinds: kinds, Now: now, Lease: now.Add(time.Minute), Claim: int64(k.IDs.Next())})
	k.ok(err)
	return j, next
}

// replays takes a step that replays dead letters.
func (k *kit) replays(j jobs.Job, p jobs.Progress, rows ...delivery.Row) (delivery.ReplayCounts, error) {
	list := make([]delivery.Replayed, len(rows))
	for i, r := range rows {
		list[i] = delivery.Replayed{DeadLetter: delivery.DeadLetter{Notification: r.Notification, Target: r.Target, Channel: r.Channel, State: delivery.Dead},
			ExpiresAt: k.Clock.Now().Add(2 * time.Hour)}
	}
	var counts delivery.ReplayCounts
	_, err := k.Store.ReplayDead(k.ctx, j, list, func(c delivery.ReplayCounts) jobs.Progress {
		counts = c
		return p
	})
	return counts, err
}

func (k *kit) job(j jobs.Job) jobs.Job {
	k.Helper()
	got, err := k.Store.Job(k.ctx, j.Tenant, j.ID)
	k.ok(err)
	return got
}

// dead makes n dead letters of one notification.
func (k *kit) dead(n int, edit ...func(*delivery.Accepted)) []delivery.Row {
	k.Helper()
	k.accepted(n, edit...)
	var rows []delivery.Row
	for _, c := range k.claim() {
		k.dies(c)
		rows = append(rows, c.Row)
	}
	require.Len(k, rows, n)
	return rows
}

func jobsAsGiven(k *kit) {
	j := k.newJob(k.tenant)
	require.Equal(k, j, k.job(j))
	of := k.newJob(0)
	require.Equal(k, of, k.job(of), "one of the installation")
	bad := j
	bad.ID, bad.Spec = k.IDs.Next(), json.RawMessage(`{`)
	_, err := k.Store.CreateJob(k.ctx, bad, nil, delivery.Answer{}, time.Time{})
	require.Error(k, err)
	_, err = k.Store.Job(k.ctx, k.tenant, bad.ID)
	k.code(problem.NotFound, err)
}

func jobsIdempotent(k *kit) {
	now := k.Clock.Now()
	create := func(hash byte, body string) (*delivery.Answer, error) {
		j := jobs.Job{ID: k.IDs.Next(), Tenant: k.tenant, Kind: jobs.ReplayDeadLetters, Spec: spec(), CreatedAt: now}
		return k.Store.CreateJob(k.ctx, j, &delivery.Idempotency{Principal: 1, Route: "r", Key: "k", BodyHash: [32]byte{hash}},
			delivery.Answer{Status: 202, Body: []byte(body)}, now.Add(time.Hour))
	}
	stored, err := create(1, "first")
	k.ok(err)
	require.Nil(k, stored)
	stored, err = create(1, "second")
	k.ok(err)
	require.Equal(k, &delivery.Answer{Status: 202, Body: []byte("first"), Replayed: true}, stored)
	_, err = create(2, "third")
	k.code(problem.IdempotencyMismatch, err)
	list, err := k.Store.Jobs(k.ctx, k.tenant, jobs.Query{Limit: 10})
	k.ok(err)
	require.Len(k, list, 1)
}

func jobsOneLease(k *kit) {
	none, next := k.claimJob()
	require.Zero(k, none.ID)
	require.Zero(k, next)
	j := k.newJob(k.tenant)
	start := k.Clock.Now()
	first, _ := k.claimJob()
	require.Equal(k, j.ID, first.ID)
	require.Equal(k, jobs.Running, first.State)
	require.Equal(k, start, first.StartedAt)
	require.Equal(k, start.Add(time.Minute), first.LeaseUntil)
	require.NotZero(k, first.Claim)
	require.JSONEq(k, string(spec()), string(first.Spec))
	require.Equal(k, first, k.job(j))

	other, next := k.claimJob()
	require.Zero(k, other.ID)
	require.Equal(k, start.Add(time.Minute), next)

	k.Clock.Advance(time.Minute) // the node has died
	second, _ := k.claimJob()
	require.Equal(k, j.ID, second.ID)
	require.NotEqual(k, first.Claim, second.Claim)
	require.Equal(k, start, second.StartedAt)

	row := k.dead(1)[0] // and comes back
	_, err := k.replays(first, jobs.Progress{Done: 1}, row)
	require.ErrorIs(k, err, jobs.ErrLost)
	k.is(row, delivery.Dead, delivery.Rejected)
	held, err := k.Store.ReturnJob(k.ctx, first)
	k.ok(err)
	require.False(k, held)
	held, err = k.Store.FailJob(k.ctx, first, "no")
	k.ok(err)
	require.False(k, held)
	require.Equal(k, second, k.job(j))
}

func jobsTurns(k *kit) {
	a := k.newJob(k.tenant)
	k.Clock.Advance(time.Second)
	b := k.newJob(0)
	var order []ids.ID
	for range 4 {
		k.Clock.Advance(time.Second)
		j, _ := k.claimJob()
		order = append(order, j.ID)
		_, err := k.replays(j, jobs.Progress{})
		k.ok(err)
	}
	require.Equal(k, []ids.ID{a.ID, b.ID, a.ID, b.ID}, order)
}

func jobsOtherKinds(k *kit) {
	j := k.newJob(k.tenant)
	none, next := k.claimJob(200, 201)
	require.Zero(k, none.ID)
	require.Zero(k, next)
	got, _ := k.claimJob(200, jobs.ReplayDeadLetters)
	require.Equal(k, j.ID, got.ID)
}

func jobsStep(k *kit) {
	rows := k.dead(3)
	k.newJob(k.tenant)
	k.Clock.Advance(time.Second)
	j, _ := k.claimJob()
	k.Clock.Advance(time.Second)
	now := k.Clock.Now()
	c, err := k.replays(j, jobs.Progress{Done: 2, Skipped: 3, Failed: 4, Cursor: json.RawMessage(`{"at":1}`), Result: json.RawMessage(`{"x":2}`),
		NotBefore: now.Add(time.Hour)}, rows[0], rows[1])
	k.ok(err)
	require.Equal(k, delivery.ReplayCounts{Replayed: 2}, c)
	v := k.is(rows[0], delivery.Pending, delivery.NoReason)
	require.Equal(k, 2, v.Round)
	require.Zero(k, v.Spent)
	require.Equal(k, now, v.DueAt)
	require.Equal(k, now.Add(2*time.Hour), v.ExpiresAt)
	k.is(rows[2], delivery.Dead, delivery.Rejected)
	got := k.job(j)
	want := j
	want.Claim, want.Done, want.Skipped, want.Failed, want.UpdatedAt, want.LeaseUntil = 0, 2, 3, 4, now, now.Add(time.Hour)
	want.Cursor, want.Result = json.RawMessage(`{"at":1}`), json.RawMessage(`{"x":2}`)
	require.Equal(k, want, got)
	none, next := k.claimJob()
	require.Zero(k, none.ID, "the pause is kept")
	require.Equal(k, now.Add(time.Hour), next)

	k.Clock.Advance(time.Hour)
	j, _ = k.claimJob()
	_, err = k.replays(j, jobs.Progress{Done: 1, Total: 6, End: true}, rows[2])
	k.ok(err)
	got = k.job(j)
	require.Equal(k, jobs.Done, got.State)
	require.Equal(k, []int{3, 3, 4, 6}, []int{got.Done, got.Skipped, got.Failed, got.Total})
	require.JSONEq(k, `{"at":1}`, string(got.Cursor), "what a step does not name stays")
	require.JSONEq(k, `{"x":2}`, string(got.Result))
	require.Equal(k, k.Clock.Now(), got.FinishedAt)
	k.Clock.Advance(time.Hour)
	none, _ = k.claimJob()
	require.Zero(k, none.ID)
}

func jobsFailedStep(k *kit) {
	row := k.dead(1)[0]
	k.newJob(k.tenant)
	j, _ := k.claimJob()
	_, err := k.Store.ReplayDead(k.ctx, j, []delivery.Replayed{{DeadLetter: delivery.DeadLetter{Notification: row.Notification, Target: row.Target, State: delivery.Dead}}},
		func(delivery.ReplayCounts) jobs.Progress { panic("no progress") })
	require.Error(k, err)
	k.is(row, delivery.Dead, delivery.Rejected)
	require.Equal(k, j, k.job(j))
}

func jobsReturned(k *kit) {
	k.newJob(k.tenant)
	j, _ := k.claimJob()
	k.Clock.Advance(time.Second)
	j.LeaseUntil, j.Retries, j.Error = k.Clock.Now().Add(time.Second), 1, "The database is away."
	held, err := k.Store.ReturnJob(k.ctx, j)
	k.ok(err)
	require.True(k, held)
	got := k.job(j)
	require.Equal(k, jobs.Running, got.State)
	require.Equal(k, []any{j.LeaseUntil, 1, "The database is away.", int64(0)}, []any{got.LeaseUntil, got.Retries, got.Error, got.Claim})

	k.Clock.Advance(time.Second)
	j, _ = k.claimJob()
	require.Equal(k, 1, j.Retries)
	_, err = k.replays(j, jobs.Progress{})
	k.ok(err)
	got = k.job(j)
	require.Zero(k, got.Retries, "a step that was taken ends the tries")
	require.Empty(k, got.Error)

	j, _ = k.claimJob()
	held, err = k.Store.FailJob(k.ctx, j, "The spec is wrong.")
	k.ok(err)
	require.True(k, held)
	got = k.job(j)
	require.Equal(k, jobs.Failed, got.State)
	require.Equal(k, "The spec is wrong.", got.Error)
	require.Equal(k, k.Clock.Now(), got.FinishedAt)
	k.Clock.Advance(time.Hour)
	none, _ := k.claimJob()
	require.Zero(k, none.ID)
}

func jobsCanceled(k *kit) {
	row := k.dead(1)[0]
	queued := k.newJob(k.tenant)
	got, err := k.Store.CancelJob(k.ctx, k.tenant, queued.ID, "key_me")
	k.ok(err)
	require.Equal(k, jobs.Canceled, got.State)
	require.Equal(k, k.Clock.Now(), got.FinishedAt)
	none, _ := k.claimJob()
	require.Zero(k, none.ID)

	k.newJob(k.tenant)
	running, _ := k.claimJob()
	_, err = k.Store.CancelJob(k.ctx, k.newTenant("other"), running.ID, "key_me")
	k.code(problem.NotFound, err)
	_, err = k.Store.CancelJob(k.ctx, 0, running.ID, "key_me")
	k.code(problem.NotFound, err)
	_, err = k.Store.CancelJob(k.ctx, k.tenant, running.ID, "key_me")
	k.ok(err)
	_, err = k.replays(running, jobs.Progress{Done: 1}, row)
	require.ErrorIs(k, err, jobs.ErrLost)
	k.is(row, delivery.Dead, delivery.Rejected)
	end := k.job(running)
	k.Clock.Advance(time.Second)
	again, err := k.Store.CancelJob(k.ctx, k.tenant, running.ID, "key_me")
	k.ok(err)
	require.Equal(k, end, again, "it may be repeated")

	k.newJob(k.tenant)
	done, _ := k.claimJob()
	_, err = k.replays(done, jobs.Progress{End: true})
	k.ok(err)
	_, err = k.Store.CancelJob(k.ctx, k.tenant, done.ID, "key_me")
	k.code(problem.Conflict, err)
	require.Equal(k, jobs.Done, k.job(done).State)

	odd := jobs.Job{ID: k.IDs.Next(), Tenant: k.tenant, Kind: 200, Spec: spec(), CreatedAt: k.Clock.Now()}
	_, err = k.Store.CreateJob(k.ctx, odd, nil, delivery.Answer{}, time.Time{})
	k.ok(err)
	_, err = k.Store.CancelJob(k.ctx, k.tenant, odd.ID, "key_me")
	k.code(problem.Conflict, err)
	require.Equal(k, jobs.Queued, k.job(odd).State, "a kind that must not stop half way")
}

// jobsManyNodes lets nodes take the job from each other in the middle of their
// steps, as fast as they can.
func jobsManyNodes(k *kit) {
	const nodes, letters = 4, 60
	rows := k.dead(letters)
	k.Clock.Advance(time.Second)
	j := k.newJob(k.tenant)
	var lost atomic.Int64
	node := func() error {
		for {
			// The lease is over at once, so that others take the job in the middle of
			// every step.
			now := k.Clock.Now()
			mine, _, err := k.Store.ClaimJob(k.ctx, jobs.ClaimOrder{Kinds: jobs.Kinds(), Now: now, Lease: now, Claim: int64(k.IDs.Next())})
			if err != nil || mine.ID == 0 {
				got, jerr := k.Store.Job(k.ctx, k.tenant, j.ID)
				if err = errors.Join(err, jerr); err != nil || !got.State.Unfinished() {
					return err
				}
				continue
			}
			var after delivery.Cursor
			if mine.Cursor != nil {
				if err := json.Unmarshal(mine.Cursor, &after); err != nil {
					return err
				}
			}
			page, err := k.Store.WalkDead(k.ctx, k.tenant, delivery.DeadWalk{After: after, Before: j.CreatedAt, Look: 100, Want: 3})
			if err != nil {
				return err
			}
			list := make([]delivery.Replayed, len(page.Letters))
			for i, d := range page.Letters {
				list[i] = delivery.Replayed{DeadLetter: d, ExpiresAt: now.Add(time.Hour)}
			}
			cursor, err := json.Marshal(page.Next)
			if err != nil {
				return err
			}
			_, err = k.Store.ReplayDead(k.ctx, mine, list, func(c delivery.ReplayCounts) jobs.Progress {
				return jobs.Progress{Done: c.Replayed, Skipped: c.NotDead + c.Erased, Cursor: cursor, End: page.End}
			})
			if errors.Is(err, jobs.ErrLost) {
				lost.Add(1)
			} else if err != nil {
				return err
			}
		}
	}
	results := make(chan error, nodes)
	for range nodes {
		go func() { results <- node() }()
	}
	for range nodes {
		k.ok(<-results)
	}
	got := k.job(j)
	require.Equal(k, jobs.Done, got.State)
	require.Equal(k, []int{letters, 0}, []int{got.Done, got.Skipped}, "%d steps were lost to others", lost.Load())
	for _, r := range rows {
		require.Equal(k, 2, k.is(r, delivery.Pending, delivery.NoReason).Round)
	}
}

func jobsLimited(k *kit) {
	var last jobs.Job
	for range delivery.MaxOpenJobs {
		last = k.newJob(k.tenant)
	}
	create := func(tenant ids.ID) error {
		j := jobs.Job{ID: k.IDs.Next(), Tenant: tenant, Kind: jobs.ReplayDeadLetters, Spec: spec(), CreatedAt: k.Clock.Now()}
		_, err := k.Store.CreateJob(k.ctx, j, &delivery.Idempotency{Principal: 1, Route: "r", Key: "k"},
			delivery.Answer{Status: 202, Body: []byte("{}")}, k.Clock.Now().Add(time.Hour))
		return err
	}
	k.code(problem.Throttled, create(k.tenant))
	k.ok(create(k.newTenant("other")))
	_, err := k.Store.CancelJob(k.ctx, k.tenant, last.ID, "x")
	k.ok(err)
	k.ok(create(k.tenant)) // and the key was not taken by the one that was refused
	list, err := k.Store.Jobs(k.ctx, k.tenant, jobs.Query{State: jobs.Queued, Limit: 100})
	k.ok(err)
	require.Len(k, list, delivery.MaxOpenJobs)
}

func jobsListed(k *kit) {
	a, b := k.newJob(k.tenant), k.newJob(k.tenant)
	c := k.newJob(0)
	list := func(tenant ids.ID, q jobs.Query) (out []ids.ID) {
		k.Helper()
		if q.Limit == 0 {
			q.Limit = 10
		}
		rows, err := k.Store.Jobs(k.ctx, tenant, q)
		k.ok(err)
		for _, j := range rows {
			out = append(out, j.ID)
		}
		return out
	}
	require.Equal(k, []ids.ID{b.ID, a.ID}, list(k.tenant, jobs.Query{}))
	require.Equal(k, []ids.ID{c.ID}, list(0, jobs.Query{}))
	require.Empty(k, list(k.newTenant("other"), jobs.Query{}))
	require.Equal(k, []ids.ID{b.ID}, list(k.tenant, jobs.Query{Limit: 1}))
	require.Equal(k, []ids.ID{a.ID}, list(k.tenant, jobs.Query{After: b.ID}))
	_, err := k.Store.CancelJob(k.ctx, k.tenant, a.ID, "x")
	k.ok(err)
	require.Equal(k, []ids.ID{a.ID}, list(k.tenant, jobs.Query{State: jobs.Canceled}))
	require.Equal(k, []ids.ID{b.ID}, list(k.tenant, jobs.Query{State: jobs.Queued, Kind: jobs.ReplayDeadLetters}))
	require.Empty(k, list(k.tenant, jobs.Query{Kind: 200}))
}

func jobsPurged(k *kit) {
	old, open := k.newJob(k.tenant), k.newJob(k.tenant)
	_, err := k.Store.CancelJob(k.ctx, k.tenant, old.ID, "x")
	k.ok(err)
	purge := func() {
		_, err := k.Store.Purge(k.ctx, delivery.DefaultRetention(), k.Clock.Now(), 100)
		k.ok(err)
	}
	k.Clock.Advance(30 * 24 * time.Hour)
	purge()
	k.job(old)
	k.Clock.Advance(time.Millisecond)
	purge()
	_, err = k.Store.Job(k.ctx, k.tenant, old.ID)
	k.code(problem.NotFound, err)
	require.Equal(k, jobs.Queued, k.job(open).State)
}
