package api

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/delivery"
	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
)

// leaps are the calls that can hurt many, each with what it takes away and what it
// answers when it is done.
func leaps() map[string]struct {
	request
	by     delivery.AffectedBy
	status int
} {
	type leap = struct {
		request
		by     delivery.AffectedBy
		status int
	}
	return map[string]leap{
		"delete endpoint":    {request{method: "DELETE", path: "/v1/endpoints/" + theEndpoint.Format(ids.Endpoint), key: keyAdmin}, delivery.AffectedBy{Endpoint: theEndpoint}, 204},
		"delete app shop":    {request{method: "DELETE", path: "/v1/apps/shop", key: keyAdmin}, delivery.AffectedBy{App: "shop"}, 202},
		"delete tenant acme": {request{method: "DELETE", path: "/v1/tenants/acme", key: keyOperator}, delivery.AffectedBy{}, 202},
	}
}

func TestWhatCanHurtManyMayBeLookedAtFirst(t *testing.T) {
	t.Parallel()
	for name, x := range leaps() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := setup(t)
			w.reads.affected = delivery.Affected{Devices: 101, Endpoints: 2, Waiting: 7, LowerBound: true}
			r := x.request
			r.path += "?dry_run=true"
			require.Equal(t, Affected{DryRun: true, Devices: 101, Endpoints: 2, Waiting: 7, LowerBound: true, NeedsForce: true}, jsonIn[Affected](t, w.do(t, r), 200))
			require.Equal(t, x.by, w.reads.by)
			r.path += "&force=true"
			require.False(t, jsonIn[Affected](t, w.do(t, r), 200).NeedsForce)
			w.reads.affected.Devices = 100
			r.path = x.path + "?dry_run=true"
			require.False(t, jsonIn[Affected](t, w.do(t, r), 200).NeedsForce)
			require.NotContains(t, w.did, name, "nothing is done")
		})
	}
}

func TestWhatWouldStrandManyIsForced(t *testing.T) {
	t.Parallel()
	for name, x := range leaps() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, many := range []delivery.Affected{{Devices: 101}, {Waiting: 101, LowerBound: true}} {
				w := setup(t)
				w.reads.affected = many
				p := problemIn(t, w.do(t, x.request))
				require.Equal(t, problem.Conflict, p.Code)
				require.Contains(t, p.Detail, "101")
				require.Contains(t, p.Detail, "force=true")
				require.NotContains(t, w.did, name)
				r := x.request
				r.path += "?force=true"
				require.Equal(t, x.status, w.do(t, r).Code)
				require.Contains(t, w.did, name)
			}
			w := setup(t)
			w.reads.affected = delivery.Affected{Devices: 100, Waiting: 100}
			require.Equal(t, x.status, w.do(t, x.request).Code, "as ever")
			require.Contains(t, w.did, name)
		})
	}
}

// TestAPairThatIsInUseIsForced: a browser does not move to another by itself.
func TestAPairThatIsInUseIsForced(t *testing.T) {
	t.Parallel()
	w := setup(t)
	r := request{method: "DELETE", path: "/v1/credentials/" + theCredential.Format(ids.Credential), key: keyAdmin}
	w.reads.affected = delivery.Affected{Devices: 1}
	require.Equal(t, problem.Conflict, problemIn(t, w.do(t, r)).Code)
	require.Equal(t, delivery.AffectedBy{Credential: theCredential}, w.reads.by)
	require.NotContains(t, w.did, "delete credential")
	dry := r
	dry.path += "?dry_run=true"
	require.Equal(t, Affected{DryRun: true, Devices: 1, NeedsForce: true}, jsonIn[Affected](t, w.do(t, dry), 200))
	r.path += "?force=true"
	require.Equal(t, http.StatusNoContent, w.do(t, r).Code)
	require.Contains(t, w.did, "delete credential")
}

// TestAnAppWithAPairIsForced: its deletion takes the pair away.
func TestAnAppWithAPairIsForced(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := aCredential()
	c.App = "shop"
	w.tenants.credentials = append(w.tenants.credentials, c)
	w.reads.affected = delivery.Affected{Devices: 1}
	r := request{method: "DELETE", path: "/v1/apps/shop", key: keyAdmin}
	require.Equal(t, problem.Conflict, problemIn(t, w.do(t, r)).Code)
	require.NotContains(t, w.did, "delete app shop")
	r.path += "?force=true"
	require.Equal(t, theJob.Format(ids.Job), jsonIn[Job](t, w.do(t, r), 202).ID)
	require.Contains(t, w.did, "delete app shop")
}

