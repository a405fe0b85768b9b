package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/ids"
	"github.com/carillonhq/carillon/problem"
	"github.com/carillonhq/carillon/tenants"
)

// bodies are requests that succeed, by route.
var bodies = map[string]string{
	"sendNotification":   `{"to":{"users":["u1"]},"title":"t"}`,
	"sendNotifications":  `{"notifications":[{"to":{"users":["u1"]},"title":"t"}]}`,
	"replayDeadLetters":  `{"filter":{"reason":"exhausted"}}`,
	"restoreDevices":     `{"filter":{"reason":"fcm.unregistered"}}`,
	"retireDevices":      `{"filter":{"reason":"fcm.unregistered"}}`,
	"putDevice":          `{"user":"u1","channel":"fcm","token":"tok"}`,
	"putDevices":         `{"devices":[{"user":"u1","channel":"fcm","token":"new"}]}`,
	"putMyDevice":        `{"channel":"fcm","token":"tok"}`,
	"unregisterMyDevice": `{"address":"tok"}`,
	"createEndpoint":     `{"url":"https://example.com/hook"}`,
	"patchEndpoint":      `{"description":"d"}`,
	"patchDevice":        `{"locale":"de"}`,
	"pauseEndpoint":      `{"reason":"r"}`,
	"putCredential":      `{"private_key":"x"}`,
	"pauseCredential":    `{"reason":"r"}`,
	"rollbackCredential": `{"version":1}`,
	"createKey":          `{"name":"k","scopes":["send"]}`,
	"createUserKey":      `{"name":"k"}`,
	"createTenant":       `{"name":"acme"}`,
	"putTenant":          `{"title":"Acme"}`,
	"putOwnTenant":       `{"title":"Acme"}`,
	"putSending":         `{"paused":true,"reason":"r"}`,
}

// sampleRequest fills in the path and body of a route.
func sampleRequest(r route) request {
	id := ""
	switch {
	case strings.HasPrefix(r.path, "/v1/notifications"):
		id = theNotification.Format(ids.Notification)
	case strings.HasPrefix(r.path, "/v1/deliveries"):
		id = ids.FormatDelivery(theNotification, theTarget)
	case strings.Contains(r.path, "/devices"):
		id = theDevice.Format(ids.Device)
	case strings.HasPrefix(r.path, "/v1/endpoints"):
		id = theEndpoint.Format(ids.Endpoint)
	case strings.HasPrefix(r.path, "/v1/credentials"):
		id = theCredential.Format(ids.Credential)
	case strings.HasPrefix(r.path, "/v1/jobs"):
		id = theJob.Format(ids.Job)
	case strings.HasPrefix(r.path, "/v1/erasures"):
		id = theErasure.Format(ids.Erasure)
	case strings.HasPrefix(r.path, "/v1/user-keys"):
		id = theUserKey.Format(ids.UserKey)
	case strings.HasPrefix(r.path, "/v1/keys"):
		id = theKey.Format(ids.Key)
	}
	path := strings.NewReplacer("{id}", id, "{tenant}", "acme", "{app}", "shop", "{channel}", "fcm", "{user}", "u1").Replace(r.path)
	return request{method: r.method, path: path, body: bodies[r.id]}
}

// rightKey is a key that may make the call, and no more than that.
func rightKey(a access) string {
	switch a.kind {
	case byOperator:
		return keyOperator
	case byUser:
		return tokenUser
	}
	return keyWith(a.scope)
}

// refusal is a caller who may not make a call.
type refusal struct {
	who, key, tenant string
	want             problem.Code
}

