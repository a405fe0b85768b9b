package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/jobs"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/webhooks"
)

func endpointTests() map[string]func(*kit) {
	return map[string]func(*kit){
		"Endpoint/IsReadBack":           endpointIsReadBack,
		"Endpoint/PauseHoldsAndResumes": endpointPauses,
		"Endpoint/ChangedMeanwhile":     endpointChangedMeanwhile,
		"Endpoint/SecretsThatCount":     endpointSecrets,
		"Endpoint/Lists":                listsEndpoints,
		"Endpoint/IsDeleted":            deletesEndpoints,
		"Endpoint/DeletedDropsWaiting":  deletionDropsWhatWaits,
		"Endpoint/DeletionsShareAJob":   deletionsShareAJob,
	}
}

func endpointIsReadBack(k *kit) {
	e := k.endpoint(func(e *webhooks.Endpoint) {
		e.User, e.Description, e.EventTypes = "alice", "mine", []string{"order.*", "a.b"}
	})
	got, err := k.Store.Endpoint(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.Equal(k, e, got)
	was := e.UpdatedAt
	k.Clock.Advance(time.Second)
	e.URL, e.User, e.Description, e.EventTypes, e.UpdatedAt = "https://b.example", "", "", []string{}, k.Clock.Now()
	k.ok(k.Store.UpdateEndpoint(k.ctx, e, was, webhooks.Edit{Actor: "test"}))
	got, err = k.Store.Endpoint(k.ctx, k.tenant, e.ID)
	k.ok(err)
	require.Equal(k, e, got)
}

func endpointPauses(k *kit) {
	e := k.endpoint()
	e.StatusReason = "maintenance"
	for range 2 { // again: the same hold
		e = k.paused(e)
		holds := k.holds()
		require.Len(k, holds, 1)
		require.Equal(k, delivery.EndpointPaused, holds[0].Reason)
		require.Equal(k, "maintenance", holds[0].Detail)
		require.Equal(k, delivery.Open, holds[0].Ending)
	}
	k.setStatus(e, webhooks.Active)
	require.Equal(k, delivery.Resume, k.holds()[0].Ending)
	k.ended(10)
	require.Empty(k, k.holds())
}

func endpointChangedMeanwhile(k *kit) {
	read := k.endpoint()
	k.goneEndpoint(read, k.Clock.Now()) // the engine disables it, in the same millisecond
	patched := read
	patched.Description, patched.UpdatedAt = "mine", read.UpdatedAt.Add(time.Millisecond)
	k.code(problem.Conflict, k.Store.UpdateEndpoint(k.ctx, patched, read.UpdatedAt, webhooks.Edit{Actor: "test"}))
	got, err := k.Store.Endpoint(k.ctx, k.tenant, read.ID)
	k.ok(err)
	require.Equal(k, webhooks.Disabled, got.Status)
	require.Empty(k, got.Description)
	require.Equal(k, delivery.Open, k.holds()[0].Ending)
	patched.ID = 4711
	k.code(problem.NotFound, k.Store.UpdateEndpoint(k.ctx, patched, read.UpdatedAt, webhooks.Edit{Actor: "test"}))
}

func endpointSecrets(k *kit) {
	now := k.Clock.Now()
	e := k.endpoint(func(e *webhooks.Endpoint) {
		e.Secrets = []webhooks.Secret{{Key: []byte("new"), CreatedAt: now}, {Key: []byte("old"), CreatedAt: now, ExpiresAt: now.Add(time.Hour)}}
	})
	keys := func() [][]byte {
		t, err := k.Store.Target(k.ctx, k.tenant, e.ID, channels.Webhook)
		k.ok(err)
		return t.Target.Secrets
	}
	require.Equal(k, [][]byte{[]byte("new"), []byte("old")}, keys())
	k.Clock.Advance(time.Hour)
	require.Equal(k, [][]byte{[]byte("new")}, keys(), "a secret's end is seen when signing")
}

func listsEndpoints(k *kit) {
	var want []ids.ID
	for range 3 {
		want = append(want, k.endpoint().ID)
	}
	list, err := k.Store.Endpoints(k.ctx, k.tenant, 0, 2)
	k.ok(err)
	id := func(e webhooks.Endpoint) ids.ID { return e.ID }
	require.Equal(k, want[:2], idsOf(list, id))
	require.Empty(k, list[0].Secrets)
	list, err = k.Store.Endpoints(k.ctx, k.tenant, want[1], 2)
	k.ok(err)
	require.Equal(k, want[2:], idsOf(list, id))
}

func deletesEndpoints(k *kit) {
	e := k.paused(k.endpoint())
	k.ok(k.Store.DeleteEndpoint(k.ctx, k.tenant, e.ID, "test"))
	k.code(problem.NotFound, k.Store.DeleteEndpoint(k.ctx, k.tenant, e.ID, "test"))
	_, err := k.Store.Endpoint(k.ctx, k.tenant, e.ID)
	k.code(problem.NotFound, err)
	require.Equal(k, delivery.Resume, k.holds()[0].Ending, "what waits finds out that the target is gone")
}

// deletion takes steps of the job that follows the deletion of endpoints until it
// waits or has ended, and gives it back as it is then.
func (k *kit) deletion() (j jobs.Job, steps int) {
	k.Helper()
	for {
		got, _ := k.claimJob(jobs.DropForDeletedEndpoints)
		if got.ID == 0 {
			return j, steps
		}
		_, err := k.Store.DropForDeletedEndpointsStep(k.ctx, got)
		k.ok(err)
		steps++
		j, err = k.Store.Job(k.ctx, k.tenant, got.ID)
		k.ok(err)
	}
}

// deletionDropsWhatWaits at once, however late it is due, and in bounded steps. What
// is being sent meanwhile, and waits again afterwards, is found by a second walk.
func deletionDropsWhatWaits(k *kit) {
	const many = 1500
	gone, kept := k.endpoint(), k.endpoint()
	later := func(due time.Duration, lane delivery.Lane) func(*delivery.Accepted) {
		return func(a *delivery.Accepted) {
			onWebhook(a)
			a.Lane = lane
			for i := range a.Rows {
				a.Rows[i].DueAt, a.Rows[i].Lane, a.Rows[i].ExpiresAt = a.CreatedAt.Add(due), lane, a.CreatedAt.Add(72*time.Hour)
			}
		}
	}
	to := func(target ids.ID, n int, edit func(*delivery.Accepted)) (rows []delivery.Row) {
		for range n {
			a := k.notification(target)
			edit(&a)
			k.accept(a)
			rows = append(rows, a.Rows...)
		}
		return rows
	}
	sending := to(gone.ID, 1, later(0, delivery.Regular))[0]
	claimed := k.claim()[0]
	var list []delivery.Accepted
	for range many {
		a := k.notification(gone.ID)
		later(24*time.Hour, delivery.Regular)(&a)
		list = append(list, a)
	}
	k.accept(list...)
	waiting := append(to(gone.ID, 2, later(0, delivery.Urgent)), to(gone.ID, 2, later(time.Hour, delivery.Bulk))...)
	others := append(to(kept.ID, 2, later(time.Hour, delivery.Regular)), k.accepted(1).Rows...)

	k.ok(k.Store.DeleteEndpoint(k.ctx, k.tenant, gone.ID, "test"))
	j, steps := k.deletion()
	require.Equal(k, jobs.Running, j.State)
	require.Equal(k, many+len(waiting), j.Done)
	require.Equal(k, 4, steps, "two in the lane that has more than one window, one in each of the others")
	for _, r := range append(waiting, list[0].Rows[0], list[many-1].Rows[0]) {
		require.Zero(k, k.is(r, delivery.Dropped, delivery.Gone).DueAt)
	}
	for _, r := range others {
		k.is(r, delivery.Pending, delivery.NoReason)
	}
	k.is(sending, delivery.Sending, delivery.NoReason)

	k.finish(delivery.Finish{Row: claimed.Row, Transition: delivery.Transition{State: delivery.Pending, DueAt: k.Clock.Now().Add(time.Hour), Spent: 1},
		Attempt: k.attempt(claimed.Row, channels.Retry, "later")})
	k.Clock.Advance(delivery.EraseGrace)
	j, _ = k.deletion()
	require.Equal(k, jobs.Done, j.State)
	require.Equal(k, many+len(waiting)+1, j.Done)
	k.is(sending, delivery.Dropped, delivery.Gone)
}

// deletionsShareAJob: it walks through all that waits in the tenant, which is not
// done once more for each of many endpoints.
func deletionsShareAJob(k *kit) {
	remove := func() { k.ok(k.Store.DeleteEndpoint(k.ctx, k.tenant, k.endpoint().ID, "test")) }
	count := func() int {
		list, err := k.Store.Jobs(k.ctx, k.tenant, jobs.Query{Kind: jobs.DropForDeletedEndpoints, Limit: 10})
		k.ok(err)
		return len(list)
	}
	for range 3 {
		remove()
	}
	require.Equal(k, 1, count())
	first, _ := k.deletion()
	k.Clock.Advance(time.Minute)
	remove()
	require.Equal(k, 1, count(), "it waits for its second walk, and begins anew")
	again, steps := k.deletion()
	require.Equal(k, first.ID, again.ID)
	require.Equal(k, delivery.LanesCount, steps)
	require.Equal(k, k.Clock.Now().Add(delivery.EraseGrace), again.LeaseUntil)

	k.Clock.Advance(delivery.EraseGrace)
	busy, _ := k.claimJob(jobs.DropForDeletedEndpoints)
	remove()
	require.Equal(k, 2, count(), "a step that is being taken may have looked already")
	_, err := k.Store.DropForDeletedEndpointsStep(k.ctx, busy)
	k.ok(err)
}