// TestTheDefaultAppStays: it is the one that is meant where none is named.
func TestTheDefaultAppStays(t *testing.T) {
	t.Parallel()
	for _, query := range []string{"", "?force=true", "?dry_run=true"} {
		w := setup(t)
		p := problemIn(t, w.do(t, request{method: "DELETE", path: "/v1/apps/default" + query, key: keyAdmin}))
		require.Equal(t, problem.Conflict, p.Code)
		require.Contains(t, p.Detail, "cannot be deleted")
		require.Empty(t, w.did)
	}
}

// TestTheProgressOfARotationIsRead: by the pair, not by the list.
func TestTheProgressOfARotationIsRead(t *testing.T) {
	t.Parallel()
	w := setup(t)
	c := jsonIn[Credential](t, w.do(t, get("/v1/credentials/"+theCredential.Format(ids.Credential), keyAdmin)), 200)
	require.Equal(t, &Subscriptions{Bound: 83, Unknown: 5, App: 100, Percent: 83}, c.Subscriptions)
	require.NotContains(t, w.do(t, get("/v1/credentials", keyAdmin)).Body.String(), "subscriptions")
}

// TestASwitchSaysWhich: whoever writes a mere ?dry_run means to look, and must not find
// that it was done.
func TestASwitchSaysWhich(t *testing.T) {
	t.Parallel()
	for name, x := range leaps() {
		for _, query := range []string{"dry_run", "dry_run=", "dry_run=false&dry_run=true", "dry_run=true&force", "dry_run=yes", "force=on"} {
			w := setup(t)
			r := x.request
			r.path += "?" + query
			p := problemIn(t, w.do(t, r))
			require.Len(t, p.Errors, 1, name)
			require.Contains(t, p.Errors[0].Detail, "must be given once")
			require.Empty(t, w.did, name, query)
		}
	}
}

// TestAQueryThatCannotBeReadDoesNothing: what is passed over of it may be the dry_run.
func TestAQueryThatCannotBeReadDoesNothing(t *testing.T) {
	t.Parallel()
	for name, x := range leaps() {
		for _, query := range []string{"dry_run=true;force=true", "dry_run=true%zz", "force=true&dry_run=%"} {
			w := setup(t)
			r := x.request
			r.path += "?" + query
			require.Contains(t, problemIn(t, w.do(t, r)).Detail, "cannot be read", name)
			require.Empty(t, w.did, name, query)
		}
	}
}

// TestAnErasureIsNeverForced: but it may be looked at.
func TestAnErasureIsNeverForced(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.reads.affected = delivery.Affected{Devices: 2, Waiting: 1000}
	r := request{method: "DELETE", path: "/v1/users/u1", key: keyAdmin}
	require.Equal(t, http.StatusAccepted, w.do(t, r).Code)
	w.did = nil
	r.path += "?dry_run=true"
	require.Equal(t, Affected{DryRun: true, Devices: 2, Waiting: 1000}, jsonIn[Affected](t, w.do(t, r), 200))
	require.Equal(t, delivery.AffectedBy{User: "u1"}, w.reads.by)
	require.Equal(t, []string{"look"}, w.did)
}

// TestDryRunsOfOrdersAreAskedForInEitherWay: in the body, or as with other calls.
func TestDryRunsOfOrdersAreAskedForInEitherWay(t *testing.T) {
	t.Parallel()
	for path, body := range map[string]string{
		"/v1/devices/restore":     `{"filter":{"app":"shop"}}`,
		"/v1/devices/retire":      `{"filter":{"app":"shop"}}`,
		"/v1/dead-letters/replay": `{"filter":{"reason":"exhausted"}}`,
	} {
		w := setup(t)
		r := request{method: "POST", path: path + "?dry_run=true", key: keyAdmin, body: body, header: map[string]string{idempotencyHeader: "once"}}
		require.True(t, jsonIn[DeviceRestorePreview](t, w.do(t, r), 200).DryRun)
		require.Len(t, w.did, 1, "not even the idempotency key is looked up")
	}
}
