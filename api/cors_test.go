package api

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/carillonhq/carillon/problem"
)

const (
	goodOrigin = "https://app.example.com"
	badOrigin  = "https://evil.example.com"
)

func preflight(t *testing.T, w *world, path, origin string) *httptest.ResponseRecorder {
	t.Helper()
	return w.do(t, request{method: "OPTIONS", path: path, header: map[string]string{
		"Origin": origin, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}})
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.tenants.origins = []string{goodOrigin}
	rec := preflight(t, w, "/v1/me/devices", goodOrigin)
	require.Equal(t, 204, rec.Code)
	require.Equal(t, goodOrigin, rec.Header().Get("Access-Control-Allow-Origin"))
	require.Contains(t, rec.Header().Get("Access-Control-Allow-Methods"), "PUT")
	require.Contains(t, rec.Header().Get("Access-Control-Allow-Headers"), "Authorization")
	require.Equal(t, []string{"Origin"}, rec.Header().Values("Vary"))
	require.Empty(t, rec.Header().Get("Access-Control-Allow-Credentials"))

	for path, origin := range map[string]string{"/v1/me/devices": badOrigin, "/v1/me/push-key": "null", "/v1/devices": goodOrigin, "/v1/keys": goodOrigin} {
		rec := preflight(t, w, path, origin)
		problemIn(t, rec)
		require.Empty(t, rec.Header().Get("Access-Control-Allow-Origin"), "%s from %s", path, origin)
	}
}

func TestRequestsOfPages(t *testing.T) {
	t.Parallel()
	w := setup(t)
	w.tenants.origins = []string{goodOrigin}
	put := func(key, origin string) *httptest.ResponseRecorder {
		w.did = nil
		return w.do(t, request{method: "PUT", path: "/v1/me/devices", key: key, body: bodies["putMyDevice"], header: map[string]string{"Origin": origin}})
	}
	rec := put(tokenUser, goodOrigin)
	require.Equal(t, 200, rec.Code)
	require.Equal(t, goodOrigin, rec.Header().Get("Access-Control-Allow-Origin"))

	rec = put("eyJ.expired", goodOrigin)
	require.Equal(t, problem.Unauthenticated, problemIn(t, rec).Code)
	require.Equal(t, goodOrigin, rec.Header().Get("Access-Control-Allow-Origin"), "the page must be able to read why")

	rec = put(tokenUser, badOrigin)
	require.Equal(t, problem.Forbidden, problemIn(t, rec).Code)
	require.NotContains(t, w.did, "register")

	require.Equal(t, 200, put(tokenUser, "").Code, "apps send no Origin")
	require.Equal(t, 200, put(tokenUser, "http://example.com").Code, "httptest's own host: a page that this server serves")
}

func TestNewOriginsAreFound(t *testing.T) {
	t.Parallel()
	w := setup(t)
	require.NotEqual(t, 204, preflight(t, w, "/v1/me/devices", goodOrigin).Code)
	w.tenants.origins = []string{goodOrigin}
	w.did = nil
	require.NotEqual(t, 204, preflight(t, w, "/v1/me/devices", goodOrigin).Code)
	require.Empty(t, w.did, "unknown origins do not list tenants on every request")
	w.now = w.now.Add(originsRetry + time.Second)
	require.Equal(t, 204, preflight(t, w, "/v1/me/devices", goodOrigin).Code)
	w.tenants.origins = nil
	w.now = w.now.Add(originsFresh + time.Second)
	require.NotEqual(t, 204, preflight(t, w, "/v1/me/devices", goodOrigin).Code)
}