func TestEveryRouteRefusesWhoMayNot(t *testing.T) {
	t.Parallel()
	for _, r := range setup(t).routes() {
		t.Run(r.id, func(t *testing.T) {
			t.Parallel()
			cases := []refusal{
				{"guest", "", "", problem.Unauthenticated},
				{"unknown key", "crl_nobody", "", problem.Unauthenticated},
				{"expired key", keyExpired, "", problem.Unauthenticated},
			}
			switch r.access.kind {
			case byUser:
				cases = append(cases, refusal{"server key", keyAdmin, "", problem.Unauthenticated})
			case byOperator:
				cases = append(cases, refusal{"tenant's admin key", keyAdmin, "", problem.Forbidden})
			case byKey:
				for _, scope := range tenants.Scopes() {
					if scope != r.access.scope && scope != tenants.Admin {
						cases = append(cases, refusal{"scope " + string(scope), keyWith(scope), "", problem.Forbidden})
					}
				}
				cases = append(cases, []refusal{
					{"user's token", tokenUser, "", problem.Unauthenticated},
					{"operator with an unknown tenant", keyOperator, "nobody", problem.NotFound},
					{"key that names another tenant", keyOtherAll, "acme", problem.NotFound},
				}...)
				if !r.access.installation {
					cases = append(cases, refusal{"operator without a tenant", keyOperator, "", problem.Invalid})
				}
			}
			w := setup(t)
			for _, c := range cases {
				req := sampleRequest(r)
				req.key, req.tenant = c.key, c.tenant
				rec := w.do(t, req)
				require.Equal(t, c.want, problemIn(t, rec).Code, c.who)
				require.Equal(t, c.want == problem.Unauthenticated, rec.Header().Get("WWW-Authenticate") != "", c.who)
				require.Empty(t, w.did, "%s: nothing else may happen", c.who)
			}
		})
	}
}

func TestEveryRouteAnswersWhoMay(t *testing.T) {
	t.Parallel()
	for _, r := range setup(t).routes() {
		t.Run(r.id, func(t *testing.T) {
			t.Parallel()
			keys := map[string]string{rightKey(r.access): ""}
			if r.access.kind == byKey {
				keys[keyAdmin] = ""
				keys[keyOperator] = "acme"
			}
			w := setup(t)
			w.tenants.credentials = append(w.tenants.credentials, aCredential())
			for key, tenant := range keys {
				req := sampleRequest(r)
				req.key, req.tenant = key, tenant
				rec := w.do(t, req)
				want := r.status
				if want == 0 {
					want = http.StatusOK
				}
				require.Equal(t, want, rec.Code, rec.Body.String())
				require.Equal(t, "no-store", rec.Header().Get("Cache-Control"))
				require.NotContains(t, rec.Body.String(), "never-shown")
				require.Equal(t, want == http.StatusNoContent, rec.Body.Len() == 0)
			}
		})
	}
}

// TestAnotherTenantsIDsAreNotFound calls every route with an id in it by a key
// of another tenant that has all scopes.
func TestAnotherTenantsIDsAreNotFound(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for _, r := range w.routes() {
		if !strings.Contains(r.path, "{id}") || r.access.kind != byKey {
			continue
		}
		w.did = nil
		req := sampleRequest(r)
		req.key = keyOtherAll
		require.Equal(t, problem.NotFound, problemIn(t, w.do(t, req)).Code, r.id)

		w.did = nil
		req.key = rightKey(r.access)
		req.path = strings.NewReplacer("_00000000400", "_zzzzzzzzzzz").Replace(req.path)
		rec := w.do(t, req)
		require.Equal(t, problem.NotFound, problemIn(t, rec).Code, "%s with a malformed id", r.id)
		require.Empty(t, w.did, r.id)
	}
}

func TestAuthorizationHeader(t *testing.T) {
	t.Parallel()
	w := setup(t)
	for header, want := range map[string]int{
		"Bearer " + keyAdmin:            200,
		"bearer " + keyAdmin:            200,
		"Bearer   " + keyAdmin + " ":    200,
		keyAdmin:                        401,
		"Basic " + keyAdmin:             401,
		"Bearer ":                       401,
		"Bearer":                        401,
		"Bearer " + keyAdmin + " extra": 401,
	} {
		rec := w.do(t, request{method: "GET", path: "/v1/keys", header: map[string]string{"Authorization": header}})
		require.Equal(t, want, rec.Code, header)
	}
}
