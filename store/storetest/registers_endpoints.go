package storetest

import (
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/channels"
	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
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
	k.ok(k.Store.UpdateEndpoint(k.ctx, e, was, "test"))
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
	k.code(problem.Conflict, k.Store.UpdateEndpoint(k.ctx, patched, read.UpdatedAt, "test"))
	got, err := k.Store.Endpoint(k.ctx, k.tenant, read.ID)
	k.ok(err)
	require.Equal(k, webhooks.Disabled, got.Status)
	require.Empty(k, got.Description)
	require.Equal(k, delivery.Open, k.holds()[0].Ending)
	patched.ID = 4711
	k.code(problem.NotFound, k.Store.UpdateEndpoint(k.ctx, patched, read.UpdatedAt, "test"))
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
